"""Small HTTP requests: what is retried, and what their errors say."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lobar.core import request as module
from lobar.core.errors import InputError, LobarError, OutsideError
from lobar.core.request import request
from tests.support import http

SECRET = "/services/T0/B1/the-secret"


@pytest.fixture(autouse=True)
def short_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITS_SECONDS", (0.01, 0.01, 0.01, 0.0))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))


@pytest.fixture
def received() -> list[http.Request]:
    return []


@pytest.fixture
def statuses() -> list[int]:
    """Those of the next replies; then 200."""
    return []


@pytest.fixture
def url(tmp_path: Path, received: list[http.Request], statuses: list[int]) -> Iterator[str]:
    def answer(asked: http.Request) -> tuple[int, bytes]:
        received.append(asked)
        return (statuses.pop(0) if statuses else 200), b"ok"

    with http.serve(answer, tmp_path) as server:
        yield server.url + SECRET


def test_data_is_posted_over_tls_with_its_headers(url: str, received: list[http.Request]) -> None:
    assert request(url, {"Content-Type": "application/json"}, b"{}") == b"ok"
    (asked,) = received
    assert (asked.method, asked.path, asked.body) == ("POST", SECRET, b"{}")
    assert asked.headers["Content-Type"] == "application/json"


def test_a_server_that_is_busy_is_asked_again(
    url: str, statuses: list[int], received: list[http.Request]
) -> None:
    statuses += [503, 429, 500]
    assert request(url, {}) == b"ok"
    assert len(received) == 4


@pytest.mark.parametrize(("status", "tries"), [(403, 1), (404, 1), (503, 4)])
def test_an_error_status_is_reported(
    url: str, statuses: list[int], received: list[http.Request], status: int, tries: int
) -> None:
    statuses += [status] * 9
    with pytest.raises(OutsideError, match=f"^status {status}$"):
        request(url, {})
    assert len(received) == tries


def test_nothing_is_sent_twice_to_a_server_that_does_not_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        started = time.monotonic()
        with pytest.raises(OutsideError, match=r"^no reply within 0\.2 s$"):
            request(f"http://127.0.0.1:{listener.getsockname()[1]}{SECRET}", {}, b"{}")
        assert time.monotonic() - started < 2
        listener.accept()[0].close()
        listener.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_certificate_of_an_unknown_authority_is_not_accepted(
    url: str, received: list[http.Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(OutsideError, match="certificate verify failed"):
        request(url, {})
    assert not received


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("file:///etc/passwd?the-secret", InputError),
        ("the-secret", InputError),
        ("https://127.0.0.1:9/the-secret", OutsideError),
        ("https://no-such-host.invalid/the-secret", OutsideError),
        ("https:///the-secret", OutsideError),
        ("https://127.0.0.1:port/the-secret", OutsideError),
        ("https://127.0.0.1/two words/the-secret", OutsideError),
        ("https://127.0.0.1/the-secret-\u00e9", OutsideError),
    ],
)
def test_an_error_does_not_show_the_url(url: str, kind: type[LobarError]) -> None:
    with pytest.raises(kind) as raised:
        request(url, {})
    assert "the-secret" not in str(raised.value)
