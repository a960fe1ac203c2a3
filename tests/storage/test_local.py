"""Files survive a power failure. None can be had here: the tests record what is synchronized, and when."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lobar.core.errors import OutsideError
from lobar.storage import objects


@pytest.fixture
def synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Each path given to fsync, relative to tmp_path, and whether new/er/x existed at that moment."""
    calls = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        calls.append((str(path.relative_to(tmp_path)), (tmp_path / "new/er/x").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    return calls


@pytest.mark.parametrize("write", [objects.publish, objects.create, objects.publish_file])
def test_content_is_on_the_disk_before_the_name_and_both_before_the_return(
    tmp_path: Path, synced: list[tuple[str, bool]], write: Callable[..., object]
) -> None:
    (tmp_path / "source").write_bytes(b"content")
    write(str(tmp_path / "new/er/x"), tmp_path / "source" if write is objects.publish_file else b"content")
    (content, named), *folders = synced
    assert Path(content).name.startswith(".x.")
    assert not named
    assert folders == [("new/er", True), ("new", True), (".", True)]
    assert (tmp_path / "new/er/x").read_bytes() == b"content"
    synced.clear()
    objects.publish(str(tmp_path / "new/er/x"), b"other")
    assert [path for path, _ in synced[1:]] == ["new/er"]


def test_a_failed_synchronization_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutsideError, match="Input/output error"):
        objects.create(str(tmp_path / "x"), b"content")
    assert list(tmp_path.iterdir()) == []
