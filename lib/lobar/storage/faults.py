"""What an error of any store's driver means: whether a retry may help, and what to tell the user.

Errors are recognized by class name, HTTP status and error code, so that no driver has to be imported.
"""

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lobar.core.errors import AbsentError, InputError, LobarError, OutsideError, TakenError
from lobar.storage import environment

CLOCK = "this machine's clock and the store's differ too much ({reply})"
ARCHIVED = "the object is archived ({reply}); restore it so that it can be read at once, then run this again"
DENIED = (
    "access denied ({reply}{detail}); check the credentials in the environment ({credentials}) and their "
    "permissions"
)
EXPIRED = (
    "the credentials have expired ({reply}); a new pod gets new ones; elsewhere, renew those in the "
    "environment ({credentials})"
)
PLACE = "the region or the endpoint is wrong ({reply}){region}; set {place}"
REJECTED = "the store rejects this request: {reply}: {text}"
NO_TEXT = (
    REJECTED + "; a wrong region ({place}) and expired credentials ({credentials}) are answered like this"
)

# The first pattern that matches the start of "STATUS CODE TEXT" decides. Rows without an error are transient.
REPLIES: list[tuple[str, type[LobarError] | None, str]] = [
    (r"2\d\d", None, ""),  # success, but not the reply that was expected
    (r"404 .*(NoSuchBucket|ContainerNotFound|bucket does not exist)", InputError, "there is no such bucket"),
    (r"404", AbsentError, "there is no such object"),
    (r"412|409 BlobAlreadyExists", TakenError, "an object with this name exists already"),
    (r"\d+ (RequestTimeTooSkewed|RequestExpired)", InputError, CLOCK),
    (r"\d+ (ExpiredToken|TokenRefreshRequired|AADSTS700024)", OutsideError, EXPIRED),
    (r"40[013] .*(token|assertion|credentials).*(expired|not within its valid time)", OutsideError, EXPIRED),
    (r"\d+ \S*(Throttl|SlowDown|TooManyRequests|ServerBusy|(Limit|Throughput)Exceeded)", None, ""),
    (r"4\d\d .*rate limit exceeded", None, ""),
    # some come with status 400 although the request is valid
    (r"\d+ (BadDigest|IncompleteBody|Md5Mismatch|XAmzContentSHA256Mismatch)", None, ""),
    (r"\d+ (InternalError|ServiceUnavailable|RequestTimeout|OperationAborted|OperationTimedOut)", None, ""),
    (r"\d+ (PriorRequestNotComplete|TransactionInProgress|IDPCommunicationError)", None, ""),
    (r"30[128]|400 (AuthorizationHeaderMalformed|BucketRegionError|InvalidRegion)", InputError, PLACE),
    (r"\d+ (Illegal|Invalid)LocationConstraint", InputError, PLACE),
    (
        r"\d+ (InvalidObjectState|RestoreAlreadyInProgress|BlobArchived|BlobBeingRehydrated)",
        InputError,
        ARCHIVED,
    ),
    (r"4\d\d .*(requester pays|billing|billed)", InputError, REJECTED),
    (r"40[13]|409 PublicAccessNotPermitted", InputError, DENIED),
    (r"400 (InvalidToken|InvalidClientTokenId|InvalidIdentityToken|UnrecognizedClient)", InputError, DENIED),
    (r"409 (\w*Immutable|Lease)", InputError, REJECTED),
    (r"307|408|409|425|429|500|502|503|504|507|509", None, ""),
    (r"400 400", InputError, NO_TEXT),
    (r"", InputError, REJECTED),
]
TRANSIENT_ERRORS = {
    "ChecksumError", "ConnectionError", "FlexibleChecksumError", "HTTPClientError", "IncompleteReadError",
    "ResponseParserError", "ResponseStreamingError", "ServiceRequestError", "ServiceResponseError", "Timeout",
    "TransportError",
}  # fmt: skip
CONFIGURATION_ERRORS = {
    "ClientAuthenticationError", "CredentialRetrievalError", "DefaultCredentialsError", "InvalidConfigError",
    "InvalidRegionError", "MalformedError", "NoCredentialsError", "NonRetryableError", "NoRegionError",
    "ParamValidationError", "PartialCredentialsError", "ProfileNotFound", "SSOTokenLoadError",
    "TokenRetrievalError", "UnauthorizedSSOTokenError",
}  # fmt: skip
DRIVERS = ("adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "requests")
QUERY = re.compile(r"\?[^\s'\"]+")
UNTRUSTED = re.compile(r"certificate verify failed:? ?([^(\]]*)")
PLAIN_HTTP = re.compile("WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|HTTP_REQUEST|UNKNOWN_PROTOCOL")


@dataclass(frozen=True, slots=True)
class Reply:
    """An error reply of a store: HTTP status, error code, text, and the region that it names."""

    status: int
    code: str = ""
    text: str = ""
    region: str = ""

    def __str__(self) -> str:
        return " ".join(dict.fromkeys(filter(None, (str(self.status or ""), self.code))))

    def meaning(self) -> tuple[type[LobarError] | None, str]:
        """The error to raise, None if the fault is transient, and the template of its text."""
        line = f"{self.status} {self.code} {self.text}"
        return next((kind, text) for pattern, kind, text in REPLIES if re.match(pattern, line, re.IGNORECASE))


def transient_reason(error: Exception) -> str | None:
    """A description of a transient error; None for any other."""
    if _certificate_problem(error):
        return None
    if reply := _reply(error):
        # or a token that could not be renewed because its server did not respond
        transient = reply.meaning()[0] is None or any("TransportError" in _names(it) for it in _causes(error))
        return f"the store returned {reply}" if transient else None
    if isinstance(error, TimeoutError):
        return "the store does not respond"
    transient = bool(_names(error) & TRANSIENT_ERRORS) or type(error).__module__.startswith("aiohttp")
    return _describe(error) if transient else None


def permanent_error(url: str, error: Exception) -> Exception:
    """The error to raise for one that is not transient; `error` itself if it did not come from a store."""
    names = environment.names(url)
    if problem := _certificate_problem(error):
        return InputError(f"{url}: {problem.format(**names)}")
    if reply := _reply(error):
        return _rejection(url, reply)
    if isinstance(error, FileNotFoundError):
        return AbsentError(f"{url}: there is no such object")
    if isinstance(error, FileExistsError):
        return TakenError(f"{url}: an object with this name exists already")
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return InputError(f"{url}: found a folder instead of an object, or an object instead of a folder")
    if isinstance(error, PermissionError):
        return InputError(f"{url}: access denied; check the permissions of this path")
    if _names(error) & CONFIGURATION_ERRORS:
        variables = names["credentials"]
        return InputError(
            f"{url}: {_one_line(error)}; check the store's variables in the environment ({variables})"
        )
    if isinstance(error, ValueError) and str(error).startswith("Invalid endpoint"):
        return InputError(f"{url}: {error}; give http:// or https:// and a host ({names['place']})")
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.ENAMETOOLONG):
        return InputError(f"{url}: {error.strerror}; choose another location")
    if isinstance(error, OSError) or type(error).__module__.startswith(DRIVERS):
        return OutsideError(f"{url}: {_describe(error)}")
    return error


