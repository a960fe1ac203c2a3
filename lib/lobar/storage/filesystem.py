"""From a URL to the fsspec driver of its store, and the one event loop that all drivers run in."""

import asyncio
import os
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from lobar.core.errors import InputError, OutsideError
from lobar.storage import environment, faults, retry

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CONNECTIONS = 64
WITHOUT_CACHES = {"skip_instance_cache": True, "use_listings_cache": False}
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


def s3_certificates() -> str:
    """The file of certificates that the driver of S3 trusts: the configured one, or its own."""
    from botocore.httpsession import get_cert_path
    from botocore.session import Session

    configured = Session().get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
    return str(get_cert_path(configured or True))


@cache
def _filesystem(scheme: str) -> "AbstractFileSystem":
    environment.check(scheme)
    try:
        return _make_filesystem(scheme)
    except (ValueError, ImportError) as error:
        if scheme not in environment.STORES:
            raise InputError(f"{scheme}://: {error}") from error
        names = environment.STORES[scheme].credentials
        raise InputError(f"{scheme}://: {error}; check the store's variables ({names})") from error
    except Exception as error:  # while getting credentials
        if reason := faults.transient_reason(error):
            raise OutsideError(f"{scheme}://: {reason}") from error
        raise faults.permanent_error(f"{scheme}://", error) from error


def _make_filesystem(scheme: str) -> "AbstractFileSystem":
    import fsspec

    match scheme:
        case "s3" | "s3a":
            return _s3(scheme)
        case "gs" | "gcs":
            from lobar.storage.google import GoogleFileSystem

            return GoogleFileSystem(retry.attempt_seconds(), **WITHOUT_CACHES)
        case "abfs" | "abfss" | "az":
            from lobar.storage.azure import AzureFileSystem

            return AzureFileSystem(retry.attempt_seconds(), **WITHOUT_CACHES)
    return fsspec.filesystem(scheme, **WITHOUT_CACHES)


def _s3(scheme: str) -> "AbstractFileSystem":
    import fsspec

    environment.check_certificates("ca_bundle", s3_certificates())
    settings = {
        "max_pool_connections": CONNECTIONS,
        "connect_timeout": 10,
        "read_timeout": retry.attempt_seconds(),
        "retries": {"total_max_attempts": 1},
        "signature_version": "s3v4",  # botocore would presign URLs with the older one
        "response_checksum_validation": "when_required",  # storage compares sizes and etags
    }
    # one request per object, without asking for its size first
    fs = fsspec.filesystem(scheme, max_concurrency=1, config_kwargs=settings, **WITHOUT_CACHES)
    fs.retries = 1  # s3fs retries on top of botocore; ours are in retry.py
    return fs
