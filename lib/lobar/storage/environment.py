"""What each kind of store reads from the environment: names for messages, and a check before any request."""

import os
import ssl
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from lobar.core.errors import InputError


@dataclass(frozen=True)
class Variables:
    """The variables for credentials, for the place of the store, and for the certificates to trust."""

    credentials: str = "the store's variables"
    place: str = "the URL"
    certificates: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()


S3 = Variables(
    credentials="AWS_*",
    place="AWS_DEFAULT_REGION or AWS_ENDPOINT_URL",
    certificates=("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"),
    endpoints=("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "FSSPEC_S3_ENDPOINT_URL"),
)
GOOGLE = Variables(
    credentials="GOOGLE_APPLICATION_CREDENTIALS, or the pod's service account",
    place="STORAGE_EMULATOR_HOST",
    certificates=("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),  # requests to storage, requests for tokens
    endpoints=("STORAGE_EMULATOR_HOST",),
)
AZURE = Variables(
    credentials="AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME with "
    "AZURE_STORAGE_ACCOUNT_KEY or the pod's workload identity",
    place="AZURE_STORAGE_CONNECTION_STRING",
    certificates=("SSL_CERT_FILE",),
)
DICOMWEB = Variables(
    credentials="LOBAR_DICOMWEB_TOKEN or LOBAR_DICOMWEB_CERTIFICATE", certificates=("SSL_CERT_FILE",)
)
STORES = {
    "dicomweb+https": DICOMWEB,
    "dicomweb+http": DICOMWEB,
    "s3": S3,
    "s3a": S3,
    "gs": GOOGLE,
    "gcs": GOOGLE,
    "abfs": AZURE,
    "abfss": AZURE,
    "az": AZURE,
}


def names(url: str) -> dict[str, str]:
    """Names of variables for a message about an object: `credentials`, `place` and `certificates`."""
    variables = STORES.get(url.partition("://")[0], Variables())
    return asdict(variables) | {"certificates": next(iter(variables.certificates), "SSL_CERT_FILE")}


def check(scheme: str) -> None:
    """Raise InputError if a variable of this kind of store has a value that no request could succeed with."""
    variables = STORES.get(scheme, Variables())
    for name in variables.endpoints:
        if value := os.environ.get(name):
            _check_endpoint(name, value)
    for name in variables.certificates:
        if value := os.environ.get(name):
            check_certificates(name, value)


def _check_endpoint(name: str, value: str) -> None:
    example = f"give http:// or https://, a host and a port, such as http://{value.rpartition('/')[2]}"
    # gcsfs adds http:// itself
    url = f"http://{value}" if name == "STORAGE_EMULATOR_HOST" and "://" not in value else value
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise InputError(f"{name} is {value!r}: {example}")


def check_certificates(name: str, value: str) -> None:
    """Raise InputError if the value of this setting is not a file with certificates."""
    try:
        ssl.create_default_context(cafile=value)
    except OSError as error:  # also ssl.SSLError
        reason = error.strerror or str(error)
        raise InputError(
            f"{name} is {value!r}: {reason}; name a file with certificates in PEM format"
        ) from error
