"""Bulk reads from S3 by presigned URLs.

A botocore call costs 2 ms of Python, which limits how many small objects a process can read per second. A
presigned URL and a plain GET take a third of that.
"""

import ssl
from typing import Any
from urllib.request import getproxies

from lobar.storage.filesystem import s3_certificates


def can_presign(fs: Any) -> bool:
    """Whether a driver's store is S3 and no proxy is configured, which only the driver supports."""
    return "s3" in fs.protocol and not getproxies().keys() & {"http", "https", "all"}


class PresignedReader:
    """Reads objects by URLs that an S3 driver presigns, over its own connections, in one event loop.

    A connection that is silent for `seconds` counts as lost.
    """

    def __init__(self, fs: Any, connections: int, seconds: float) -> None:
        import aiohttp

        self.fs = fs
        context = ssl.create_default_context(cafile=s3_certificates())
        connector = aiohttp.TCPConnector(limit=connections, ssl=context)
        self.session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(sock_read=seconds), auto_decompress=False
        )

    async def read(self, path: str, first: int | None) -> bytes | None:
        """The content of one object, or its `first` bytes; None for any status other than success.

        Raises aiohttp's errors for a lost connection, a timeout or a body that is too short.
        """
        from yarl import URL

        url = URL(await self.fs._url(path), encoded=True)
        headers = {"Range": f"bytes=0-{first - 1}"} if first else {}
        async with self.session.get(url, headers=headers, allow_redirects=False) as reply:
            return await reply.read() if reply.status == (206 if first else 200) else None

    async def close(self) -> None:
        await self.session.close()
