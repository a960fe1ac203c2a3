"""Objects by URL, on any fsspec filesystem: list, read many at once, publish whole or not at all.

A plain path is a file URL. Credentials, endpoint and region come from the environment alone
(FSSPEC_S3_ENDPOINT_URL, AWS_ACCESS_KEY_ID, …).
"""

import errno
import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lobar.errors import InputError, LobarError, OutsideError
from lobar.parallel import ordered_map

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

READERS = 32
log = logging.getLogger(__name__)
OWN_ETAG = "md5:"


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

    A store without etags leaves `etag` empty; `with_etag` fills it from the content.
    """
    fs, path = _open(url)
    scheme = absolute(url).split("://", 1)[0]
    with _naming(url):
        fs.invalidate_cache()
        found = fs.find(path, detail=True)
    if _is_local(fs):
        found = {key: info for key, info in found.items() if _is_file(key)}
    return sorted(
        (
            Object(f"{scheme}://{key}", int(info["size"]), str(info.get("ETag") or "").strip('"'))
            for key, info in found.items()
        ),
        key=lambda item: item.url,
    )


def with_etag(item: Object) -> Object:
    """`item` as it is where its store gave an etag, else with the MD5 of its content (read whole)."""
    return item if item.etag else Object(item.url, item.bytes, OWN_ETAG + _md5(read(item.url)))


def read(url: str) -> bytes:
    """The whole content of one object. Raises InputError where it is absent or denied."""
    fs, path = _open(url)
    with _naming(url):
        return fs.cat_file(path)


def read_start(url: str, size: int) -> bytes:
    """The first `size` bytes of one object, or all of a shorter one."""
    fs, path = _open(url)
    with _naming(url):
        return fs.cat_file(path, start=0, end=size)


def read_many(items: Iterable[Object]) -> Iterator[tuple[Object, bytes | LobarError]]:
    """Read objects at once, in order, with bounded connections and memory; an error stands for its object."""
    yield from ordered_map(_read_known, items, workers=READERS, ahead=2 * READERS)


def _read_known(item: Object) -> tuple[Object, bytes | LobarError]:
    try:
        data = read(item.url)
    except LobarError as error:
        return item, error
    if len(data) != item.bytes:
        return item, OutsideError(f"{item.url}: {len(data)} bytes came, {item.bytes} were listed")
    if item.etag.startswith(OWN_ETAG) and item.etag != OWN_ETAG + _md5(data):
        return item, OutsideError(f"{item.url}: its content is not the one that was listed")
    return item, data


def exists(url: str) -> bool:
    """Whether an object of that very URL is there now."""
    fs, path = _open(url)
    with _naming(url):
        fs.invalidate_cache()
        return fs.isfile(path)


def publish(url: str, data: bytes) -> None:
    """Put one object: others see all of it or nothing. An object already there is replaced."""
    fs, path = _open(url)
    with _naming(url):
        if _is_local(fs):
            with _replacing(Path(path)) as new:
                new.write_bytes(data)
        else:
            fs.pipe_file(path, data)


def publish_file(url: str, source: Path) -> None:
    """Put the content of a local file as one object, without holding it in memory."""
    fs, path = _open(url)
    with _naming(url):
        if _is_local(fs):
            with _replacing(Path(path)) as new:
                shutil.copyfile(source, new)
        else:
            fs.put_file(str(source), path)


def remove(url: str) -> None:
    """Remove one object, if it is there."""
    fs, path = _open(url)
    with _naming(url):
        if fs.isfile(path):
            fs.rm_file(path)


def _open(url: str) -> tuple["AbstractFileSystem", str]:
    url = absolute(url)
    fs = _filesystem(url.split("://", 1)[0])
    return fs, str(fs._strip_protocol(url))


@cache
def _filesystem(scheme: str) -> "AbstractFileSystem":
    import fsspec

    options: dict[str, Any] = {}
    if scheme in ("s3", "s3a"):
        options = {"config_kwargs": {"max_pool_connections": 2 * READERS, "connect_timeout": 10}}
    try:
        return fsspec.filesystem(scheme, **options)
    except (ValueError, ImportError) as error:
        raise InputError(f"{scheme}://: {error}") from error


def _is_local(fs: "AbstractFileSystem") -> bool:
    return "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))


def _is_file(path: str) -> bool:
    """Whether a path leads to a file; a pipe would block its reader, and a linked folder is not gone into."""
    if Path(path).is_file():
        return True
    log.warning("%s: passed over: it is not a file", path)
    return False


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    # a hidden name beside the target: on the same disk, and never taken for an object
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield new
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@contextmanager
def _naming(url: str) -> Iterator[None]:
    """Turn what a store raises into an error that names the object and says whether a retry may help."""
    try:
        yield
    except LobarError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{url}: there is no such object") from error
    except (IsADirectoryError, NotADirectoryError) as error:
        raise InputError(
            f"{url}: a folder stands where an object was expected, or the other way round"
        ) from error
    except PermissionError as error:
        raise InputError(
            f"{url}: access denied ({error}); check the credentials in the environment"
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.ENAMETOOLONG):
            raise InputError(f"{url}: {error.strerror}; choose another place") from error
        if type(error).__name__ == "NoCredentialsError":
            raise InputError(
                f"{url}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error
        if isinstance(error, OSError) or type(error).__module__.startswith(
            ("botocore", "aiobotocore", "aiohttp")
        ):
            raise OutsideError(f"{url}: {type(error).__name__}: {error}") from error
        raise
