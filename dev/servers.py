"""Real S3 servers on loopback, for `make run STORE=…` and for the tests: SeaweedFS (s3) and MinIO (minio).

python -m dev.servers s3|minio FOLDER [-- COMMAND …]
"""

import fcntl
import json
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any, Literal, cast, get_args

import typer
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

from dev import processes
from lobar.core import console
from lobar.core.errors import InputError, OutsideError

Kind = Literal["s3", "minio"]
BUCKET = "lobar"
LOG = "server.log"
REGION = "us-east-1"  # the default of both servers
READY_SECONDS = 60.0
# SeaweedFS would wait 17 s for peers that do not exist; its data is on disk before that
GRACE_SECONDS = {"s3": 0.5, "minio": 10.0}
SEAWEEDFS_PORTS = ("s3.port", "filer.port", "s3.port.grpc", "filer.port.grpc", "master.port",
                   "master.port.grpc", "volume.port", "volume.port.grpc")  # fmt: skip


@dataclass(frozen=True)
class Server:
    """A running server: its S3 endpoint, the URL of its web console, its access keys, its process."""

    kind: Kind
    endpoint: str
    console: str
    access_key: str
    secret_key: str = field(repr=False)
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that point s3fs and botocore to the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,  # the variable that botocore reads
            "AWS_EC2_METADATA_DISABLED": "true",
            "no_proxy": "127.0.0.1",
        }


@contextmanager
def serve(kind: Kind, folder: Path, port: int = 0, keys: tuple[str, str] | None = None) -> Iterator[Server]:
    """Run a server with its data and log in `folder`, ready to accept requests, with the bucket `lobar`.

    `port` 0 chooses a free one; `keys` are access and secret key, random by default. The data stays in the
    folder for the next server there. The server ends with the thread that started it, even if that is killed.
    Raises InputError if the server's program is missing or the folder cannot be used, OutsideError if another
    server uses the folder or this one does not start.
    """
    access_key, secret_key = keys or (secrets.token_hex(10), secrets.token_hex(20))
    ports = _ports(port)
    folder = folder.absolute()
    # not the caller's environment, from which both servers would read settings and keys
    environment = {"HOME": str(folder)}
    with _locked_log(folder) as log:
        if kind == "s3":
            command = _seaweedfs(folder, ports, access_key, secret_key)
        else:
            command = _minio(folder, ports)
            environment |= {"MINIO_ROOT_USER": access_key, "MINIO_ROOT_PASSWORD": secret_key}
            environment |= {"MINIO_UPDATE": "off"}
        try:
            command = processes.ends_with_parent(command)
            with processes.started(command, environment, GRACE_SECONDS[kind], log) as process:
                log.close()  # the server has inherited the lock and holds it until it ends
                urls = [f"http://127.0.0.1:{number}" for number in ports]
                browser = urls[1] + ("/buckets/" if kind == "s3" else "")
                server = Server(kind, urls[0], browser, access_key, secret_key, process)
                _wait_until_ready(server, folder / LOG)
                yield server
        finally:
            for number in ports:  # SeaweedFS does not remove its sockets
                for leftover in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                    leftover.unlink(missing_ok=True)


def make_bucket(server: Server, name: str = BUCKET) -> None:
    """Make a bucket unless it exists."""
    _make_bucket(_client(server), name)


def find_minio() -> Path | None:
    """MinIO's program: on PATH, else where `make minio` builds it, else None."""
    program = shutil.which("minio") or shutil.which(Path(__file__).parents[1] / ".tools/minio")
    return Path(program) if program else None


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


