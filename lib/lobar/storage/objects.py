"""Objects by URL, on any fsspec filesystem: list, read many at once, publish whole or not at all.

A plain path is a file URL. Credentials, endpoint and region come from the environment alone
(AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, …).
"""

import asyncio
import hashlib
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lobar.core.concurrency import in_order
from lobar.core.errors import AbsentError, InputError, LobarError, TakenError
from lobar.storage import retry
from lobar.storage.filesystem import Place, place_of, run, start
from lobar.storage.presigned import SignedReader, can_sign

READERS = 64
AHEAD_BYTES = 64 << 20
SMALL_BYTES = 1 << 20
BYTES_PER_SECOND = 1_000_000  # a slower line than this is a fault
LONG = 3600.0  # for what has no known size: a stall is noticed by the driver, which waits for every next byte
OWN_ETAG = "md5:"
PROBE = ".probe-"
MD5 = re.compile("[0-9a-f]{32}")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Object:
    """One object of a store: its URL, its size in bytes, and the etag that changes with its content."""

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
    """All objects under a prefix, from a fresh listing, sorted by URL; an empty list where there are none.

    A store without etags leaves `etag` empty; `with_etag` fills it from the content. The probe of a
    `check_create` that runs beside is not shown.
    """
    place = _place(url)
    found = run(retry.with_retries(url, partial(place.ask, "find", detail=True), LONG))
    # drivers list an object at the very prefix too, and some stores what was a folder there
    below = place.path.rstrip("/") + "/"
    scheme = absolute(url).split("://", 1)[0]
    objects = [
        _object(f"{scheme}://{key}", info)
        for key, info in found.items()
        if key.startswith(below) and not key.endswith("/") and f"/{PROBE}" not in key
        if not place.is_local or _is_file(key)
    ]
    return sorted(objects, key=lambda item: item.url)


def with_etag(item: Object) -> Object:
    """`item` as it is where its store gave an etag, else with the MD5 of its content."""
    if item.etag:
        return item
    place = _place(item.url)
    if not place.is_local:
        return Object(item.url, item.bytes, OWN_ETAG + _md5(read(item.url)))
    digest = run(retry.with_retries(item.url, partial(asyncio.to_thread, _file_md5, place.path), LONG))
    return Object(item.url, item.bytes, OWN_ETAG + digest)


def read(url: str) -> bytes:
    """The whole content of one object. Raises AbsentError where it is not there, InputError where denied."""
    return _call(url, "cat_file", more_seconds=LONG)


def read_many(
    items: Iterable[Object], first: int | None = None
) -> Iterator[tuple[Object, bytes | LobarError]]:
    """Read listed objects at once, in order, with bounded connections and memory.

    Each comes as it was listed, or an error stands for it: OutsideError where the store fails, AbsentError
    or InputError where the object is gone or another. With `first`, so many bytes at most of each, unchecked.
    """
    reader = _ListedReader(first)
    try:
        yield from in_order(lambda item: start(reader.read(item)), items, AHEAD_BYTES, reader.weigh)
    finally:
        run(reader.close())


class _ListedReader:
    """Reads objects and holds them to what was listed: size, and etag."""

    def __init__(self, first: int | None) -> None:
        self.first = first
        self.checksums = True
        self.signed: SignedReader | None = None

    def weigh(self, item: Object) -> int:
        """The memory that an object takes while it waits for its turn; a small one is a connection, too."""
        return max(item.bytes if self.first is None else self.first, SMALL_BYTES)

    async def read(self, item: Object) -> tuple[Object, bytes | LobarError]:
        if not item.bytes and self.first:
            return item, b""  # a store rejects a range of nothing
        try:
            attempt = partial(self._once, item, _place(item.url))
            return item, await retry.with_retries(item.url, attempt, _time_for(item.bytes))
        except LobarError as error:
            return item, error

    async def close(self) -> None:
        if self.signed:
            await self.signed.close()

    async def _once(self, item: Object, place: Place) -> bytes:
        data = await self._content(place)
        if self.first:
            return data
        digest = _md5(data)
        if len(data) == item.bytes and item.etag in ("", digest, OWN_ETAG + digest):
            return data
        now = _object(item.url, await place.ask("info"))
        if item.etag.startswith(OWN_ETAG) or (now.bytes, now.etag) != (item.bytes, item.etag):
            raise InputError(
                f"{item.url}: its content is not the one that was listed ({item.bytes} bytes then, "
                f"{now.bytes} now); run the job that listed it again"
            )
        if len(data) != item.bytes:
            raise retry.Fault(f"{len(data)} bytes came, {item.bytes} were listed")
        if self.checksums and MD5.fullmatch(item.etag):
            # under KMS an etag looks like an MD5 and is none: then the same bytes come again
            if await place.ask("cat_file") != data:
                raise retry.Fault("its bytes are not those of its etag")
            self.checksums = False
        return data

    async def _content(self, place: Place) -> bytes:
        if can_sign(place.fs):
            self.signed = self.signed or SignedReader(place.fs, READERS, retry.attempt_seconds())
            data = await self.signed.read(place.path, self.first)
            if data is not None:
                return data
        # the driver's own call tells what is wrong
        return await place.ask("cat_file", **({"start": 0, "end": self.first} if self.first else {}))


