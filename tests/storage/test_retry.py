"""Which errors of a store are retried and for how long, and what the others are reported as."""

import asyncio
import errno
import re
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import yarl
from botocore import exceptions as boto
from fsspec.exceptions import FSTimeoutError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from s3fs.errors import translate_boto_error

from lobar.core.errors import AbsentError, InputError, LobarError, OutsideError, TakenError
from lobar.storage import retry

URL = "s3://bucket/some/key.dcm"
ENDPOINT = "http://127.0.0.1:1/bucket/some/key.dcm"


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time advances only by waiting."""

    seconds = 0.0

    def time(self) -> float:
        return self.seconds

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.seconds = max(self.seconds, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    loop = Clock()
    monkeypatch.setattr(retry, "time", SimpleNamespace(monotonic=loop.time))
    monkeypatch.delenv("LOBAR_STORE_SECONDS", raising=False)
    yield loop
    loop.close()


class Store:
    """Replies to successive tries with `answers`, repeating the last one, and records the times."""

    def __init__(self, clock: Clock, *answers: Any) -> None:
        self.clock = clock
        self.answers = answers
        self.tried_at: list[float] = []

    async def __call__(self) -> Any:
        answer = self.answers[min(len(self.tried_at), len(self.answers) - 1)]
        self.tried_at.append(self.clock.seconds)
        if isinstance(answer, Exception):
            raise answer
        return await answer() if callable(answer) else answer

    def run(self, **options: Any) -> Any:
        return self.clock.run_until_complete(retry.with_retries(URL, self, **options))


def reply(status: int, code: str, operation: str = "GetObject", message: str = "message of S3") -> Exception:
    """The exception that s3fs raises for an error reply of a store."""
    error = {"Code": code, "Message": message, "Condition": "If-None-Match"}
    response = {"Error": error, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate_boto_error(boto.ClientError(response, operation))


TRANSIENT = [
    (reply(503, "SlowDown"), "the store returned 503 SlowDown"),
    (reply(503, "ServiceUnavailable"), "the store returned 503 ServiceUnavailable"),
    (reply(500, "InternalError"), "the store returned 500 InternalError"),
    (reply(429, "TooManyRequests"), "the store returned 429 TooManyRequests"),
    (
        reply(409, "ConditionalRequestConflict", "PutObject"),
        "the store returned 409 ConditionalRequestConflict",
    ),
    (reply(409, "OperationAborted"), "the store returned 409 OperationAborted"),
    (reply(408, "408"), "the store returned 408"),
    (reply(504, "504", "HeadObject"), "the store returned 504"),
    (reply(502, "502"), "the store returned 502"),
    (reply(400, "RequestTimeout", "PutObject"), "the store returned 400 RequestTimeout"),
    (reply(400, "BadDigest", "PutObject"), "the store returned 400 BadDigest"),
    (reply(400, "IncompleteBody", "PutObject"), "the store returned 400 IncompleteBody"),
    (reply(400, "XAmzContentSHA256Mismatch"), "the store returned 400 XAmzContentSHA256Mismatch"),
    (boto.EndpointConnectionError(endpoint_url=ENDPOINT), "EndpointConnectionError: Could not connect"),
    (boto.ConnectTimeoutError(endpoint_url=ENDPOINT), "ConnectTimeoutError: "),
    (boto.ReadTimeoutError(endpoint_url=ENDPOINT), "ReadTimeoutError: Read timeout"),
    (boto.ConnectionClosedError(endpoint_url=ENDPOINT), "ConnectionClosedError: Connection was closed"),
    (boto.HTTPClientError(error="broken"), "HTTPClientError: "),
    (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), "IncompleteReadError: 1 read"),
    (boto.ResponseStreamingError(error="broken"), "ResponseStreamingError: "),
    (aiohttp.ClientPayloadError("not completed"), "ClientPayloadError: not completed"),
    (aiohttp.ServerDisconnectedError(), "ServerDisconnectedError: Server disconnected"),
    (aiohttp.ClientOSError(errno.ECONNRESET, "Connection reset"), "ClientOSError: [Errno 104]"),
    (ConnectionResetError(errno.ECONNRESET, "Connection reset"), "ConnectionResetError: [Errno 104]"),
    (FSTimeoutError(), "the store does not respond"),
    (TimeoutError(), "the store does not respond"),
    (retry.TransientError("received 7 bytes, 9 were listed"), "received 7 bytes, 9 were listed"),
]
PERMANENT: list[tuple[Exception, type[LobarError], str]] = [
    (reply(404, "NoSuchKey"), AbsentError, "there is no such object"),
    (reply(404, "404", "HeadObject"), AbsentError, "there is no such object"),
    (FileNotFoundError(errno.ENOENT, "No such file"), AbsentError, "there is no such object"),
    (reply(404, "NoSuchBucket"), InputError, "there is no such bucket"),
    (reply(412, "PreconditionFailed", "PutObject"), TakenError, "an object with this name exists already"),
    (FileExistsError(errno.EEXIST, "File exists"), TakenError, "an object with this name exists already"),
    (reply(403, "AccessDenied"), InputError, "access denied (403 AccessDenied); check the credentials"),
    (reply(403, "SignatureDoesNotMatch"), InputError, "access denied (403 SignatureDoesNotMatch)"),
    (reply(403, "InvalidAccessKeyId"), InputError, "access denied (403 InvalidAccessKeyId)"),
    (reply(403, "403", "HeadObject"), InputError, "access denied (403)"),
    (reply(401, "Unauthorized"), InputError, "access denied (401 Unauthorized)"),
    (reply(403, "RequestTimeTooSkewed"), InputError, "this machine's clock and the store's differ too much"),
    (reply(301, "PermanentRedirect"), InputError, "the region or the endpoint is wrong (301 Permanent"),
    (reply(400, "AuthorizationHeaderMalformed"), InputError, "the region or the endpoint is wrong (400 Au"),
    (reply(400, "InvalidRequest"), InputError, "the store rejects this request: 400 InvalidRequest"),
    (reply(501, "NotImplemented"), InputError, "the store rejects this request: 501 NotImplemented"),
    (boto.NoCredentialsError(), InputError, "Unable to locate credentials; check the store's variables"),
    (boto.PartialCredentialsError(provider="env", cred_var="AWS_SECRET"), InputError, "missing: AWS_SECRET"),
    (boto.ProfileNotFound(profile="other"), InputError, "(other) could not be found; check the store's"),
    (PermissionError(errno.EACCES, "Permission denied"), InputError, "access denied; check the permissions"),
    (IsADirectoryError(errno.EISDIR, "Is a directory"), InputError, "found a folder instead of an object"),
    (OSError(errno.EROFS, "Read-only file system"), InputError, "Read-only file system; choose another"),
    (OSError(errno.ENOSPC, "No space left on device"), OutsideError, "No space left on device"),
    (boto.DataNotFoundError(data_path="endpoints"), OutsideError, "DataNotFoundError: Unable to load data"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message"), TRANSIENT, ids=[message[:45] for _, message in TRANSIENT])
def test_a_transient_error_is_retried_and_named_if_it_persists(
    clock: Clock, error: Exception, message: str
) -> None:
    assert Store(clock, error, error, b"content").run() == b"content"
    store = Store(clock, error)
    with pytest.raises(OutsideError) as raised:
        store.run()
    assert raised.value.status == 75
    assert str(raised.value).startswith(f"{URL}: {message}")
    assert str(raised.value).endswith(f"(tried {len(store.tried_at)} times)")


@pytest.mark.parametrize(
    ("error", "kind", "message"), PERMANENT, ids=[message[:45] for *_, message in PERMANENT]
)
def test_a_permanent_error_is_raised_at_once(
    clock: Clock, error: Exception, kind: type[LobarError], message: str
) -> None:
    store = Store(clock, error, b"not requested")
    with pytest.raises(LobarError) as raised:
        store.run()
    assert type(raised.value) is kind
    assert raised.value.status == (75 if kind is OutsideError else 2)
    assert str(raised.value).startswith(f"{URL}: ")
    assert message in str(raised.value)
    assert store.tried_at == [0]


@pytest.mark.parametrize("error", [InputError("ours"), OutsideError("ours"), ZeroDivisionError("a defect")])
def test_errors_of_other_origin_are_raised_unchanged(clock: Clock, error: Exception) -> None:
    store = Store(clock, error)
    with pytest.raises(type(error)) as raised:
        store.run()
    assert raised.value is error
    assert store.tried_at == [0]


any_transient_error = st.sampled_from([error for error, _ in TRANSIENT])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(seconds=st.integers(1, 600), errors=st.lists(any_transient_error, min_size=1, max_size=5))
def test_tries_stay_within_the_deadline_and_waits_within_their_bounds(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, seconds: int, errors: list[Exception]
) -> None:
    monkeypatch.setenv("LOBAR_STORE_SECONDS", str(seconds))
    store = Store(clock, *errors)
    started = clock.seconds
    with pytest.raises(OutsideError):
        store.run()
    waits = [after - before for before, after in zip(store.tried_at, store.tried_at[1:], strict=False)]
    bounds = [min(10, 0.2 * 2**tries) for tries in range(1, len(waits) + 2)]
    assert all(0 <= wait <= bound + 1e-6 for wait, bound in zip(waits, bounds, strict=False))
    assert clock.seconds - started <= seconds + 1e-6
    # the last try is the one after which the longest wait would exceed the deadline
    assert clock.seconds - started + bounds[-1] >= seconds


def test_waits_are_random_so_that_clients_do_not_retry_together(clock: Clock) -> None:
    starts = []
    for _ in range(50):
        store = Store(clock, TimeoutError(), b"content")
        store.run()
        starts.append(store.tried_at[1] - store.tried_at[0])
    assert len({round(start, 6) for start in starts}) > 40
    assert min(starts) < 0.1
    assert max(starts) > 0.3


@pytest.mark.parametrize(("more", "longest"), [(0, 20), (130, 150)])
def test_an_attempt_without_a_reply_times_out(clock: Clock, more: float, longest: float) -> None:
    async def silence() -> None:
        await asyncio.Event().wait()

    store = Store(clock, silence)
    with pytest.raises(OutsideError, match="the store does not respond"):
        store.run(more_seconds=more)
    assert clock.seconds <= longest + 120 + longest
    assert store.tried_at[1] >= longest


def test_the_retry_limit_counts_from_the_first_failure(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOBAR_STORE_SECONDS", "30")

    def after(seconds: float, error: Exception) -> Callable[[], Awaitable[None]]:
        async def fail() -> None:
            await asyncio.sleep(seconds)
            raise error

        return fail

    store = Store(clock, after(200, TimeoutError()), after(0, TimeoutError()), b"content")
    assert store.run(more_seconds=300) == b"content"


def test_only_long_retries_are_logged(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOBAR_STORE_SECONDS", "1")
    with pytest.raises(OutsideError):
        Store(clock, reply(503, "SlowDown")).run()
    assert not caplog.records
    monkeypatch.setenv("LOBAR_STORE_SECONDS", "60")
    with pytest.raises(OutsideError):
        Store(clock, reply(503, "SlowDown")).run()
    assert {record.getMessage() for record in caplog.records} == {
        f"{URL}: the store returned 503 SlowDown; retrying"
    }


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "two", "1e3", " 5", "5s"])
def test_a_wrong_number_of_seconds_is_rejected(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("LOBAR_STORE_SECONDS", value)
    store = Store(clock, b"content")
    with pytest.raises(InputError, match=rf"LOBAR_STORE_SECONDS is {re.escape(repr(value))}; give a whole"):
        store.run()
    assert store.tried_at == []


@pytest.mark.parametrize(("value", "seconds"), [("", 120), ("7", 7)])
def test_seconds_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, value: str, seconds: float
) -> None:
    monkeypatch.setenv("LOBAR_STORE_SECONDS", value)
    assert retry.retry_seconds() == seconds
    assert retry.attempt_seconds() == min(20, seconds)


def garbled(url: str) -> Exception:
    """The exception that aiohttp raises for a reply that is not HTTP."""
    address = yarl.URL(url, encoded=True)
    request = aiohttp.RequestInfo(address, "GET", CIMultiDictProxy(CIMultiDict()), address)
    return aiohttp.ClientResponseError(request, (), status=400, message="Bad status line")


def test_a_reply_that_is_not_http_is_retried(clock: Clock) -> None:
    assert Store(clock, garbled(ENDPOINT), b"content").run() == b"content"


def test_no_message_contains_a_signature(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    rejected = reply(403, "SignatureDoesNotMatch", message="StringToSign of AKIAEXAMPLE; Signature=abc")
    with pytest.raises(InputError) as denied:
        Store(clock, rejected).run()
    signed = f"{ENDPOINT}?AWSAccessKeyId=AKIAEXAMPLE&Signature=abc%3D&Expires=1"
    with pytest.raises(OutsideError) as lost:
        Store(clock, garbled(signed)).run()
    message = f"{denied.value} {lost.value} {caplog.text}"
    assert not re.search("AKIA|Signature=", message), message
