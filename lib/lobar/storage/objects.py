"""Objects by URL on any fsspec filesystem: list, read in bulk, publish atomically.

A plain path is a file URL. Credentials, endpoint and region come only from the environment
(`environment`).
"""

import asyncio
import hashlib
import logging
import os
import re
import shutil
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lobar.core.concurrency import in_order
from lobar.core.errors import AbsentError, InputError, LobarError, TakenError
from lobar.storage import local, retry
from lobar.storage.filesystem import Location, locate, run_sync, submit
from lobar.storage.presigned import PresignedReader, can_presign

READERS = 64
AHEAD_BYTES = 64 << 20
SMALL_BYTES = 1 << 20
BYTES_PER_SECOND = 1_000_000  # a slower transfer times out
TRANSFER_SECONDS = 3600.0  # for transfers of unknown size; the driver still notices a stalled one
OWN_ETAG = "md5:"
PROBE = ".probe-"
# probes, and files that are being written or whose writer was killed
UNLISTED = re.compile(rf"/({re.escape(PROBE)}[^/]*|\.[^/]+\.[0-9a-f]{{8}}\.part)$")
MD5 = re.compile("[0-9a-f]{32}")
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Object:
    """An object in a store: its URL, its size in bytes, and an etag that changes with its content."""

    url: str
    bytes: int
    etag: str


def absolute(url: str) -> str:
    """`url` with a scheme and without a trailing slash; a plain path becomes a file URL."""
    if "://" not in url:
        url = Path(url).absolute().as_posix()
        url = f"file://{os.path.normpath(url)}"
    return url.rstrip("/")


def join(url: str, *parts: str) -> str:
    """`url` with path parts appended."""
    return "/".join([absolute(url), *parts])


def name(url: str) -> str:
    """The last part of a URL's path."""
    return url.rstrip("/").rsplit("/", 1)[-1]


def list_objects(url: str) -> list[Object]:
    """All objects under a prefix, from a fresh listing, sorted by URL; empty if there are none.

    `etag` is empty if the store has none; `with_etag` computes it from the content. Probes of a concurrent
    `check_create` and unfinished files are left out.
    """
    location = _locate(url)
    listing = _call(url, "find", detail=True, more_seconds=TRANSFER_SECONDS)
    # drivers also list an object at the prefix itself, and some stores list folders
    prefix = location.path.rstrip("/") + "/"
    scheme = absolute(url).split("://", 1)[0]
    objects = [
        _object(f"{scheme}://{key}", info)
        for key, info in listing.items()
        if key.startswith(prefix) and not key.endswith("/") and not UNLISTED.search(key)
        if not location.is_local or _is_file(key)
    ]
    return sorted(objects, key=lambda item: item.url)


def with_etag(item: Object) -> Object:
    """`item` unchanged if its store provides an etag, else with the MD5 of its content."""
    if item.etag:
        return item
    location = _locate(item.url)
    if location.is_local:
        digest = _with_retries(item.url, partial(asyncio.to_thread, local.md5, location.path))
    else:
        digest = _md5(read(item.url))
    return Object(item.url, item.bytes, OWN_ETAG + digest)


def read(url: str) -> bytes:
    """The content of one object. Raises AbsentError if there is none, InputError if access is denied."""
    return _call(url, "cat_file", more_seconds=TRANSFER_SECONDS)


def read_many(
    items: Iterable[Object], first: int | None = None
) -> Iterator[tuple[Object, bytes | LobarError]]:
    """Read listed objects concurrently and yield them in order, with limited connections and memory.

    Each comes with its content or an error: OutsideError if the store failed, AbsentError or InputError if
    it was removed or changed after the listing. With `first`, only so many bytes of each are read, unchecked.
    """
    reader = _CheckedReader(first)
    try:
        yield from in_order(lambda item: submit(reader.read(item)), items, AHEAD_BYTES, reader.weight)
    finally:
        run_sync(reader.close())