def exists(url: str) -> bool:
    """Whether an object of that very URL is there now."""
    try:
        return bool(_call(url, "info")["type"] == "file")
    except AbsentError:
        return False


def publish(url: str, data: bytes) -> None:
    """Put one object: others see all of it or nothing. An object already there is replaced."""
    if _place(url).is_local:
        _write(url, lambda new: new.write_bytes(data), Path.replace)
    else:
        _call(url, "pipe_file", data, more_seconds=_time_for(len(data)))


def publish_file(url: str, source: Path) -> None:
    """Put the content of a local file as one object, without holding it in memory."""
    place = _place(url)
    if place.is_local:
        _write(url, lambda new: shutil.copyfile(source, new), Path.replace)
    else:
        # of all operations this one alone has the object second
        put = partial(Place(place.fs, str(source)).ask, "put_file", place.path)
        run(retry.with_retries(url, put, _time_for(source.stat().st_size)))


def create(url: str, data: bytes) -> bool:
    """Put one object unless one is there; return whether what is there now is `data`.

    A rejected create is read back: the reply that was lost may have been the one to this very call.
    """
    try:
        if _place(url).is_local:
            # of many that link at once one succeeds, unlike with a question before a rename
            _write(url, lambda new: new.write_bytes(data), lambda new, target: target.hardlink_to(new))
        else:
            _call(url, "pipe_file", data, more_seconds=_time_for(len(data)), mode="create")
    except TakenError:
        return read(url) == data
    return True


def check_create(url: str) -> None:
    """Raise InputError unless the store keeps `create`'s promise below `url`, tried on a hidden object."""
    probe = join(url, f"{PROBE}{uuid.uuid4().hex}")
    try:
        kept = create(probe, b"first") and not create(probe, b"second")
    finally:
        remove(probe)
    if not kept:
        raise InputError(
            f"{url}: this store puts an object where one is already, although told not to (If-None-Match), "
            "so two writers could both win; use a store that honours it"
        )


def remove(url: str) -> None:
    """Remove one object, if it is there."""
    with suppress(AbsentError):
        _call(url, "rm_file")


def _place(url: str) -> Place:
    return place_of(absolute(url))


def _call(url: str, operation: str, *arguments: Any, more_seconds: float = 0, **options: Any) -> Any:
    """One operation on one object, its passing faults waited out."""
    ask = partial(_place(url).ask, operation, *arguments, **options)
    return run(retry.with_retries(url, ask, more_seconds))


def _time_for(size: int) -> float:
    return size / BYTES_PER_SECOND


def _is_file(path: str) -> bool:
    """Whether a path leads to a file; a pipe would block its reader, and a linked folder is not gone into."""
    if Path(path).is_file():
        return True
    log.warning("%s: skipped: it is not a file", path)
    return False


def _write(url: str, fill: Callable[[Path], Any], place: Callable[[Path, Path], Any]) -> None:
    """Fill a hidden file beside the target, on the same disk and never taken for an object, and place it."""
    target = Path(_place(url).path)
    new = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")

    def write() -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            fill(new)
            place(new, target)
        finally:
            new.unlink(missing_ok=True)

    run(retry.with_retries(url, partial(asyncio.to_thread, write), LONG))


def _object(url: str, info: dict[str, Any]) -> Object:
    etag = info.get("ETag") or info.get("etag") or ""
    return Object(url, int(info["size"]), str(etag).strip('"'))


def _file_md5(path: str) -> str:
    with Path(path).open("rb") as file:  # a file may be larger than the memory
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
