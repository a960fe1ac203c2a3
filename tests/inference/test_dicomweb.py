"""Requests to a DICOMweb server. A small HTTPS server replaces it, which answers as no real one would."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from lobar.core.errors import InputError, LobarError, OutsideError
from lobar.inference.writers.dicomweb import CERTIFICATE, TOKEN, Archive, Outcome
from lobar.storage import retry
from tests.support import http

SENT = {"1.2.1": b"first", "1.2.2": b"second", "1.2.3": b"third"}
STORED, FAILED = "00081199", "00081198"


def reply(
    stored: dict[str, int | None], failed: dict[str, int | None] | None = None, wrapped: bool = False
) -> bytes:
    """The body of a reply: instances by UID, with a warning or failure reason."""

    def items(instances: dict[str, int | None], reason: str) -> dict[str, object]:
        value = []
        for uid, code in instances.items():
            item: dict[str, object] = {"00081155": {"vr": "UI", "Value": [uid]}}
            if code is not None:
                item[reason] = {"vr": "US", "Value": [code]}
            value.append(item)
        return {"vr": "SQ", "Value": value}

    body = {STORED: items(stored, "00081196")}
    if failed:
        body[FAILED] = items(failed, "00081197")
    return json.dumps([body] if wrapped else body).encode()


ALL = reply(dict.fromkeys(SENT))


class Stub:
    """What the server was asked, and what it answers next: (status, body, seconds); at the end, success."""

    def __init__(self) -> None:
        self.asked: list[http.Request] = []
        self.answers: list[tuple[int, bytes, float]] = []

    def __call__(self, asked: http.Request) -> tuple[int, bytes]:
        self.asked.append(asked)
        status, body, seconds = self.answers.pop(0) if self.answers else (200, ALL, 0)
        time.sleep(seconds)
        return status, body

    def will(self, status: int, body: bytes = b"", seconds: float = 0) -> None:
        self.answers.append((status, body, seconds))


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture(autouse=True)
def short_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in (TOKEN, CERTIFICATE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def url(stub: Stub, tmp_path: Path) -> Iterator[str]:
    with http.serve(stub, tmp_path) as server:
        yield f"dicomweb+{server.url}/dicom-web/"


def test_instances_are_posted_as_one_multipart_request(url: str, stub: Stub) -> None:
    assert Archive(url).store(SENT) == Outcome()
    (asked,) = stub.asked
    assert (asked.method, asked.path) == ("POST", "/dicom-web/studies")
    kind, boundary = asked.headers["Content-Type"].split("; boundary=")
    assert kind == 'multipart/related; type="application/dicom"'
    assert asked.headers["Accept"] == "application/dicom+json"
    assert asked.headers["Authorization"] is None
    parts = asked.body.split(f"--{boundary}".encode())
    assert [part.split(b"\r\n\r\n")[-1].strip() for part in parts[1:-1]] == [*SENT.values()]
    assert parts[-1] == b"--\r\n"


def test_a_token_is_sent(url: str, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "the-token\n")
    Archive(url).store(SENT)
    assert stub.asked[0].headers["Authorization"] == "Bearer the-token"


@pytest.mark.parametrize("value", ["two\nlines", "Zürich"])
def test_an_unusable_token_is_named_without_its_value(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv(TOKEN, value)
    with pytest.raises(InputError, match=f"{TOKEN} has characters that cannot be in a token") as raised:
        Archive("dicomweb+https://127.0.0.1/x")
    assert value not in str(raised.value)


def test_a_token_without_encryption_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv(TOKEN, "the-token")
    Archive("dicomweb+https://127.0.0.1/x")
    assert not caplog.messages
    Archive("dicomweb+http://127.0.0.1/x")
    assert caplog.messages == ["dicomweb+http://127.0.0.1/x: the token is sent without encryption; use https"]


def test_a_client_certificate_is_used(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "client").mkdir()
    client = http.self_signed(tmp_path / "client")
    monkeypatch.setenv("LOBAR_STORE_SECONDS", "1")
    with http.serve(stub, tmp_path, clients=client) as server:
        address = f"dicomweb+{server.url}/dicom-web"
        with pytest.raises(LobarError):
            Archive(address).store(SENT)
        assert stub.asked == []
        monkeypatch.setenv(CERTIFICATE, client.read_text())
        assert Archive(address).store(SENT) == Outcome()


def test_an_encrypted_key_is_named_and_no_passphrase_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = serialization.load_pem_private_key(http.self_signed(tmp_path).read_bytes(), None)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    encrypted = key.private_bytes(encoding, form, serialization.BestAvailableEncryption(b"phrase"))
    monkeypatch.setenv(CERTIFICATE, encrypted.decode() + (tmp_path / "certificate.pem").read_text())
    with pytest.raises(InputError, match="its unencrypted key in PEM format"):
        Archive("dicomweb+https://127.0.0.1/x")


@pytest.mark.parametrize("value", ["nonsense", "/a/path.pem", "-----BEGIN CERTIFICATE-----\n"])
def test_an_unusable_certificate_is_named_without_its_content(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv(CERTIFICATE, value)
    with pytest.raises(InputError, match=f"{CERTIFICATE} does not hold a certificate") as raised:
        Archive("dicomweb+https://127.0.0.1/x")
    assert value not in str(raised.value)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again_with_the_same_bytes(url: str, stub: Stub, status: int) -> None:
    stub.will(status)
    stub.will(status)
    assert Archive(url).store(SENT) == Outcome()
    assert len(stub.asked) == 3
    assert len({asked.body for asked in stub.asked}) == 1


def test_a_server_that_stays_busy_ends_with_75(url: str, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOBAR_STORE_SECONDS", "1")
    stub.answers += [(503, b"", 0)] * 1000
    with pytest.raises(
        OutsideError, match=r"dicomweb\+https://.*: the server returned 503 \(tried \d+ times"
    ):
        Archive(url).store(SENT)


def test_a_server_that_stalls_is_asked_again(url: str, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "ATTEMPT_SECONDS", 0.3)
    stub.will(200, ALL, seconds=3)
    started = time.monotonic()
    assert Archive(url).store(SENT) == Outcome()
    assert time.monotonic() - started < 2
    assert len(stub.asked) == 2


def test_a_server_that_is_not_there_ends_with_75(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOBAR_STORE_SECONDS", "1")
    with http.serve(lambda _: (200, ALL), tmp_path) as server:
        address = f"dicomweb+{server.url}/dicom-web"
    with pytest.raises(OutsideError, match="ClientConnectorError"):
        Archive(address).store(SENT)


def test_an_untrusted_certificate_is_not_retried(
    url: str, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(InputError, match=r"certificate is not trusted .*; set SSL_CERT_FILE to a file"):
        Archive(url).store(SENT)
    assert stub.asked == []


@pytest.mark.parametrize("wrapped", [False, True])
def test_warnings_and_failures_are_told_apart(url: str, stub: Stub, wrapped: bool) -> None:
    stub.will(202, reply({"1.2.1": None, "1.2.2": 0xB000}, {"1.2.3": 0xA700}, wrapped))
    assert Archive(url).store(SENT) == Outcome(
        failed={"1.2.3": "0xA700, out of resources"}, warnings={"1.2.2": "0xB000, elements coerced"}
    )


@pytest.mark.parametrize(
    ("code", "reason"),
    [(0xC001, "0xC001, cannot understand"), (0x0122, "0x0122, SOP class not supported"),
     (0x0999, "0x0999, unknown reason"), (None, "no reason given")],
)  # fmt: skip
def test_a_conflict_names_each_reason(url: str, stub: Stub, code: int | None, reason: str) -> None:
    stub.will(409, reply({}, dict.fromkeys(SENT, code)))
    assert Archive(url).store(SENT).failed == dict.fromkeys(SENT, reason)
    assert len(stub.asked) == 1


def test_several_reasons_in_one_count_as_none(url: str, stub: Stub) -> None:
    stub.will(409, reply({}, dict.fromkeys(SENT, 290)).replace(b"[290]", b"[290, 291]"))
    assert Archive(url).store(SENT).failed == dict.fromkeys(SENT, "no reason given")


def test_a_conflict_without_a_body_fails_all(url: str, stub: Stub) -> None:
    stub.will(409)
    assert Archive(url).store(SENT).failed == dict.fromkeys(SENT, "the server returned 409 without a reason")


@pytest.mark.parametrize("code", [0x0111, 45070])
def test_an_instance_that_is_there_already_is_no_failure(url: str, stub: Stub, code: int) -> None:
    stub.will(409, reply({}, dict.fromkeys(SENT, code)))
    assert Archive(url).store(SENT) == Outcome()


def test_an_instance_that_the_reply_lacks_is_not_taken_for_stored(url: str, stub: Stub) -> None:
    stub.will(200, reply({"1.2.1": None, "1.2.2": None, "9.9": None}))
    assert Archive(url).store(SENT).failed == {"1.2.3": "the server did not mention it"}


@pytest.mark.parametrize("body", [b"", b"<xml/>", b"[]", b'"text"', b'{"00081199": 3}'])
def test_a_reply_that_does_not_say_what_is_stored_is_an_error(url: str, stub: Stub, body: bytes) -> None:
    stub.will(200, body)
    with pytest.raises(
        InputError, match="the reply to 200 is not DICOM JSON, so what is stored is not known"
    ):
        Archive(url).store(SENT)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (401, f"access denied \\(401\\); check {TOKEN} or {CERTIFICATE}"),
        (403, "access denied \\(403\\)"),
        (404, "no STOW-RS there \\(404\\); check the path"),
        (413, "accepts only smaller requests"),
        (307, "status 307; it redirects"),
        (400, "status 400; see its log"),
    ],
)
def test_a_rejected_request_is_not_repeated(url: str, stub: Stub, status: int, text: str) -> None:
    stub.will(status)
    with pytest.raises(InputError, match=text):
        Archive(url).store(SENT)
    assert len(stub.asked) == 1


@pytest.mark.parametrize(
    "address",
    [
        "dicomweb+ftp://h/x",
        "dicomweb+https://",
        "dicomweb+https:///x",
        "dicomweb+https://h/x?a=b",
        "dicomweb+https://h:99999/x",
        "dicomweb+https://h:port/x",
    ],
)
def test_a_wrong_url_is_named(address: str) -> None:
    with pytest.raises(InputError, match="give dicomweb\\+https://HOST/PATH"):
        Archive(address)


def test_credentials_in_a_url_are_rejected_and_not_repeated() -> None:
    with pytest.raises(
        InputError, match=f"dicomweb\\+https://h: credentials in the URL; set {TOKEN}"
    ) as raised:
        Archive("dicomweb+https://user:secret@h/x")
    assert "secret" not in str(raised.value)
