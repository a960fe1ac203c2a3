"""From a URL to fsspec's driver of its store, and the one event loop in which all drivers work."""

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
class Place:
    """One path of one store."""

    fs: "AbstractFileSystem"
    path: str

    @property
    def is_local(self) -> bool:
        return "file" in self.fs.protocol

    async def ask(self, operation: str, *arguments: Any, **options: Any) -> Any:
        """One operation of the store's driver, in a thread where the driver is not asynchronous."""
        if self.fs.async_impl:
            return await getattr(self.fs, f"_{operation}")(self.path, *arguments, **options)
        return await asyncio.to_thread(getattr(self.fs, operation), self.path, *arguments, **options)


def place_of(url: str) -> Place:
    """The place of an absolute URL. Raises InputError for an unknown scheme, and for '..' in a key."""
    scheme, _, path = url.partition("://")
    if scheme != "file" and ".." in path.split("/"):
        raise InputError(f"{url}: stores disagree on what '..' means in a URL; name the place itself")
    fs = _filesystem(scheme)
    return Place(fs, str(fs._strip_protocol(url)))


def start(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Begin work in the event loop of fsspec's drivers."""
    from fsspec.asyn import get_loop

    return asyncio.run_coroutine_threadsafe(work, get_loop())


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of work in that loop; from any thread but the loop's own."""
    return start(work).result()


@cache
def _filesystem(scheme: str) -> "AbstractFileSystem":
    import fsspec

    options: dict[str, Any] = {}
    if scheme in ("s3", "s3a"):
        # one request an object instead of a question for its size before it
        options["max_concurrency"] = 1
        options["config_kwargs"] = {
            "max_pool_connections": CONNECTIONS,
            "connect_timeout": 10,
            "read_timeout": retry.attempt_seconds(),
            "retries": {"total_max_attempts": 1},
            "signature_version": "s3v4",  # the older one would still be taken for signed URLs
            "response_checksum_validation": "when_required",  # storage compares sizes and etags
        }
    try:
        fs = fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False, **options)
    except (ValueError, ImportError) as error:
        raise InputError(f"{scheme}://: {error}") from error
    fs.retries = 1  # s3fs has retries of its own beside botocore's; ours are in faults.py
    return fs
