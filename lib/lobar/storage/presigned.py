"""Bulk reads from S3 by signed URLs.

botocore spends 2 ms of Python on a call, which bounds how many small objects a process can read; a signed URL
and a plain GET take a third of that.
"""

import os
import ssl
from typing import Any
from urllib.request import getproxies


def can_sign(fs: Any) -> bool:
    """Whether a driver's store is S3, reached directly; a proxy on the way is left to the driver."""
    return "s3" in fs.protocol and not getproxies().keys() & {"http", "https", "all"}


class SignedReader:
    """Reads objects by one S3 driver's signature, over connections of its own; lives in one event loop.

    A connection over which nothing comes for `seconds` is lost.
    """

    def __init__(self, fs: Any, connections: int, seconds: float) -> None:
        import aiohttp

        self.fs = fs
        # the driver heeds it too
        context = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))
        connector = aiohttp.TCPConnector(limit=connections, ssl=context)
        self.session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(sock_read=seconds), auto_decompress=False
        )

    async def read(self, path: str, first: int | None) -> bytes | None:
        """The content of one object, or its first bytes; None where the store answers with anything else.

        Raises what aiohttp raises for a lost connection, a stall or a body that is too short.
        """
        from yarl import URL

        url = URL(await self.fs._url(path), encoded=True)
        headers = {"Range": f"bytes=0-{first - 1}"} if first else {}
        async with self.session.get(url, headers=headers, allow_redirects=False) as reply:
            return await reply.read() if reply.status == (206 if first else 200) else None

    async def close(self) -> None:
        await self.session.close()
