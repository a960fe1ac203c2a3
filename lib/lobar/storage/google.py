"""gcsfs for Google Cloud Storage, without its own retries, and with status and text of each error reply."""

import base64
import json
import os
import re
from typing import Any

import aiohttp
import fsspec.config
from gcsfs.core import GCSFileSystem
from gcsfs.retry import HttpError


class GoogleFileSystem(GCSFileSystem):
    """The driver for gs://."""

    def __init__(self, seconds: float, **options: Any) -> None:
        if "STORAGE_EMULATOR_HOST" in os.environ:
            options["token"] = "anon"  # noqa: S105 - as Google's own clients do
        else:
            # by default gcsfs goes on without credentials if it finds none
            options["token"] = fsspec.config.conf.get("gs", {}).get("token", "google_default")
        timeout = aiohttp.ClientTimeout(sock_connect=10, sock_read=seconds)
        super().__init__(
            requests_timeout=timeout, consistency="md5", session_kwargs={"trust_env": True}, **options
        )

    async def _request(
        self, method: str, path: str, *arguments: str,
        headers: Any = None, json: Any = None, data: Any = None, **parameters: Any,
    ) -> tuple[int, Any, Any, bytes]:  # fmt: skip
        """Replaces gcsfs's method, whose six tries and logged errors cannot be turned off."""
        session = await self._set_session()
        async with session.request(
            method, self._format_path(path, arguments), params=self._get_params(parameters), json=json,
            data=data, headers=self._get_headers(headers), timeout=self.requests_timeout,
        ) as reply:  # fmt: skip
            content = await reply.read()
            if reply.status >= 400 and reply.status != 499:  # the reply to a cancelled upload
                raise _error(path, reply.status, content)
            return reply.status, reply.headers, reply.request_info, content

    def _process_object(self, bucket: str, metadata: dict[str, Any]) -> dict[str, Any]:
        """The description of an object; its etag is the MD5 of its content, which composed objects lack."""
        described = super()._process_object(bucket, metadata)
        if md5 := metadata.get("md5Hash"):
            described["etag"] = base64.b64decode(md5).hex()
        return described


def _error(path: str, status: int, content: bytes) -> Exception:
    """The error for a reply; gcsfs itself expects those of missing and existing objects."""
    text = content.decode(errors="replace")
    try:
        fields = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        fields = text
    fields = dict(fields) if isinstance(fields, dict) else {"message": str(fields)}
    if status == 404 and re.search(r"/o(\?|$)", path):  # of a listing or a new object: the bucket is missing
        fields["errors"] = [{"reason": "NoSuchBucket"}]
    error = HttpError(fields | {"code": status})
    kinds = {404: FileNotFoundError, 412: FileExistsError}
    if status not in kinds:
        return error
    translated = kinds[status](text)
    translated.__cause__ = error
    return translated
