"""Wrong environment variables of a store are named in one line; certificates count for every request."""

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dev.servers import Server
from lobar.core.errors import InputError
from lobar.storage import filesystem, objects
from tests.support.proxy import Proxy
from tests.support.stores import use_server


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable of a store is set, and drivers are made again."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "STORAGE_"))]:
        monkeypatch.delenv(name)
    filesystem._filesystem.cache_clear()
    yield
    filesystem._filesystem.cache_clear()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new self-signed certificate for 127.0.0.1 with its key, in PEM format."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    file.write_bytes(made.public_bytes(encoding) + private)
    return file


@pytest.mark.parametrize(
    ("url", "variable", "value"),
    [
        *(
            ("s3://b/x", variable, value)
            for variable in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
            for value in ("127.0.0.1:9000", "minio:9000", "//minio", "ftp://m", "https://", "http://h:999999")
        ),
        ("gs://b/x", "STORAGE_EMULATOR_HOST", "ftp://127.0.0.1"),
    ],
)  # fmt: skip
def test_an_endpoint_that_is_no_web_address_is_named(
    url: str, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError) as raised:
        objects.read(url)
    assert str(raised.value).startswith(f"{variable} is {value!r}: give http:// or https://")


@pytest.mark.parametrize(
    ("url", "variable"),
    [
        ("s3://b/x", "AWS_CA_BUNDLE"),
        ("s3://b/x", "REQUESTS_CA_BUNDLE"),
        ("gs://b/x", "SSL_CERT_FILE"),
        ("abfs://b/x", "SSL_CERT_FILE"),
    ],
)
def test_certificates_that_cannot_be_read_are_named(
    url: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.pem").touch()
    for name, reason in (("absent.pem", "No such file"), ("empty.pem", ""), ("", "")):
        monkeypatch.setenv(variable, str(tmp_path / name))
        with pytest.raises(InputError) as raised:
            objects.read(url)
        assert str(raised.value).startswith(f"{variable} is '{tmp_path / name}': {reason}")
        assert str(raised.value).endswith("; name a file with certificates in PEM format")


@pytest.mark.parametrize(
    ("url", "variables", "message"),
    [
        ("s3://b/x", {"AWS_PROFILE": "other"}, r"profile \(other\) could not be found; .*\(AWS_\*\)"),
        ("gs://b/x", {"GOOGLE_APPLICATION_CREDENTIALS": "/absent.json"}, "/absent.json.*GOOGLE_APPLICATION"),
        ("abfs://b/x", {}, "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME"),
        ("abfs://b/x", {"AZURE_STORAGE_CONNECTION_STRING": "secret=1"}, "AZURE_STORAGE_CONNECTION_STRING"),
        ("abfs://c@account.dfs.core.windows.net/x", {"AZURE_STORAGE_ACCOUNT_NAME": "a"}, "abfs://CONTAINER/PATH"),
    ],
)  # fmt: skip
def test_wrong_settings_name_the_variables_of_the_store(
    url: str, variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message) as raised:
        objects.read(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("kind", ["s3", "gcs", "azure"])
def test_a_certificate_counts_only_if_it_is_trusted(
    kind: str, certificate: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listings go through the driver, and bulk reads from S3 through presigned URLs."""
    server: Server = request.getfixturevalue(f"{kind}_server")
    variable = "AWS_CA_BUNDLE" if kind == "s3" else "SSL_CERT_FILE"
    with use_server(server.environment):
        objects.publish(f"{server.root}/tls/x", b"content")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with Proxy(server.endpoint, context) as proxy:
        variables = server.environment_at(proxy.endpoint)
        with (
            use_server(variables),
            pytest.raises(InputError, match=f"not trusted .*; set {variable} to a file"),
        ):
            objects.list_objects(f"{server.root}/tls")
        code = (
            "from lobar.storage import objects; "
            f"print([body for _, body in objects.read_many(objects.list_objects('{server.root}/tls'))])"
        )  # in a process of its own: aiohttp reads SSL_CERT_FILE when it is imported
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | variables | {variable: str(certificate)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.stdout, done.stderr) == ("[b'content']\n", "")
