"""From a URL to the fsspec driver of its store, and the one event loop that all drivers run in."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from lobar.core.errors import InputError
from lobar.storage import retry

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CONNECTIONS = 64
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Location:
    """A path in a store."""

    fs: "AbstractFileSystem"
    path: str

    @property
    def is_local(self) -> bool:
        return "file" in self.fs.protocol

    async def call(self, operation: str, *arguments: Any, **options: Any) -> Any:
        """Run one operation of the driver on this path, in a thread if the driver is not asynchronous."""
        if self.fs.async_impl:
            return await getattr(self.fs, f"_{operation}")(self.path, *arguments, **options)
        return await asyncio.to_thread(getattr(self.fs, operation), self.path, *arguments, **options)


def locate(url: str) -> Location:
    """The location of an absolute URL. Raises InputError for an unknown scheme and for '..' in a key."""
    scheme, _, path = url.partition("://")
    if scheme != "file" and ".." in path.split("/"):
        raise InputError(f"{url}: '..' means different things to different stores; give the full URL")
    fs = _filesystem(scheme)
    return Location(fs, str(fs._strip_protocol(url)))


def submit(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Schedule a coroutine in the event loop of fsspec's drivers."""
    from fsspec.asyn import get_loop

    return asyncio.run_coroutine_threadsafe(coroutine, get_loop())


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in that loop and return its result; not to be called from the loop's own thread."""
    return submit(coroutine).result()


@cache
def _filesystem(scheme: str) -> "AbstractFileSystem":
    import fsspec

    options: dict[str, Any] = {}
    if scheme in ("s3", "s3a"):
        # one request per object, without asking for its size first
        options["max_concurrency"] = 1
        options["config_kwargs"] = {
            "max_pool_connections": CONNECTIONS,
            "connect_timeout": 10,
            "read_timeout": retry.attempt_seconds(),
            "retries": {"total_max_attempts": 1},
            "signature_version": "s3v4",  # botocore would presign URLs with the older one
            "response_checksum_validation": "when_required",  # storage compares sizes and etags
        }
    try:
        fs = fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False, **options)
    except (ValueError, ImportError) as error:
        raise InputError(f"{scheme}://: {error}") from error
    fs.retries = 1  # s3fs retries on top of botocore; ours are in retry.py
    return fs
