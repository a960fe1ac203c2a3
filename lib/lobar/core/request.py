"""Small HTTP requests to anything but an object store: the API server of a cluster, a webhook."""

import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping

from lobar.core.errors import InputError, OutsideError

TIMEOUT_SECONDS = 10.0
WAITS_SECONDS = (1.0, 3.0, 9.0, 0.0)  # after each try
TRANSIENT_STATUSES = {429, 500, 502, 503, 504}


def request(
    url: str, headers: Mapping[str, str], data: bytes | None = None, context: ssl.SSLContext | None = None
) -> bytes:
    """The body of the reply to a GET, or to a POST of `data`; connection faults are retried for 13 s.

    Raises OutsideError, or InputError for a URL of another scheme. Their texts do not contain the URL, which
    may be a credential.
    """
    if not url.startswith(("https://", "http://")):  # urllib also opens file:// and ftp://
        raise InputError("the URL does not begin with https://")
    for wait in WAITS_SECONDS:
        try:
            message = urllib.request.Request(url, data, dict(headers))  # noqa: S310
            with urllib.request.urlopen(message, timeout=TIMEOUT_SECONDS, context=context) as reply:  # noqa: S310
                return bytes(reply.read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            problem, transient = _problem(error)
        if not transient:
            break
        time.sleep(wait)
    raise OutsideError(problem)


def _problem(error: Exception) -> tuple[str, bool]:
    """What went wrong, and whether another try may help."""
    if isinstance(error, urllib.error.HTTPError):
        return f"status {error.code}", error.code in TRANSIENT_STATUSES
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):  # what was sent may have arrived, and must not arrive twice
        return f"no reply within {TIMEOUT_SECONDS:g} s", False
    if isinstance(cause, OSError):
        return str(cause), not isinstance(cause, ssl.SSLError)
    return f"invalid URL or reply ({type(cause).__name__})", False  # its text may quote the URL
