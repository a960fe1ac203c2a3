"""Every kind of server behind a faulty proxy: the same faults mean the same for each driver.

What whole jobs do with these faults is tested on S3 (tests/pipeline/test_store_faults.py).
"""

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dev.servers import Server
from lobar.core.errors import InputError, LobarError, OutsideError
from lobar.storage import objects, retry
from tests.support.proxy import BODY_FAULTS, Fault, Kind, Proxy
from tests.support.stores import use_server

CONTENT = b"content of an object" * 50
STALLS = {Kind.stall, Kind.stall_in_body}
OPERATIONS: dict[str, Callable[[str], object]] = {
    "list": lambda root: [item.url for item in objects.list_objects(f"{root}/old")],
    "read": lambda root: objects.read(f"{root}/old/a"),
    "read_many": lambda root: [body for _, body in objects.read_many(objects.list_objects(f"{root}/old"))],
    "publish": lambda root: objects.publish(f"{root}/new", CONTENT),
    "create": lambda root: objects.create(f"{root}/new", CONTENT),
    "exists": lambda root: objects.exists(f"{root}/old/a"),
    "remove": lambda root: objects.remove(f"{root}/old/a"),
}


@pytest.fixture(params=["s3", "minio", "gcs", "azure"], scope="module")
def server(request: pytest.FixtureRequest) -> Server:
    running: Server = request.getfixturevalue(f"{request.param}_server")
    return running


@pytest.fixture(scope="module")
def proxy(server: Server) -> Iterator[Proxy]:
    """A proxy in front of the server, used by drivers that wait at most two seconds, between short pauses."""
    with Proxy(server.endpoint) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setattr(retry, "FIRST_WAIT", 0.02)
        # not limited by STORE_SECONDS: a request that a busy machine delays would fail as well
        patch.setattr(retry, "attempt_seconds", lambda: 2.0)
        with use_server(server.environment_at(proxy.endpoint)):
            yield proxy


@pytest.fixture
def root(server: Server, proxy: Proxy) -> Iterator[str]:
    """A folder with two objects."""
    proxy.fault = None
    root = f"{server.root}/{uuid.uuid4().hex}"
    for name in "ab":
        objects.publish(f"{root}/old/{name}", CONTENT)
    yield root
    proxy.fault = None


# each stall costs two seconds
@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        (name, kind)
        for name in OPERATIONS
        for kind in Kind
        if kind not in STALLS or name in ("read", "publish")
    ],
)
def test_a_transient_fault_does_not_change_the_result(
    operation: str, kind: Kind, root: str, proxy: Proxy, capfd: pytest.CaptureFixture[str]
) -> None:
    run = OPERATIONS[operation]
    capfd.readouterr()
    proxy.fault = fault = Fault(kind, times=1)
    result = run(root)
    proxy.fault = None
    assert fault.hit or kind in BODY_FAULTS  # these need a reply to GET
    expected = {
        "list": [f"{root}/old/a", f"{root}/old/b"],
        "read": CONTENT,
        "read_many": [CONTENT, CONTENT],
        "create": True,
        "exists": True,
    }
    assert result == expected.get(operation)
    assert objects.exists(f"{root}/old/a") == (operation != "remove")
    if operation in ("publish", "create"):
        assert objects.read(f"{root}/new") == CONTENT
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", [Kind.internal, Kind.slow_down, Kind.too_many, Kind.stall])
def test_a_lasting_fault_is_an_outside_error_and_drivers_do_not_retry(
    kind: Kind, root: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(retry, "STORE_SECONDS", 0.1)
    capfd.readouterr()
    for operation in ("read", "publish", "create"):
        proxy.fault = fault = Fault(kind)
        with pytest.raises(OutsideError, match=rf"^{root}/\S+: .* \(tried \d+ times\)$") as raised:
            OPERATIONS[operation](root)
        assert f"(tried {fault.hit} times)" in str(raised.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("status", "code", "text", "kind", "message"),
    [
        (401, "Unauthorized", "no", InputError, "access denied (401"),
        (403, "AccessDenied", "no", InputError, "access denied (403"),
        (400, "ExpiredToken", "The token has expired.", OutsideError, "the credentials have expired (400"),
        (400, "UserProjectMissing", "a requester pays bucket", InputError, "a requester pays bucket"),
        (400, "Throttling", "Rate exceeded", OutsideError, "the store returned 400 Throttling (tried"),
        (408, "", "no", OutsideError, "the store returned 408"),
        (403, "InvalidObjectState", "no", InputError, "the object is archived (403 InvalidObjectState)"),
        (501, "NotImplemented", "no", InputError, "the store rejects this request: 501"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("operation", ["read", "publish"])
def test_a_rejection_names_status_and_remedy_at_once(
    operation: str,
    status: int,
    code: str,
    text: str,
    kind: type[LobarError],
    message: str,
    root: str,
    server: Server,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(retry, "STORE_SECONDS", 0.2)
    proxy.fault = fault = Fault(Kind.internal, status=status, code=code, text=text)
    capfd.readouterr()
    started = time.monotonic()
    with pytest.raises(LobarError) as raised:
        OPERATIONS[operation](root)
    assert (type(raised.value), message in str(raised.value)) == (kind, True), raised.value
    assert time.monotonic() - started < 10
    if "tried" not in message and status != 408:
        assert fault.hit == 1
    if "access denied" in message:
        variable = {"gcs": "GOOGLE_APPLICATION_CREDENTIALS", "azure": "AZURE_STORAGE_"}.get(
            server.kind, "AWS_*"
        )
        assert variable in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_a_large_file_is_uploaded_despite_faults(root: str, proxy: Proxy, tmp_path: Path) -> None:
    """Google's driver uploads files above 5 MB in parts."""
    (tmp_path / "large").write_bytes(bytes(range(256)) * 30_000)
    proxy.fault = fault = Fault(Kind.internal, start=2, times=1)
    objects.publish_file(f"{root}/large", tmp_path / "large")
    proxy.fault = Fault(Kind.internal, times=1)
    objects.publish_file(f"{root}/large", tmp_path / "large")
    proxy.fault = None
    assert objects.read(f"{root}/large") == (tmp_path / "large").read_bytes()
    assert fault.seen


@pytest.mark.parametrize("replies", [1, 2, 3])
def test_create_recognizes_its_own_object_after_a_lost_reply(replies: int, root: str, proxy: Proxy) -> None:
    writing = "POST" if root.startswith("gs") else "PUT"
    proxy.fault = fault = Fault(Kind.lost_reply, method=writing, times=replies)
    assert objects.create(f"{root}/own", b"mine")
    assert fault.hit == replies
    proxy.fault = Fault(Kind.lost_reply, method=writing, times=replies)
    assert not objects.create(f"{root}/own", b"theirs")
    assert objects.read(f"{root}/own") == b"mine"
