"""Files on local disks: written atomically and durably, and their MD5."""

import errno
import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write(target: Path, fill: Callable[[Path], Any], move: Callable[[Path, Path], Any]) -> None:
    """Fill a hidden temporary file in the target's folder, then move it to the target.

    After the return the file, its name and all new folders are on the disk, so a power failure cannot lose or
    empty the file. The content is there before the name.
    """
    new = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    changed = [target.parent, *(folder.parent for folder in target.parents if not folder.exists())]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        fill(new)
        _sync(new)
        move(new, target)
    finally:
        new.unlink(missing_ok=True)
    for folder in changed:
        _sync(folder)


def md5(path: str) -> str:
    """The MD5 of a file's content, in hex; the file may be larger than memory."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _sync(path: Path) -> None:
    """Return when a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise  # some network file systems cannot do it for folders
    finally:
        os.close(descriptor)
