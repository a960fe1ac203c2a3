"""One contract for every store; each test runs on a folder and in memory."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from lobar import storage
from lobar.errors import InputError, OutsideError
from lobar.storage import Object


@pytest.fixture(params=["file", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield storage.absolute(str(tmp_path))
    else:
        yield f"memory:///{uuid.uuid4().hex}"
        fsspec.filesystem("memory").store.clear()


@pytest.mark.parametrize("name", ["a.csv", "deep/er/b", "with space", "ünïcode", "100%", "a%20b", "a#b?c"])
@pytest.mark.parametrize("content", [b"", b"bytes\0\n"])
def test_what_is_published_is_listed_and_read_back(root: str, name: str, content: bytes) -> None:
    url = storage.join(root, name)
    assert not storage.exists(url)
    storage.publish(url, content)
    assert storage.exists(url)
    assert storage.read(url) == content
    (item,) = storage.list_objects(root)
    assert list(storage.read_many([item], first=3)) == [(item, content[:3])]
    assert item.bytes == len(content)
    assert storage.read(item.url) == content
    storage.remove(url)
    assert storage.list_objects(root) == []


def test_listing_is_sorted_and_sees_what_others_wrote(root: str) -> None:
    for name in ("b", "c/d", "a"):
        storage.publish(storage.join(root, name), b"1")
        storage.list_objects(root)
    assert [item.url.removeprefix(root) for item in storage.list_objects(root)] == ["/a", "/b", "/c/d"]


def test_publishing_again_replaces(root: str, tmp_path: Path) -> None:
    url = storage.join(root, "x")
    storage.publish(url, b"old and long")
    storage.publish(url, b"new")
    assert storage.read(url) == b"new"
    source = tmp_path / "source.bin"
    source.write_bytes(b"from a file")
    storage.publish_file(url, source)
    assert storage.read(url) == b"from a file"


def test_reading_many_keeps_order_and_stands_errors_for_their_objects(root: str) -> None:
    items = []
    for i in range(200):
        storage.publish(storage.join(root, f"{i:03d}"), f"object {i}".encode())
    for item in storage.list_objects(root):
        items.append(storage.with_etag(item))
    missing = Object(storage.join(root, "gone"), 1, "e")
    truncated = Object(items[3].url, 100, "")
    altered = Object(items[4].url, items[4].bytes, items[5].etag)
    found = list(storage.read_many([*items, missing, truncated, altered]))
    assert [body for _, body in found[:200]] == [f"object {i}".encode() for i in range(200)]
    assert isinstance(found[200][1], InputError)
    assert isinstance(found[201][1], OutsideError)
    assert "8 bytes came, 100 were listed" in str(found[201][1])
    assert isinstance(found[202][1], OutsideError)


def test_a_missing_object_is_named(root: str) -> None:
    with pytest.raises(InputError, match="nowhere: there is no such object"):
        storage.read(storage.join(root, "nowhere"))


def test_a_failed_publish_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", no_space)
    with pytest.raises(OutsideError, match="No space left on device"):
        storage.publish(str(tmp_path / "x"), b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_where_an_object_should_be_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder stands where an object was expected"):
        storage.read(str(tmp_path))


def test_plain_paths_are_file_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("a/../b/") == f"file://{tmp_path}/b"
    assert storage.absolute("s3://bucket/key/") == "s3://bucket/key"