class _CheckedReader:
    """Reads objects and checks their size and etag against the listing."""

    def __init__(self, first: int | None) -> None:
        self.first = first
        self.checksums = True
        self.presigned: PresignedReader | None = None

    def weight(self, item: Object) -> int:
        """The memory an object may take, in bytes; the minimum limits the number of connections."""
        return max(item.bytes if self.first is None else self.first, SMALL_BYTES)

    async def read(self, item: Object) -> tuple[Object, bytes | LobarError]:
        if not item.bytes and self.first:
            return item, b""  # stores reject a range in an empty object
        try:
            attempt = partial(self._once, item, _locate(item.url))
            return item, await retry.with_retries(item.url, attempt, item.bytes / BYTES_PER_SECOND)
        except LobarError as error:
            return item, error

    async def close(self) -> None:
        if self.presigned:
            await self.presigned.close()

    async def _once(self, item: Object, location: Location) -> bytes:
        data = await self._content(location)
        if self.first:
            return data
        digest = _md5(data)
        if len(data) == item.bytes and item.etag in ("", digest, OWN_ETAG + digest):
            return data
        now = _object(item.url, await location.call("info"))
        if item.etag.startswith(OWN_ETAG) or (now.bytes, now.etag) != (item.bytes, item.etag):
            raise InputError(
                f"{item.url}: its content has changed since it was listed ({item.bytes} bytes then, "
                f"{now.bytes} now); run the job that listed it again"
            )
        if len(data) != item.bytes:
            raise retry.TransientError(f"received {len(data)} bytes, {item.bytes} were listed")
        if self.checksums and MD5.fullmatch(item.etag):
            # under KMS an etag looks like an MD5 but is not one: a second read then returns the same bytes
            if await location.call("cat_file") != data:
                raise retry.TransientError("its content does not match its etag")
            self.checksums = False
        return data

    async def _content(self, location: Location) -> bytes:
        if can_presign(location.fs):
            self.presigned = self.presigned or PresignedReader(location.fs, READERS, retry.attempt_seconds())
            data = await self.presigned.read(location.path, self.first)
            if data is not None:
                return data
        # repeated by the driver, whose error says what is wrong
        return await location.call("cat_file", **({"start": 0, "end": self.first} if self.first else {}))


def exists(url: str) -> bool:
    """Whether an object exists at exactly this URL, without caching."""
    try:
        return bool(_call(url, "info")["type"] == "file")
    except AbsentError:
        return False


def publish(url: str, data: bytes) -> None:
    """Write one object atomically and durably: readers see all of it or nothing. An existing
    object is replaced.
    """
    if _locate(url).is_local:
        _write(url, lambda new: new.write_bytes(data), Path.replace)
    else:
        _call(url, "pipe_file", data, more_seconds=len(data) / BYTES_PER_SECOND)


def publish_file(url: str, source: Path) -> None:
    """Write the content of a local file as one object, atomically, without loading it into memory."""
    location = _locate(url)
    if location.is_local:
        _write(url, lambda new: shutil.copyfile(source, new), Path.replace)
    else:
        # the only operation whose first argument is the local file
        put = partial(Location(location.fs, str(source)).call, "put_file", location.path)
        _with_retries(url, put, source.stat().st_size / BYTES_PER_SECOND)


def create(url: str, data: bytes) -> bool:
    """Write one object unless it exists; return whether its content is now `data`.

    A rejected create is read back, because an earlier try may have succeeded although its reply was lost.
    """
    try:
        if _locate(url).is_local:
            # link() fails if the target exists, unlike rename()
            _write(url, lambda new: new.write_bytes(data), lambda new, target: target.hardlink_to(new))
        else:
            _call(url, "pipe_file", data, more_seconds=len(data) / BYTES_PER_SECOND, mode="create")
    except TakenError:
        return read(url) == data
    return True


def check_create(url: str) -> None:
    """Raise InputError if the store cannot `create` objects under `url`; tried on a hidden probe object."""
    probe = join(url, f"{PROBE}{uuid.uuid4().hex}")
    try:
        supported = create(probe, b"first") and not create(probe, b"second")
    finally:
        remove(probe)
    if not supported:
        raise InputError(
            f"{url}: this store overwrites existing objects despite If-None-Match, so two writers could both "
            "succeed; use a store that supports conditional writes"
        )


def remove(url: str) -> None:
    """Remove one object, if it exists."""
    with suppress(AbsentError):
        _call(url, "rm_file")


def _locate(url: str) -> Location:
    return locate(absolute(url))


def _call(url: str, operation: str, *arguments: Any, more_seconds: float = 0, **options: Any) -> Any:
    """Run one operation on one object, with retries."""
    return _with_retries(url, partial(_locate(url).call, operation, *arguments, **options), more_seconds)


def _with_retries(url: str, attempt: Callable[[], Awaitable[T]], more_seconds: float = TRANSFER_SECONDS) -> T:
    return run_sync(retry.with_retries(url, attempt, more_seconds))


def _is_file(path: str) -> bool:
    """Whether a path is a file or a link to one: a pipe would block a reader, a linked folder is skipped."""
    if Path(path).is_file():
        return True
    log.warning("%s: skipped because it is not a file", path)
    return False


def _write(url: str, fill: Callable[[Path], Any], move: Callable[[Path, Path], Any]) -> None:
    target = Path(_locate(url).path)
    _with_retries(url, partial(asyncio.to_thread, local.write, target, fill, move))


def _object(url: str, info: dict[str, Any]) -> Object:
    etag = info.get("ETag") or info.get("etag") or ""
    return Object(url, int(info["size"]), str(etag).strip('"'))


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
