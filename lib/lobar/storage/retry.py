"""The retry policy of all storage: which errors are transient, how long to retry, and what to report.

The drivers' own retries are turned off. Errors are recognized by class name and HTTP status, so that no
driver has to be imported.
"""

import asyncio
import errno
import itertools
import logging
import os
import random
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from lobar.core.errors import AbsentError, InputError, LobarError, OutsideError, TakenError

STORE_SECONDS = 120.0
ATTEMPT_SECONDS = 20.0
FIRST_WAIT, LONGEST_WAIT = 0.2, 10.0
WARN_AFTER_SECONDS = 2.0

QUERY = re.compile(r"\?[^\s'\"]+")
T = TypeVar("T")
log = logging.getLogger(__name__)

TRANSIENT_ERRORS = {
    "ConnectionError", "FlexibleChecksumError", "HTTPClientError", "IncompleteReadError",
    "ResponseParserError", "ResponseStreamingError",
}  # fmt: skip
TRANSIENT_STATUSES = {408, 409, 425, 429, 500, 502, 503, 504, 507, 509}
# some come with status 400 although the request is valid
TRANSIENT_CODES = {
    "BadDigest", "IncompleteBody", "InternalError", "OperationAborted", "RequestTimeout",
    "ServiceUnavailable", "SlowDown", "XAmzContentSHA256Mismatch",
}  # fmt: skip
DRIVERS = ("aiobotocore", "aiohttp", "botocore")
CONFIGURATION_ERRORS = {
    "CredentialRetrievalError", "InvalidRegionError", "NoCredentialsError", "NoRegionError",
    "ParamValidationError", "PartialCredentialsError", "ProfileNotFound",
}  # fmt: skip


class TransientError(Exception):
    """A reply that does not match the stored object, such as one cut short; a retry may help."""


async def with_retries(url: str, attempt: Callable[[], Awaitable[T]], more_seconds: float = 0) -> T:
    """Return the result of `attempt`, retried after transient errors; each try has 20 s plus `more_seconds`.

    Waits grow from 0.2 to 10 s with full jitter (M. Brooker, "Exponential Backoff And Jitter", 2015). Retries
    end LOBAR_STORE_SECONDS after the first transient error, with an OutsideError that names the object and
    the error. Permanent errors are raised at once as AbsentError, TakenError or InputError.
    """
    retry_limit = retry_seconds()
    first_failure = 0.0
    for tries in itertools.count(1):
        try:
            return await asyncio.wait_for(attempt(), attempt_seconds() + more_seconds)
        except LobarError:
            raise
        except Exception as error:
            reason = _transient_reason(error)
            if reason is None:
                raise _permanent_error(url, error) from error
            now = time.monotonic()
            first_failure = first_failure or now
            wait = random.uniform(0, min(LONGEST_WAIT, FIRST_WAIT * 2**tries))  # noqa: S311
            if now + wait > first_failure + retry_limit:
                raise OutsideError(f"{url}: {reason} (tried {tries} times)") from error
            if now > first_failure + WARN_AFTER_SECONDS:
                log.warning("%s: %s; retrying", url, reason)
            await asyncio.sleep(wait)
    raise AssertionError("count() is endless")


def retry_seconds() -> float:
    """How long transient errors of a store are retried: LOBAR_STORE_SECONDS, or 120."""
    value = os.environ.get("LOBAR_STORE_SECONDS", "")
    if value and not (value.isdecimal() and int(value)):
        raise InputError(f"LOBAR_STORE_SECONDS is {value!r}; give a whole number of seconds, 1 or more")
    return float(value or STORE_SECONDS)


def attempt_seconds() -> float:
    """How long a store may be silent before a try has failed."""
    return min(ATTEMPT_SECONDS, retry_seconds())


def _transient_reason(error: Exception) -> str | None:
    """A description of a transient error; None for any other."""
    code, status = _response(error)
    if status:
        transient = status in TRANSIENT_STATUSES or code in TRANSIENT_CODES
        return f"the store returned {_status_text(code, status)}" if transient else None
    if isinstance(error, TransientError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "the store does not respond"
    names = {kind.__name__ for kind in type(error).__mro__}
    transient = bool(names & TRANSIENT_ERRORS) or type(error).__module__.startswith("aiohttp")
    return _describe(error) if transient else None


def _permanent_error(url: str, error: Exception) -> Exception:
    """The error to raise for one that is not transient; `error` itself if it did not come from a store."""
    code, status = _response(error)
    if isinstance(error, FileNotFoundError) or status == 404:
        if code == "NoSuchBucket":
            return InputError(f"{url}: there is no such bucket")
        return AbsentError(f"{url}: there is no such object")
    if isinstance(error, FileExistsError) or status == 412:
        return TakenError(f"{url}: an object with this name exists already")
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return InputError(f"{url}: found a folder instead of an object, or an object instead of a folder")
    if code == "RequestTimeTooSkewed":
        return InputError(f"{url}: this machine's clock and the store's differ too much ({code})")
    if status in (401, 403):
        reply = _status_text(code, status)
        return InputError(
            f"{url}: access denied ({reply}); check the credentials in the environment and their permissions"
        )
    if isinstance(error, PermissionError):
        return InputError(f"{url}: access denied; check the permissions of this path")
    if status:
        return InputError(f"{url}: the store rejects this request: {_status_text(code, status)}: {error}")
    if type(error).__name__ in CONFIGURATION_ERRORS:
        return InputError(f"{url}: {error}; check the store's variables in the environment (AWS_*)")
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.ENAMETOOLONG):
        return InputError(f"{url}: {error.strerror}; choose another location")
    if isinstance(error, OSError) or type(error).__module__.startswith(DRIVERS):
        return OutsideError(f"{url}: {_describe(error)}")
    return error


def _describe(error: Exception) -> str:
    """Type and text of an error, without the query of any URL, which may contain a signature."""
    return f"{type(error).__name__}: {QUERY.sub('', str(error))}"


def _response(error: BaseException) -> tuple[str, int]:
    """The error code and the HTTP status of a store's reply; empty and 0 if there was no reply."""
    for raised in (error, error.__cause__):
        response: Any = getattr(raised, "response", None)
        if isinstance(response, dict):
            code = str(response.get("Error", {}).get("Code", ""))
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return code, int(status or (code if code.isdecimal() else 0))
    return "", 0


def _status_text(code: str, status: int) -> str:
    return " ".join(dict.fromkeys(filter(None, (str(status or ""), code))))
