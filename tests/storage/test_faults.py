"""What the errors of each driver mean. They are made by the drivers' own classes and functions."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from azure.core import exceptions as azure
from botocore import exceptions as boto
from gcsfs.retry import HttpError, validate_response
from google.auth import exceptions as google
from s3fs.errors import translate_boto_error

from lobar.core.errors import AbsentError, InputError, LobarError, OutsideError, TakenError
from lobar.storage import retry

S3, GOOGLE, AZURE = "s3://b/key", "gs://b/key", "abfs://b/key"


def s3_error(
    status: int, code: str, message: str = "", region: str = "", translated: bool = True
) -> Exception:
    response = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {"x-amz-bucket-region": region}},
    }
    error = boto.ClientError(response, "GetObject")
    return translate_boto_error(error) if translated else error  # type: ignore[no-any-return]


def google_error(status: int, message: str = "", reason: str = "") -> Exception:
    return HttpError({"code": status, "message": message, "errors": [{"reason": reason}]})


def by_gcsfs(status: int, content: bytes) -> Exception:
    """The error that gcsfs itself makes of a reply."""
    with pytest.raises(Exception) as raised:
        validate_response(status, content, "b/{}/o/{}", ["b", "key"])
    return raised.value


def azure_error(status: int, code: str, message: str = "") -> Exception:
    """The error that Azure's library raises for a reply."""
    response = SimpleNamespace(status_code=status, reason="", headers={}, content_type="", text=lambda: "")
    kind = {401: azure.ClientAuthenticationError, 403: azure.ClientAuthenticationError}.get(
        status, azure.HttpResponseError
    )
    error = kind(message=f"{message}\nRequestId:1\nErrorCode:{code}", response=response)
    error.error_code = code
    return error


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def outcome(url: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> tuple[LobarError, int]:
    """What with_retries raises if every try fails with `error`, and the number of tries."""
    monkeypatch.setattr(retry, "STORE_SECONDS", 0.05)
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.001)
    tries = 0

    async def fail() -> None:
        nonlocal tries
        tries += 1
        raise error

    with pytest.raises(LobarError) as raised:
        asyncio.run(retry.with_retries(url, fail))
    return raised.value, tries


TRANSIENT: list[tuple[str, Exception]] = [
    *((S3, s3_error(400, code)) for code in (
        "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestLimitExceeded",
        "RequestThrottledException", "ProvisionedThroughputExceededException",
        "BandwidthLimitExceeded",
        "LimitExceededException", "TooManyRequestsException", "EC2ThrottledException", "SlowDown",
        "PriorRequestNotComplete", "TransactionInProgressException", "RequestTimeout",
        "IDPCommunicationError",
        "KMS.ThrottlingException",
    )),
    (S3, s3_error(503, "SlowDownRead", translated=False)),
    (S3, s3_error(307, "TemporaryRedirect")),
    *((GOOGLE, google_error(status)) for status in (408, 429, 500, 502, 503, 504)),
    (GOOGLE, HttpError({"code": "503", "message": "Backend Error"})),
    (GOOGLE, HttpError({"code": "429", "message": b"rateLimitExceeded"})),
    (GOOGLE, by_gcsfs(503, b"not JSON")),
    (GOOGLE, by_gcsfs(502, b"")),
    (GOOGLE, by_gcsfs(403, b'{"error": {"message": "Rate Limit Exceeded"}}')),
    (GOOGLE, google.TransportError("no reply from the metadata server")),
    (GOOGLE, caused(google_error(401, "Invalid Credentials"), caused(
        google.RefreshError("no token"), google.TransportError("no reply from the metadata server")))),
    *((AZURE, azure_error(*reply)) for reply in (
        (500, "InternalError"), (500, "OperationTimedOut"), (503, "ServerBusy"), (429, "TooManyRequests"),
        (408, ""), (409, "ContainerBeingDeleted"), (400, "Md5Mismatch"),
    )),
    (AZURE, azure.ServiceRequestError("Cannot connect to host")),
    (AZURE, azure.ServiceResponseError("Connection closed")),
    (AZURE, azure.IncompleteReadError("Response payload is not completed")),
]  # fmt: skip