def _seaweedfs(folder: Path, ports: Sequence[int], access_key: str, secret_key: str) -> list[str]:
    """The command line of SeaweedFS: its S3 gateway with the master, volume and filer servers it needs."""
    program = Path(sys.executable).with_name("weed")
    if not program.exists():
        raise InputError(f"{program}: SeaweedFS is not installed; run make install")
    identity = {"name": BUCKET, "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"]}  # fmt: skip
    config = folder / "s3.json"
    config.unlink(missing_ok=True)
    config.touch(mode=0o600)
    config.write_text(json.dumps({"identities": [identity]}))
    return [
        str(program), "-logtostderr=true", "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1", "-master.telemetry=false", "-master.peers=none",
        "-master.volumeSizeLimitMB=128", "-volume.max=200", "-s3", f"-s3.config={config}",
        "-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
        *(f"-{name}={port}" for name, port in zip(SEAWEEDFS_PORTS, ports, strict=True)),
    ]  # fmt: skip


def _minio(folder: Path, ports: Sequence[int]) -> list[str]:
    program = find_minio()
    if program is None:
        raise InputError("no minio on PATH or in .tools; run make minio (requires Go), or use s3 instead")
    addresses = ["--address", f"127.0.0.1:{ports[0]}", "--console-address", f"127.0.0.1:{ports[1]}"]
    return [str(program), "server", str(folder / "data"), *addresses]


def _ports(first: int) -> list[int]:
    """As many free ports as SeaweedFS needs, starting with `first` unless that is 0.

    They are below the kernel's range for outgoing connections. Otherwise a client that retries a stopped
    server could get the server's own port for its side, and connect to itself.
    """
    ports = [first] if first else []
    with ExitStack() as listeners:
        while len(ports) < len(SEAWEEDFS_PORTS):
            listener = listeners.enter_context(socket.socket())
            port = random.randrange(10_000, 32_768)
            with suppress(OSError):
                listener.bind(("127.0.0.1", port))
                ports += [port] if port != first else []
    return ports


def _client(server: Server) -> Any:
    settings = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10, proxies={})
    return Session().create_client(
        "s3", REGION, endpoint_url=server.endpoint, aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key, config=settings,
    )  # fmt: skip


def _make_bucket(client: Any, name: str) -> None:
    if name not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=name)


def _wait_until_ready(server: Server, log: Path) -> None:
    """Return once the server has stored an object; raise OutsideError if it ends or takes too long."""
    client, until = _client(server), time.monotonic() + READY_SECONDS
    probe = {"Bucket": BUCKET, "Key": ".ready"}
    while True:
        status = server.process.poll()
        try:
            # SeaweedFS lists buckets seconds before it can write to its volumes
            _make_bucket(client, BUCKET)
            client.put_object(**probe, Body=b"ready")
            client.delete_object(**probe)
            return
        except (BotoCoreError, ClientError) as error:
            reason = str(error) if status is None else f"exit status {status}"
        if status is not None or time.monotonic() > until:
            tail = " | ".join(log.read_text(errors="replace").splitlines()[-5:])
            raise OutsideError(f"{server.kind}: the server did not start: {reason}; end of {log}: {tail}")
        time.sleep(0.05)


def _serve_until_stopped(server: Server, stop: processes.Stop) -> None:
    """Print how to use the server, and return when a signal is received."""
    print(f"{server.kind} server with the bucket {BUCKET}; Ctrl-C stops it. Web console: {server.console}")
    print("In another shell:")
    print("\n".join(f"  export {name}={value}" for name, value in server.environment.items()), flush=True)
    while not stop.signum:
        if (status := server.process.poll()) is not None:
            raise OutsideError(f"{server.kind}: the server ended unexpectedly with status {status}")
        time.sleep(processes.POLL_SECONDS)


def main(
    kind: Annotated[str, typer.Argument(help="s3 (SeaweedFS) or minio")],
    folder: Annotated[Path, typer.Argument(help="folder for the server's data and log")],
    command: Annotated[
        list[str] | None, typer.Argument(help="command to run with the server's variables")
    ] = None,
) -> None:
    """Start an S3 server on loopback and run COMMAND; exit with its status. Without COMMAND, until Ctrl-C."""
    if kind not in get_args(Kind):
        raise InputError(f"{kind}: no such server; choose {' or '.join(get_args(Kind))}")
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_S3"))]:
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
