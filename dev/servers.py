"""Stores on loopback, for `make run STORE=…` and for the tests.

SeaweedFS (s3) and MinIO (minio) are real S3 servers; fake-gcs-server (gcs) and Azurite (azure) are emulators.

python -m dev.servers s3|minio|gcs|azure FOLDER [-- COMMAND …]
"""

import fcntl
import os
import random
import secrets
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, cast, get_args

import typer
from azure.core.exceptions import AzureError
from botocore.exceptions import BotoCoreError, ClientError

from dev import processes, stores
from dev.stores import BUCKET, Kind
from lobar.core import console
from lobar.core.errors import InputError, OutsideError

LOG = "server.log"
READY_SECONDS = 60.0
OTHER_STORES = ("AWS_", "AZURE_", "FSSPEC_", "GOOGLE_", "STORAGE_EMULATOR_HOST")


@dataclass(frozen=True)
class Server:
    """A running server: its endpoint, the URL of its web console if it has one, its keys, its process."""

    kind: Kind
    endpoint: str
    console: str
    access_key: str
    secret_key: str = field(repr=False)
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def root(self) -> str:
        """The URL of the server's bucket."""
        return f"{stores.SCHEMES[self.kind]}://{BUCKET}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that point a driver to the server."""
        return self.environment_at(self.endpoint)

    def environment_at(self, endpoint: str) -> dict[str, str]:
        """The same for another endpoint, such as that of a proxy."""
        return stores.environment(self.kind, endpoint, self.access_key, self.secret_key)


@contextmanager
def serve(kind: Kind, folder: Path, port: int = 0, keys: tuple[str, str] | None = None) -> Iterator[Server]:
    """Run a server with its data and log in `folder`, ready to accept requests, with the bucket `lobar`.

    `port` 0 chooses a free one; `keys` are access and secret key, random by default. The data stays in the
    folder for the next server there. The server ends with the thread that started it, even if that is killed.
    Raises InputError if the server's program is missing or the folder cannot be used, OutsideError if another
    server uses the folder or this one does not start.
    """
    access_key, secret_key = keys or (secrets.token_hex(10), secrets.token_hex(20))
    ports = free_ports(len(stores.SEAWEEDFS_PORTS), port)
    folder = folder.absolute()
    with _locked_log(folder) as log:
        command, environment = stores.command(kind, folder, ports, access_key, secret_key)
        # not the caller's environment, from which servers would read settings and keys
        environment |= {"HOME": str(folder)}
        try:
            command = processes.ends_with_parent(command)
            with processes.started(command, environment, stores.GRACE_SECONDS[kind], log) as process:
                log.close()  # the server has inherited the lock and holds it until it ends
                urls = [f"http://127.0.0.1:{number}" for number in ports]
                browser = {"s3": f"{urls[1]}/buckets/", "minio": urls[1]}.get(kind, "")
                server = Server(kind, urls[0], browser, access_key, secret_key, process)
                _wait_until_ready(server, folder / LOG)
                yield server
        finally:
            for number in ports:  # SeaweedFS does not remove its sockets
                for leftover in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                    leftover.unlink(missing_ok=True)


def make_bucket(server: Server, name: str = BUCKET) -> None:
    """Make a bucket unless it exists."""
    stores.make_bucket(server.kind, server.environment, name)


def _locked_log(folder: Path) -> IO[bytes]:
    """The server log in a folder, locked so that the folder has only one server."""
    try:
        (folder / "data").mkdir(parents=True, exist_ok=True)
        log = (folder / LOG).open("ab")
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutsideError(f"{folder}: another server is using this folder; stop it first") from error
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}; choose another folder") from error
    return log


def free_ports(count: int, first: int = 0) -> list[int]:
    """Free ports, starting with `first` unless that is 0.

    They are below the kernel's range for outgoing connections. Otherwise a client that retries a stopped
    server could get the server's own port for its side, and connect to itself.
    """
    ports = [first] if first else []
    with ExitStack() as listeners:
        while len(ports) < count:
            listener = listeners.enter_context(socket.socket())
            port = random.randrange(10_000, 32_768)
            with suppress(OSError):
                listener.bind(("127.0.0.1", port))
                ports += [port] if port != first else []
    return ports


def _wait_until_ready(server: Server, log: Path) -> None:
    """Return once the server has stored an object; raise OutsideError if it ends or takes too long."""
    until = time.monotonic() + READY_SECONDS
    while True:
        status = server.process.poll()
        try:
            make_bucket(server)
            return
        except (OSError, AzureError, BotoCoreError, ClientError) as error:
            reason = str(error) if status is None else f"exit status {status}"
        if status is not None or time.monotonic() > until:
            tail = " | ".join(log.read_text(errors="replace").splitlines()[-5:])
            raise OutsideError(f"{server.kind}: the server did not start: {reason}; end of {log}: {tail}")
        time.sleep(0.05)


def _serve_until_stopped(server: Server, stop: processes.Stop) -> None:
    """Print how to use the server, and return when a signal is received."""
    console = f" Web console: {server.console}" if server.console else ""
    print(f"{server.kind} server with the bucket {BUCKET}; Ctrl-C stops it.{console}")
    print("In another shell:")
    print(
        "\n".join(f"  export {name}={shlex.quote(value)}" for name, value in server.environment.items()),
        flush=True,
    )
    while not stop.signum:
        if (status := server.process.poll()) is not None:
            raise OutsideError(f"{server.kind}: the server ended unexpectedly with status {status}")
        time.sleep(processes.POLL_SECONDS)


def main(
    kind: Annotated[str, typer.Argument(help="s3 (SeaweedFS), minio, gcs or azure")],
    folder: Annotated[Path, typer.Argument(help="folder for the server's data and log")],
    command: Annotated[
        list[str] | None, typer.Argument(help="command to run with the server's variables")
    ] = None,
) -> None:
    """Start a store on loopback and run COMMAND; exit with its status. Without COMMAND, until Ctrl-C."""
    if kind not in get_args(Kind):
        raise InputError(f"{kind}: no such server; choose {', '.join(get_args(Kind))}")
    for name in [name for name in os.environ if name.startswith(OTHER_STORES)]:
        del os.environ[name]  # settings of another store
    stop = processes.Stop()
    with serve(cast(Kind, kind), folder) as server:
        if command:
            raise SystemExit(processes.run(command, os.environ | server.environment, stop))
        _serve_until_stopped(server, stop)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    sys.exit(console.run_job(app, "python -m dev.servers"))