@pytest.mark.parametrize(("url", "error"), TRANSIENT, ids=lambda value: repr(value)[:60])
def test_a_fault_of_the_store_is_retried(url: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    raised, tries = outcome(url, error, monkeypatch)
    assert type(raised) is OutsideError
    assert tries > 1


PLACE = "the region or the endpoint is wrong"
PERMANENT: list[tuple[str, Exception, type[LobarError], list[str]]] = [
    *((S3, s3_error(400, code), OutsideError, ["the credentials have expired", code, "AWS_"])
      for code in ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired")),
    (S3, s3_error(400, "ExpiredToken", translated=False), OutsideError, ["the credentials have expired"]),
    (S3, s3_error(400, "InvalidToken"), InputError, ["access denied (400 InvalidToken)", "AWS_"]),
    (S3, s3_error(301, "PermanentRedirect", region="eu-west-3"), InputError,
     [PLACE, "the bucket is in eu-west-3", "AWS_DEFAULT_REGION"]),
    (S3, s3_error(400, "AuthorizationHeaderMalformed",
     "the region is wrong; expecting 'eu-west-1'"), InputError,
     [PLACE, "the bucket is in eu-west-1", "AWS_DEFAULT_REGION"]),
    (S3, s3_error(400, "IllegalLocationConstraintException"), InputError, [PLACE]),
    (S3, s3_error(400, "400"), InputError, ["a wrong region", "expired credentials"]),
    (S3, s3_error(403, "InvalidObjectState"), InputError, ["the object is archived", "restore it"]),
    (S3, s3_error(403, "RequestTimeTooSkewed"), InputError, ["clock"]),
    (GOOGLE, google_error(401, "Invalid Credentials"), InputError, ["access denied (401: Invalid Credentials",
     "GOOGLE_APPLICATION_CREDENTIALS"]),
    (GOOGLE, google_error(403, "x has no access", "forbidden"), InputError,
     ["access denied (403 forbidden: x has no access)"]),
    (GOOGLE, by_gcsfs(403, b'{"error": {"message": "x has no access"}}'), InputError,
     ["access denied (403: x has no access)", "GOOGLE_APPLICATION_CREDENTIALS"]),
    (GOOGLE, by_gcsfs(401, b"Unauthorized"), InputError, ["access denied (401"]),
    (GOOGLE, google_error(400, "Bucket is a requester pays bucket"), InputError,
     ["the store rejects this request: 400", "requester pays"]),
    (GOOGLE, google_error(403, "The billing account is disabled", "accountDisabled"), InputError,
     ["billing"]),
    (GOOGLE, by_gcsfs(400, b'{"error": {"message": "invalid name"}}'), InputError, ["400: invalid name"]),
    (GOOGLE, caused(FileNotFoundError(""), google_error(404, "The specified bucket does not exist.")),
     InputError, ["there is no such bucket"]),
    (GOOGLE, by_gcsfs(404, b""), AbsentError, ["there is no such object"]),
    (GOOGLE, by_gcsfs(412, b""), TakenError, ["exists already"]),
    (GOOGLE, google.DefaultCredentialsError("File /x was not found."), InputError,
     ["File /x was not found.", "GOOGLE_APPLICATION_CREDENTIALS"]),
    (AZURE, azure_error(403, "AuthorizationPermissionMismatch", "not authorized"), InputError,
     ["access denied (403 AuthorizationPermissionMismatch: not authorized)", "AZURE_STORAGE_"]),
    (AZURE, azure_error(401, "InvalidAuthenticationInfo",
     "Lifetime validation failed. The token is expired."),
     OutsideError, ["the credentials have expired (401", "AZURE_STORAGE_"]),
    (AZURE, azure_error(409, "BlobArchived"), InputError, ["the object is archived (409 BlobArchived)"]),
    (AZURE, azure_error(409, "PublicAccessNotPermitted"), InputError, ["access denied (409"]),
    (AZURE, azure_error(404, "ContainerNotFound"), InputError, ["there is no such bucket"]),
    (AZURE, azure_error(404, "BlobNotFound"), AbsentError, ["there is no such object"]),
    (AZURE, azure_error(412, "ConditionNotMet"), TakenError, ["exists already"]),
    (AZURE, azure_error(400, "InvalidResourceName", "not valid"), InputError,
     ["400 InvalidResourceName: not valid"]),
    (AZURE, azure.ClientAuthenticationError("DefaultAzureCredential failed\nmore"), InputError,
     ["DefaultAzureCredential failed; check", "AZURE_STORAGE_"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("url", "error", "kind", "texts"), PERMANENT, ids=lambda value: repr(value)[:60] if value else ""
)
def test_an_error_that_a_retry_cannot_help_is_raised_at_once(
    url: str, error: Exception, kind: type[LobarError], texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raised, tries = outcome(url, error, monkeypatch)
    assert (type(raised), tries) == (kind, 1), raised
    assert str(raised).startswith(f"{url}: ")
    assert "\n" not in str(raised)
    for text in texts:
        assert text in str(raised), raised


UNTRUSTED = (
    "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate (_ssl.c:1006)"
)
PLAIN = "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"
TLS: list[tuple[str, Callable[[str], Exception], str]] = [
    (S3, lambda text: boto.SSLError(endpoint_url="https://x", error=text), "AWS_CA_BUNDLE"),
    (GOOGLE, google.TransportError, "SSL_CERT_FILE"),
    (AZURE, azure.ServiceRequestError, "SSL_CERT_FILE"),
]


@pytest.mark.parametrize(("url", "make", "variable"), TLS)
def test_tls_that_cannot_work_is_reported_at_once(
    url: str, make: Callable[[str], Exception], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised, tries = outcome(url, make(UNTRUSTED), monkeypatch)
    assert (type(raised), tries) == (InputError, 1)
    expected = (
        f"{url}: the store's certificate is not trusted (self-signed certificate); set {variable} to a file"
    )
    assert str(raised).startswith(expected)
    raised, tries = outcome(url, make(PLAIN), monkeypatch)
    assert (type(raised), tries) == (InputError, 1)
    assert "does not use TLS; give http:// instead of https://" in str(raised)
