"""The stores of tests and `make run`: data persists, keys are checked, and no process is left running."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.session import Session

from dev.servers import BUCKET, LOG, Server, make_bucket, serve
from lobar.core.errors import OutsideError
from lobar.storage import objects
from tests.support.stores import use_server

LOOPBACK = {"0100007F", "00000000000000000000000001000000"}  # 127.0.0.1 and ::1 as /proc/net writes them
DEV_SERVERS = [sys.executable, "-m", "dev.servers"]
SLEEPER = f"{sys.executable} -c 'import time; time.sleep(60)' $0"


@pytest.fixture(params=["s3_server", "minio_server"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each of the S3 servers."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["s3_server", "minio_server", "gcs_server", "azure_server"])
def any_server(request: pytest.FixtureRequest) -> Server:
    """Each of the servers."""
    return request.getfixturevalue(request.param)


def client(server: Server, secret_key: str | None = None) -> Any:
    return Session().create_client(
        "s3", "us-east-1", endpoint_url=server.endpoint, aws_access_key_id=server.access_key,
        aws_secret_access_key=secret_key or server.secret_key,
    )  # fmt: skip


def commands(folder: Path) -> Iterator[str]:
    """The command lines, of all running processes, that contain `folder`."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(folder) in command:
            yield command


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Runs a shell command with a server on tmp_path, which is the command's $0."""
    processes = []

    def start(line: str) -> subprocess.Popen[str]:
        command = [*DEV_SERVERS, "s3", str(tmp_path), "--", "sh", "-c", line, str(tmp_path)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.terminate()
        process.communicate()


def test_objects_survive_a_killed_server(server: Server, tmp_path: Path) -> None:
    with serve(server.kind, tmp_path) as first:
        make_bucket(first, "kept")
        client(first).put_object(Bucket="kept", Key="a/b", Body=b"content")
        first.process.kill()
        first.process.wait()
        port = int(first.endpoint.rpartition(":")[2])
        with serve(server.kind, tmp_path, port, (first.access_key, first.secret_key)) as second:
            assert second.environment == first.environment
            assert client(first).get_object(Bucket="kept", Key="a/b")["Body"].read() == b"content"
            make_bucket(second, "kept")


def test_wrong_keys_are_rejected(server: Server) -> None:
    assert BUCKET in [bucket["Name"] for bucket in client(server).list_buckets()["Buckets"]]
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        client(server, "0" * 40).list_buckets()


def test_keys_are_neither_in_the_command_line_nor_in_the_log(server: Server) -> None:
    process = Path(f"/proc/{server.process.pid}")
    command, log = (process / "cmdline").read_text(), (process / "fd/1").read_text()
    assert "server" in command
    assert log
    assert server.access_key not in command + log
    assert server.secret_key not in command + log + repr(server)
    for config in re.findall("s3.config=([^\0]*)", command):
        assert Path(config).stat().st_mode & 0o777 == 0o600


def test_servers_listen_only_on_loopback(any_server: Server) -> None:
    process = Path(f"/proc/{any_server.process.pid}")
    sockets = {str(file.readlink()) for file in (process / "fd").iterdir()}
    rows = [row.split() for table in ("tcp", "tcp6") for row in (process / "net" / table).open()]
    hosts = {row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}
    assert hosts
    assert hosts <= LOOPBACK


def test_a_folder_has_only_one_server(any_server: Server) -> None:
    # a second one would write to the same files
    folder = Path(f"/proc/{any_server.process.pid}/fd/1").readlink().parent
    with (
        pytest.raises(OutsideError, match="another server is using this folder"),
        serve(any_server.kind, folder),
    ):
        pass


@pytest.mark.parametrize("kind", ["gcs", "azure"])
def test_an_emulator_that_is_stopped_keeps_its_objects(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    kept: Server = request.getfixturevalue(f"{kind}_server")  # skips if there is no such program
    url = f"{kept.root}/kept/a"
    with serve(kept.kind, tmp_path) as first, use_server(first.environment):
        objects.publish(url, b"content")
        keys = (first.access_key, first.secret_key)
    with serve(kept.kind, tmp_path, keys=keys) as second, use_server(second.environment):
        assert objects.read(url) == b"content"


def test_the_command_gets_the_servers_variables_and_its_status_is_returned(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    line = "import fsspec; fsspec.filesystem('s3').pipe('lobar/x', b'1'); raise SystemExit(7)"
    process = started(f'{SLEEPER} >/dev/null 2>&1 & {sys.executable} -c "{line}"')
    _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (7, "")
    assert (tmp_path / LOG).exists()
    assert [*commands(tmp_path)] == []


def test_a_signal_ends_the_command_and_the_server(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    process = started(f"echo up; {SLEEPER}; true")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 75
    assert stderr == "error: interrupted (SIGTERM); run the same command again to continue\n"
    assert [*commands(tmp_path)] == []


def test_a_server_ends_when_its_caller_is_killed(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    process = started("echo up; sleep 3")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    ports = re.findall(r"port(?:\.grpc)?=(\d+)", " ".join(commands(tmp_path)))
    process.kill()
    until = time.monotonic() + 10
    while any("weed" in command for command in commands(tmp_path)) and time.monotonic() < until:
        time.sleep(0.05)
    for socket in (path for port in ports for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")):
        socket.unlink()
    assert time.monotonic() < until


def test_an_unknown_kind_is_rejected(tmp_path: Path) -> None:
    command = [*DEV_SERVERS, "nfs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: nfs: no such server; choose s3, minio, gcs, azure\n"
