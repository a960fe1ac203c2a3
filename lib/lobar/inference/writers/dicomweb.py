"""A DICOMweb server that stores instances (STOW-RS, PS3.18 section 10.5).

Its URL is `dicomweb+https://HOST/PATH` (or `dicomweb+http://`), so that it is not taken for a store of files.
"""

import hashlib
import json
import logging
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pydicom import Dataset

from lobar.core.errors import InputError
from lobar.core.request import TRANSIENT_STATUSES
from lobar.storage import environment, objects, retry
from lobar.storage.filesystem import run_sync

PREFIX = "dicomweb+"
TOKEN, CERTIFICATE = "LOBAR_DICOMWEB_TOKEN", "LOBAR_DICOMWEB_CERTIFICATE"
INSTANCES_PER_SECOND = 5.0  # a server that stores fewer times out
ANSWERED = (200, 202, 409)  # all stored; some stored, or with warnings; none stored
# Failure and warning reasons: PS3.18, tables I.2-1 and I.2-2. The first pattern, of hex digits, decides
REASONS = {
    "0110": "processing failure", "0111": "duplicate", "0122": "SOP class not supported",
    "0124": "not authorized", "A7": "out of resources", "A9": "the data set does not match its SOP class",
    "B000": "elements coerced", "B006": "elements discarded", "B007": "does not match its SOP class",
    "C": "cannot understand",
}  # fmt: skip
# An instance of this UID is there. UIDs of reports are made of their content, so it is this one.
# 45070: the same, of Microsoft's server
THERE_ALREADY = (0x0111, 45070)
log = logging.getLogger(__name__)


# What json, and pydicom for other JSON than DICOM's, raise
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)


@dataclass
class Outcome:
    """What a server said of each instance, by its UID: why it is not stored, or what was changed."""

    failed: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)


class Archive:
    """A DICOMweb server by its URL, with the credentials of the environment.

    Raises InputError for a URL or a variable that no request could succeed with.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            parts = urlsplit(url.removeprefix(PREFIX))
            valid = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port that is no number
            valid = False
        if not valid or parts.query or parts.fragment:
            raise InputError(f"{url}: give {PREFIX}https://HOST/PATH of a DICOMweb server", setting="to")
        if parts.username or parts.password:
            host = f"{PREFIX}{parts.scheme}://{parts.hostname}"
            raise InputError(f"{host}: credentials in the URL; set {TOKEN} or {CERTIFICATE}", setting="to")
        environment.check(urlsplit(url).scheme)
        self._endpoint = f"{url.removeprefix(PREFIX).rstrip('/')}/studies"
        self._proxy = None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
        self._context = _context()
        self._authorization = _authorization()
        if self._authorization and parts.scheme == "http":
            log.warning("%s: the token is sent without encryption; use https", url)

    def store(self, instances: Mapping[str, bytes]) -> Outcome:
        """Send instances, DICOM files by their UID, in one request, which is repeated after transient faults.

        Raises InputError if the server rejects the request as a whole.
        """
        boundary = hashlib.sha256(b"".join(instances.values())).hexdigest()
        head = f"\r\n--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"".join(head + data for data in instances.values()) + f"\r\n--{boundary}--\r\n".encode()
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Accept": "application/dicom+json",
            **self._authorization,
        }
        seconds = len(body) / objects.BYTES_PER_SECOND + len(instances) / INSTANCES_PER_SECOND
        reply = run_sync(retry.with_retries(self.url, lambda: self._post(body, headers), seconds))
        return _outcome(self.url, *reply, instances)

    async def _post(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Status and body of the reply. Raises TransientError if another try may help."""
        import aiohttp

        connector = aiohttp.TCPConnector(ssl=self._context)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=retry.attempt_seconds())
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.post(
                self._endpoint, data=body, headers=headers, proxy=self._proxy, allow_redirects=False
            ) as reply,
        ):
            if reply.status in TRANSIENT_STATUSES:
                raise retry.TransientError(f"the server returned {reply.status}")
            return reply.status, await reply.read()


def _authorization() -> dict[str, str]:
    token = os.environ.get(TOKEN, "").strip()  # a secret made of a file often ends with a line break
    if token and not (token.isascii() and token.isprintable()):
        raise InputError(f"{TOKEN} has characters that cannot be in a token; set it to the token alone")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _context() -> ssl.SSLContext:
    """Checks the server's certificate, and has that of the client, if there is one."""
    context = ssl.create_default_context()
    if pem := os.environ.get(CERTIFICATE):
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # the only way in; mode 0600
            file.write(pem)
            file.flush()
            try:
                context.load_cert_chain(file.name, password="")  # else it would ask for one
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{CERTIFICATE} does not hold a certificate and its unencrypted key in PEM format "
                    f"({type(error).__name__})"
                ) from error
    return context


def _outcome(url: str, status: int, body: bytes, sent: Mapping[str, bytes]) -> Outcome:
    """What became of each instance. Raises InputError if the reply does not say so."""
    if status not in ANSWERED:
        raise InputError(f"{url}: {_rejection(status)}", setting="to")
    try:
        decoded = json.loads(body)
        reply = Dataset.from_json(decoded[0] if isinstance(decoded, list) else decoded)
        stored = {item.ReferencedSOPInstanceUID: item for item in reply.get("ReferencedSOPSequence", ())}
        failed = {item.ReferencedSOPInstanceUID: item for item in reply.get("FailedSOPSequence", ())}
    except UNREADABLE as error:
        if status == 409:
            return Outcome(failed=dict.fromkeys(sent, "the server returned 409 without a reason"))
        raise InputError(
            f"{url}: the reply to {status} is not DICOM JSON, so what is stored is not known; use a server "
            "that answers STOW-RS with application/dicom+json",
            setting="to",
        ) from error
    outcome = Outcome()
    for uid in sent:
        if uid in failed:
            if (reason := failed[uid].get("FailureReason")) not in THERE_ALREADY:
                outcome.failed[uid] = _reason(reason)
        elif uid not in stored:
            outcome.failed[uid] = "the server did not mention it"
        elif (warning := stored[uid].get("WarningReason")) is not None:
            outcome.warnings[uid] = _reason(warning)
    return outcome


def _reason(code: object) -> str:
    if not isinstance(code, int):  # a reply may hold anything
        return "no reason given"
    digits = f"{code:04X}"
    text = next((text for start, text in REASONS.items() if digits.startswith(start)), "unknown reason")
    return f"0x{digits}, {text}"


def _rejection(status: int) -> str:
    match status:
        case 401 | 403:
            return f"access denied ({status}); check {TOKEN} or {CERTIFICATE} and the rights of this client"
        case 404 | 405:
            return f"no STOW-RS there ({status}); check the path, such as /dicom-web"
        case 413:
            return "the server accepts only smaller requests (413); raise its limit to 2 MB"
    moved = "it redirects; give the URL that it redirects to" if 300 <= status < 400 else "see its log"
    return f"the server rejects the request with status {status}; {moved}"
