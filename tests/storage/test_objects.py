"""One contract for every store: a folder, memory, S3 (SeaweedFS, MinIO), Google's and Azure's emulators."""

import itertools
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from dev.servers import Server
from lobar.core.concurrency import in_order
from lobar.core.errors import AbsentError, InputError, OutsideError
from lobar.storage import filesystem, objects
from lobar.storage.objects import Object
from tests.support.stores import use_server

SERVERS = ["s3", "minio", "gcs", "azure"]
STORES = ["file", "memory", *SERVERS]


@pytest.fixture(params=STORES, scope="module")
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A URL in each available store; the tests of a server that is not installed are skipped."""
    if request.param == "file":
        yield objects.absolute(str(tmp_path_factory.mktemp("store")))
    elif request.param == "memory":
        yield "memory:///store"
    else:
        server: Server = request.getfixturevalue(f"{request.param}_server")
        with use_server(server.environment):
            yield f"{server.root}/{uuid.uuid4().hex}"


@pytest.fixture
def root(store: str) -> str:
    """An empty folder of the store."""
    return objects.join(store, uuid.uuid4().hex)


NAMES = ["a.csv", "deep/er/b", "with space", "ünïcode-肺", "100%", "a%20b", "a#b?c", "a+b&c=d", "[x]*", "..a",
         "b..", "c/..d/e", "~", "quote'\"", "versionId=7"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", [b"", b"bytes\0\n"])
def test_published_objects_are_listed_and_read_back(root: str, name: str, content: bytes) -> None:
    url = objects.join(root, name)
    assert not objects.exists(url)
    objects.publish(url, content)
    assert objects.exists(url)
    assert objects.read(url) == content
    (item,) = objects.list_objects(root)
    assert (item.url, item.bytes) == (url, len(content))
    assert list(objects.read_many([item])) == [(item, content)]
    assert list(objects.read_many([item], first=3)) == [(item, content[:3])]
    objects.remove(url)
    objects.remove(url)
    assert not objects.exists(url)
    assert objects.list_objects(root) == []


@pytest.mark.parametrize("store", ["memory", *SERVERS], indirect=True)
def test_parent_references_in_keys_are_rejected(root: str) -> None:
    with pytest.raises(InputError, match=r"'\.\.' means different things to different stores"):
        objects.publish(objects.join(root, "a/../b"), b"")


def test_a_listing_is_complete_beyond_a_page_and_sorted(root: str) -> None:
    names = [f"{i % 7}/{i:04d}" for i in range(2050)]  # three pages
    locations = [filesystem.locate(objects.join(root, name)) for name in names]
    for name in names[:7]:
        objects.publish(objects.join(root, name), b"creates the folder")
    work = zip(locations, names, strict=True)
    list(
        in_order(lambda pair: filesystem.submit(pair[0].call("pipe_file", pair[1].encode())), work, ahead=32)
    )
    listed = objects.list_objects(root)
    assert [item.url for item in listed] == sorted(objects.join(root, name) for name in names)
    bodies = [body for _, body in objects.read_many(listed)]
    assert bodies == sorted(name.encode() for name in names)


def test_a_listing_shows_new_objects_at_once(root: str) -> None:
    for count, name in enumerate(("b", "c/d", "a"), start=1):
        filesystem.run_sync(filesystem.locate(root).call("find"))
        objects.publish(objects.join(root, name), b"1")
        assert len(objects.list_objects(root)) == count
        assert objects.exists(objects.join(root, name))


def test_an_empty_folder_is_an_empty_list_and_a_prefix_is_not_a_folder(root: str) -> None:
    assert objects.list_objects(root) == []
    objects.publish(objects.join(root, "ab/c"), b"1")
    assert objects.list_objects(objects.join(root, "a")) == []
    assert not objects.exists(objects.join(root, "ab"))


def test_publishing_again_replaces_the_object(root: str, tmp_path: Path) -> None:
    url = objects.join(root, "x")
    objects.publish(url, b"old and long")
    before = objects.with_etag(objects.list_objects(root)[0])
    objects.publish(url, b"new")
    assert objects.read(url) == b"new"
    source = tmp_path / "source.bin"
    source.write_bytes(b"from a file!")
    objects.publish_file(url, source)
    assert objects.read(url) == b"from a file!"
    after = objects.with_etag(objects.list_objects(root)[0])
    assert (before.bytes, after.bytes) == (12, 12)
    assert before.etag != after.etag


def test_a_large_object_is_read_back_completely(root: str, tmp_path: Path) -> None:
    """Stores with multipart uploads use them above 100 MB; the etag is then not an MD5."""
    source = tmp_path / "source.bin"
    source.write_bytes(bytes(range(251)) * 420_000)
    objects.publish_file(objects.join(root, "x"), source)
    ((item, body),) = objects.read_many(objects.list_objects(root))
    assert item.bytes == 251 * 420_000
    assert body == source.read_bytes()


def test_reading_many_keeps_order_and_pairs_objects_with_their_errors(root: str) -> None:
    for i in range(200):
        objects.publish(objects.join(root, f"{i:03d}"), f"object {i:03d}".encode())
    items = [objects.with_etag(item) for item in objects.list_objects(root)]
    gone = Object(objects.join(root, "gone"), 1, "e")
    longer = Object(items[3].url, 100, items[3].etag)
    other = Object(items[4].url, items[4].bytes, items[5].etag)
    listed = list(objects.read_many([*items, gone, longer, other, items[6]]))
    assert [body for _, body in listed[:200]] == [f"object {i:03d}".encode() for i in range(200)]
    assert listed[203] == (items[6], b"object 006")
    absent, replaced, same_size = (error for _, error in listed[200:203])
    assert isinstance(absent, AbsentError)
    assert str(absent) == f"{gone.url}: there is no such object"
    for item, error in ((longer, replaced), (other, same_size)):
        assert isinstance(error, InputError)
        assert str(error).startswith(
            f"{item.url}: its content has changed since it was listed ({item.bytes} bytes"
        )


def test_reading_many_keeps_few_objects_in_memory(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "SMALL_BYTES", 1000)
    monkeypatch.setattr(objects, "AHEAD_BYTES", 10_000)
    for i in range(50):
        objects.publish(objects.join(root, f"{i:02d}"), bytes(1000))
    taken = itertools.count()
    reading = objects.read_many(item for item in objects.list_objects(root) if next(taken) >= 0)
    next(reading)
    assert next(taken) == 10
    reading.close()


def test_a_reader_sees_the_old_or_the_new_while_another_writes(root: str) -> None:
    url = objects.join(root, "x")
    versions = [bytes([i]) * 200_000 for i in range(20)]
    objects.publish(url, versions[0])
    done = threading.Event()

    def write() -> None:
        for version in versions:
            objects.publish(url, version)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while not done.is_set():
        seen.append(objects.read(url))
    writer.join()
    assert {*seen} <= {*versions}
    assert objects.read(url) == versions[-1]


def test_one_of_twenty_concurrent_creates_succeeds(root: str) -> None:
    url = objects.join(root, "000007.json")
    barrier = threading.Barrier(20)

    def create(i: int) -> bool:
        barrier.wait()
        return objects.create(url, f"writer {i}".encode())

    with ThreadPoolExecutor(20) as pool:
        created = list(pool.map(create, range(20)))
    assert created.count(True) == 1
    assert objects.read(url) == f"writer {created.index(True)}".encode()


def test_creating_an_existing_object_with_the_same_bytes_succeeds(root: str) -> None:
    url = objects.join(root, "x")
    assert objects.create(url, b"mine")
    assert objects.create(url, b"mine")
    assert not objects.create(url, b"other")
    assert objects.read(url) == b"mine"
    assert [item.url for item in objects.list_objects(root)] == [url]


def test_the_probe_accepts_the_store_and_is_removed(root: str) -> None:
    objects.check_create(root)
    assert objects.list_objects(root) == []


def test_a_probe_is_not_listed(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a concurrent promotion or plan would read it as a record."""
    monkeypatch.setattr(objects, "remove", lambda url: None)
    objects.check_create(root)
    assert objects.list_objects(root) == []


