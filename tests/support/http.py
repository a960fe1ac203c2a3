"""An HTTP or HTTPS server on loopback that answers as a test says."""

import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True)
class Request:
    """What a client sent; `path` includes the query."""

    method: str
    path: str
    headers: Message
    body: bytes


@dataclass(frozen=True)
class Server:
    """A running server; `certificate` is also the authority that signed it."""

    port: int
    certificate: Path

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"


@contextmanager
def serve(
    answer: Callable[[Request], tuple[int, bytes]], folder: Path, clients: Path | None = None
) -> Iterator[Server]:
    """An HTTPS server whose certificate is in `folder`; `answer` returns status and body of each reply.

    With `clients`, a file with a certificate, it lets only a client that has this one connect.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, reply = answer(Request(self.command, self.path, self.headers, body))
            self.send_response(status)
            self.send_header("Content-Length", str(len(reply)))
            if 300 <= status < 400:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(reply)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    certificate = self_signed(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    listener.socket = context.wrap_socket(listener.socket, server_side=True)
    threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield Server(listener.server_port, certificate)
    finally:
        listener.shutdown()
        listener.server_close()


def self_signed(folder: Path) -> Path:
    """A new certificate for 127.0.0.1 with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False).sign(
        key, hashes.SHA256()
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path = folder / "certificate.pem"
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(private + certificate.public_bytes(encoding))
    return path
