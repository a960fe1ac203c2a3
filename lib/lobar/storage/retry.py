"""The retry policy of all storage: when and for how long transient errors are retried.

`faults` says which errors are transient. The drivers' own retries are turned off.
"""

import asyncio
import itertools
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from lobar.core.errors import InputError, LobarError, OutsideError
from lobar.storage import faults

STORE_SECONDS = 120.0
ATTEMPT_SECONDS = 20.0
FIRST_WAIT, LONGEST_WAIT = 0.2, 10.0
WARN_AFTER_SECONDS = 2.0

T = TypeVar("T")
log = logging.getLogger(__name__)


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
            reason = str(error) if isinstance(error, TransientError) else faults.transient_reason(error)
            if reason is None:
                raise faults.permanent_error(url, error) from error
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