def test_the_probe_rejects_a_store_that_ignores_preconditions(monkeypatch: pytest.MonkeyPatch) -> None:
    """No such server is available here: this mock is memory that always overwrites."""

    class Forgetful(MemoryFileSystem):
        protocol = "forgetful"

        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite") -> None:
            super().pipe_file(path, value)

    fsspec.register_implementation("forgetful", Forgetful, clobber=True)
    with pytest.raises(InputError, match="this store overwrites existing objects despite If-None-Match"):
        objects.check_create("forgetful:///registry")
    assert objects.list_objects("forgetful:///registry") == []


def test_a_missing_object_is_reported(root: str) -> None:
    with pytest.raises(AbsentError, match="nowhere: there is no such object"):
        objects.read(objects.join(root, "nowhere"))


@pytest.mark.parametrize(
    "store", ["minio", "gcs", "azure"], indirect=True
)  # SeaweedFS creates missing buckets
def test_a_missing_bucket_is_reported(root: str) -> None:
    missing = f"{root.partition('://')[0]}://no-such-bucket/x"
    for attempt in (objects.list_objects, lambda url: objects.publish(url, b"1")):
        with pytest.raises(InputError, match=f"{missing}: there is no such bucket"):
            attempt(missing)
    # Google's emulator gives no reason when a read fails
    with pytest.raises(
        InputError, match=f"{missing}: there is no such {'object' if root[0] == 'g' else 'bucket'}"
    ):
        objects.read(missing)


@given(st.lists(st.binary(max_size=40), max_size=8))
@settings(max_examples=20, deadline=None)
def test_any_bytes_are_read_back(contents: list[bytes]) -> None:
    root = f"memory:///{uuid.uuid4().hex}"
    for i, content in enumerate(contents):
        objects.publish(objects.join(root, str(i)), content)
    assert [body for _, body in objects.read_many(objects.list_objects(root))] == contents


@pytest.mark.parametrize("write", [objects.publish, objects.create])
def test_a_failed_publish_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write) -> None:  # type: ignore[no-untyped-def]
    def no_space(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", no_space)
    with pytest.raises(OutsideError, match="No space left on device"):
        write(str(tmp_path / "x"), b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_place_of_an_object_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found a folder instead of an object"):
        objects.read(str(tmp_path))


def test_an_unknown_scheme_is_reported() -> None:
    with pytest.raises(InputError, match="nope://: Protocol not known: nope"):
        objects.read("nope://x/y")


def test_plain_paths_are_file_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert objects.absolute("a/../b/") == f"file://{tmp_path}/b"
    assert objects.absolute("s3://bucket/key/") == "s3://bucket/key"


def test_unfinished_files_and_probes_are_not_listed(tmp_path: Path) -> None:
    for name in ("a.json", ".a.json.0123abcd.part", "..probe-0123.0123abcd.part", ".probe-0123", "b.part"):
        (tmp_path / name).write_bytes(b"x")
    listed = [objects.name(item.url) for item in objects.list_objects(str(tmp_path))]
    assert listed == ["a.json", "b.part"]