def _rejection(url: str, reply: Reply) -> LobarError:
    names = environment.names(url)
    kind, template = reply.meaning()
    assert kind is not None, "transient"
    # S3 may put what was signed into the text
    detail = f": {reply.text}" if reply.text and not url.startswith("s3") else ""
    region = f": the bucket is in {reply.region}" if reply.region else ""
    text = template.format(reply=reply, detail=detail, region=region, text=reply.text or "no reason", **names)
    return kind(f"{url}: {text}")


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it was raised from."""
    for _ in range(5):
        if error is None:
            return
        yield error
        error = error.__cause__


def _reply(error: Exception) -> Reply | None:
    """The store's reply that an error of botocore, gcsfs or Azure's library was made of, or None."""
    for raised in _causes(error):
        if isinstance(response := getattr(raised, "response", None), dict):
            return _s3_reply(response)
        module, name = type(raised).__module__, type(raised).__name__
        if module.startswith("gcsfs") and name == "HttpError":
            return _google_reply(getattr(raised, "_error_response", None) or {})
        if module.startswith("azure") and (status := getattr(raised, "status_code", None)):
            return Reply(int(status), str(getattr(raised, "error_code", None) or ""), _one_line(raised))
        # gcsfs's own check of a reply, which drops the status
        if type(raised) in (OSError, ValueError) and (
            found := re.match("(Forbidden|Bad Request): .*\n?", str(raised))
        ):
            status = 403 if found[1] == "Forbidden" else 400
            return Reply(status, "", " ".join(str(raised)[found.end() :].split()))
    return None


def _s3_reply(response: dict[str, Any]) -> Reply | None:
    error, metadata = response.get("Error", {}), response.get("ResponseMetadata", {})
    code = str(error.get("Code", ""))
    status = int(metadata.get("HTTPStatusCode") or (code if code.isdecimal() else 0))
    headers = metadata.get("HTTPHeaders", {})
    region = str(error.get("Region") or headers.get("x-amz-bucket-region", ""))
    text = str(error.get("Message", ""))
    if not region and (named := re.search(r"expecting '([\w-]+)'", text)):
        region = named[1]
    return Reply(status, code, _one_line(text), region) if status or code else None


def _google_reply(error: dict[str, Any]) -> Reply | None:
    status, text = str(error.get("code", "")), error.get("message", "")
    reasons = [item.get("reason", "") for item in error.get("errors", []) if isinstance(item, dict)]
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    return Reply(int(status), next(iter(reasons), ""), _one_line(text)) if status.isdecimal() else None


def _certificate_problem(error: Exception) -> str:
    """What is wrong with the encryption of a connection, empty if nothing: no retry helps."""
    text = " ".join(str(raised) for raised in _causes(error))
    if "CERTIFICATE_VERIFY_FAILED" in text:
        found = UNTRUSTED.search(text)
        reason = found[1].strip() if found else "not verified"
        return (
            f"the store's certificate is not trusted ({reason}); set {{certificates}} to a file with the "
            "certificates to trust"
        )
    if PLAIN_HTTP.search(text):
        return "the store's server does not use TLS; give http:// instead of https:// ({place})"
    return ""


def _describe(error: Exception) -> str:
    """Type and text of an error, without the query of any URL, which may contain a signature."""
    return f"{type(error).__name__}: {QUERY.sub('', str(error))}"


def _one_line(error: object) -> str:
    """The first line of a text, at most 300 characters of it."""
    lines = str(error).strip().splitlines() or [""]
    return QUERY.sub("", lines[0])[:300]
