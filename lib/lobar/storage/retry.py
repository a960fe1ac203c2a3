"""Which errors of a store pass by themselves, how long they are waited out, and what a person is told.

The one retry policy of all storage: drivers are told not to retry. Errors are known by the names of their
classes and by HTTP status, so that no driver has to be imported.
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
SAID_AFTER_SECONDS = 2.0

QUERY = re.compile(r"\?[^\s'\"]+")
T = TypeVar("T")
log = logging.getLogger(__name__)

TRANSIENT_ERRORS = {
    "ConnectionError", "FlexibleChecksumError", "HTTPClientError", "IncompleteReadError",
    "ResponseParserError", "ResponseStreamingError",
}  # fmt: skip
TRANSIENT_STATUSES = {408, 409, 425, 429, 500, 502, 503, 504, 507, 509}
# some arrive with status 400 although nothing is wrong with the request
TRANSIENT_CODES = {
    "BadDigest", "IncompleteBody", "InternalError", "OperationAborted", "RequestTimeout",
    "ServiceUnavailable", "SlowDown", "XAmzContentSHA256Mismatch",
}  # fmt: skip
DRIVERS = {"aiobotocore", "aiohttp", "botocore"}
WRONG_SETTINGS = {
    "CredentialRetrievalError", "InvalidRegionError", "NoCredentialsError", "NoRegionError",
    "ParamValidationError", "PartialCredentialsError", "ProfileNotFound",
}  # fmt: skip


class Fault(Exception):
    """What came from the store is not what is there; asking again may help."""


async def with_retries(url: str, attempt: Callable[[], Awaitable[T]], more_seconds: float = 0) -> T:
    """Return what `attempt` returns within 20 s and `more_seconds`, tried again while a fault may pass.

    Waits grow from 0.2 to 10 s with full jitter (M. Brooker, "Exponential Backoff And Jitter", 2015), until
    LOBAR_STORE_SECONDS after the first fault. Raises OutsideError naming the object and the fault, and at
    once AbsentError, TakenError or InputError for what no waiting fixes.
    """
    patience = store_seconds()
    first_fault = 0.0
    for tries in itertools.count(1):
        try:
            return await asyncio.wait_for(attempt(), attempt_seconds() + more_seconds)
        except LobarError:
            raise
        except Exception as error:
            fault = _transient(error)
            if fault is None:
                raise _named(url, error) from error
            now = time.monotonic()
            first_fault = first_fault or now
            wait = random.uniform(0, min(LONGEST_WAIT, FIRST_WAIT * 2**tries))  # noqa: S311
            if now + wait > first_fault + patience:
                raise OutsideError(f"{url}: {fault} (tried {tries} times)") from error
            if now > first_fault + SAID_AFTER_SECONDS:
                log.warning("%s: %s; trying again", url, fault)
            await asyncio.sleep(wait)
    raise AssertionError("count() ends")


def store_seconds() -> float:
    """How long a fault of a store is waited out: LOBAR_STORE_SECONDS, or 120."""
    given = os.environ.get("LOBAR_STORE_SECONDS", "")
    if given and not (given.isdecimal() and int(given)):
        raise InputError(f"LOBAR_STORE_SECONDS is {given!r}; give a whole number of seconds, 1 or more")
    return float(given or STORE_SECONDS)


def attempt_seconds() -> float:
    """How long a store may say nothing before that is a fault."""
    return min(ATTEMPT_SECONDS, store_seconds())


def _transient(error: Exception) -> str | None:
    """What to call a fault that may pass; None for one that will not."""
    code, status = _response(error)
    if status:
        passes = status in TRANSIENT_STATUSES or code in TRANSIENT_CODES
        return f"the store answers {_answer(code, status)}" if passes else None
    if isinstance(error, Fault):
        return str(error)
    if isinstance(error, TimeoutError):
        return "the store does not answer"
    names = {kind.__name__ for kind in type(error).__mro__}
    lost = bool(names & TRANSIENT_ERRORS) or type(error).__module__.startswith("aiohttp")
    return _plain(error) if lost else None


def _named(url: str, error: Exception) -> Exception:
    """The error that tells what is wrong for good; `error` itself where it is none of a store's."""
    code, status = _response(error)
    if isinstance(error, FileNotFoundError) or status == 404:
        if code == "NoSuchBucket":
            return InputError(f"{url}: there is no such bucket")
        return AbsentError(f"{url}: there is no such object")
    if isinstance(error, FileExistsError) or status == 412:
        return TakenError(f"{url}: an object of that name is there already")
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return InputError(f"{url}: a folder stands where an object was expected, or the other way round")
    if code == "RequestTimeTooSkewed":
        return InputError(f"{url}: this machine's clock and the store's differ too much ({code})")
    if status in (401, 403):
        answer = _answer(code, status)
        return InputError(
            f"{url}: access denied ({answer}); check the credentials in the environment, and what they may do"
        )
    if isinstance(error, PermissionError):
        return InputError(f"{url}: access denied; check who may read and write there")
    if status:
        return InputError(f"{url}: the store rejects this request: {_answer(code, status)}: {error}")
    if type(error).__name__ in WRONG_SETTINGS:
        return InputError(f"{url}: {error}; check the store's variables in the environment (AWS_*)")
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.ENAMETOOLONG):
        return InputError(f"{url}: {error.strerror}; choose another place")
    if isinstance(error, OSError) or type(error).__module__.startswith(
        ("botocore", "aiobotocore", "aiohttp")
    ):
        return OutsideError(f"{url}: {_plain(error)}")
    return error


def _plain(error: Exception) -> str:
    """An error in words, without the query of a URL in it, which may be a signature."""
    return f"{type(error).__name__}: {QUERY.sub('', str(error))}"


def _response(error: BaseException) -> tuple[str, int]:
    """A store's own error code and the HTTP status of its reply; empty and 0 where there was none."""
    for raised in (error, error.__cause__):
        response: Any = getattr(raised, "response", None)
        if isinstance(response, dict):
            code = str(response.get("Error", {}).get("Code", ""))
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return code, int(status or (code if code.isdecimal() else 0))
    return "", 0


def _answer(code: str, status: int) -> str:
    return " ".join(dict.fromkeys(filter(None, (str(status or ""), code))))
