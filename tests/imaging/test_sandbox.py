"""A function in worker processes: results and exceptions are returned, and a lost worker is survived."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lobar.core.errors import OutsideError
from lobar.imaging.dicom import RejectedImage
from lobar.imaging.sandbox import WorkerLostError, Workers

MEMORY = 64 << 20


def work(what: str, number: int = 0) -> object:
    """The function of the workers."""
    match what:
        case "process":
            return os.getpid()
        case "double":
            return 2 * number
        case "hang":
            time.sleep(60)
        case "crash":
            os.abort()
        case "exit":
            os._exit(3)
        case "allocate":
            return float(np.ones(number, np.uint8).sum())
        case "reject":
            raise RejectedImage("this kind is not supported")
        case "print":
            os.write(1, b"DOE^JOHN")
            os.write(2, b"DOE^JOHN")
        case "be killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "read environments":
            files = [f"/proc/{process}/environ" for process in ("self", number)]
            return [_read(file) for file in files] + [dict(os.environ)]
        case "open a socket":
            with socket.socket(socket.AF_INET) as opened:
                opened.connect(("127.0.0.1", number))
    return None


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except PermissionError:
        return b"not permitted"


def killed_the_first_time(marker: Path) -> str:
    """The function of other workers."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


@pytest.fixture
def workers() -> Iterator[Workers[..., object]]:
    with Workers(work, seconds=3, memory=MEMORY) as workers:
        assert workers("double", number=4) == 8  # so that its start does not count towards the limits
        yield workers


def test_a_process_is_reused_and_ended_with_the_block() -> None:
    with Workers(work, seconds=20, memory=MEMORY) as workers:
        pid = workers("process")
        assert pid == workers("process") != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(int(str(pid)), 0)


def test_each_thread_has_its_own_process() -> None:
    with Workers(work, seconds=20, memory=MEMORY) as workers, ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda n: workers("double", n), range(20))) == list(range(0, 40, 2))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("hang", r"took more than 3 seconds"),
        ("crash", r"died \(SIGABRT\)"),
        ("exit", r"died \(exit status 3\)"),
        ("allocate", "needed more than 64 MiB of memory"),
    ],
)
def test_a_lost_worker_is_reported_and_the_next_call_works(
    workers: Workers[..., object], what: str, message: str
) -> None:
    with pytest.raises(WorkerLostError, match=message):
        workers(what, 3 * MEMORY)
    assert workers("double", 4) == 8


def test_a_process_that_cannot_start_is_not_blamed_on_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its interpreter ends before it is ready."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with (
        Workers(work, seconds=20, memory=MEMORY) as workers,
        pytest.raises(OutsideError, match=r"a decoder process ended while starting \(exit status 1\)"),
    ):
        workers("double", 4)


def test_exceptions_of_the_function_are_raised(workers: Workers[..., object]) -> None:
    with pytest.raises(RejectedImage, match="this kind is not supported"):
        workers("reject")


def test_memory_within_the_limit_can_be_used_in_every_call(workers: Workers[..., object]) -> None:
    for _ in range(5):
        assert workers("allocate", MEMORY // 2) == MEMORY // 2


def test_native_messages_are_not_shown(
    workers: Workers[..., object], capfd: pytest.CaptureFixture[str]
) -> None:
    workers("print")
    assert capfd.readouterr() == ("", "")


def test_a_process_that_something_else_kills_is_tried_again_and_the_file_is_not_rejected(
    workers: Workers[..., object], tmp_path: Path
) -> None:
    """The kernel does so if a pod's memory is exhausted."""
    with pytest.raises(OutsideError, match=r"killed twice \(SIGKILL\), probably because memory"):
        workers("be killed")
    assert workers("double", 4) == 8
    with Workers(killed_the_first_time, seconds=20, memory=MEMORY) as others:
        assert others(tmp_path / "marker") == "done"


def test_a_worker_cannot_read_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in its own environment nor in those of other processes of the same user."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    with Workers(work, seconds=20, memory=MEMORY) as workers:
        own, parents, variables = workers("read environments", os.getpid())  # type: ignore[misc]
    assert b"PATH=" not in own
    assert parents == b"not permitted"
    assert not [name for name in variables if name.startswith("AWS_")]


def test_a_worker_has_no_network(workers: Workers[..., object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(PermissionError):
        workers("open a socket", server.getsockname()[1])


ATTEMPTS = """
import os, socket, subprocess, sys
from lobar.imaging import isolation
if sys.argv[2] == "parent":
    sys.exit(subprocess.run([sys.executable, *sys.orig_argv[1:-1], "child"]).returncode)
{disabled}
isolation.isolate()
for attempt in (
    lambda: socket.socket(socket.AF_INET).connect(("127.0.0.1", int(sys.argv[1]))),
    lambda: open(f"/proc/{{os.getppid()}}/environ"),
):
    try:
        attempt()
        print("succeeded")
    except OSError as error:
        print(type(error).__name__)
"""


@pytest.mark.parametrize(
    ("disabled", "outcomes"),
    [
        ("isolation.CLONE_NEWUSER = isolation.CLONE_NEWNET = 0", ["PermissionError", "PermissionError"]),
        ("isolation.FORBIDDEN = {}; isolation.LANDLOCK_CREATE_RULESET = -1", ["OSError", "PermissionError"]),
        ("isolation.isolate = print", ["", "succeeded", "succeeded"]),
    ],
    ids=["without namespaces", "namespaces only", "neither"],
)
def test_namespaces_are_enough_and_so_are_seccomp_and_landlock(disabled: str, outcomes: list[str]) -> None:
    """A pod's seccomp profile does not allow namespaces; other kernels have no Landlock."""
    script = ATTEMPTS.format(disabled=disabled)
    ordinary = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [*ordinary, sys.executable, "-c", script, str(server.getsockname()[1]), "parent"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == outcomes


def test_no_process_survives_its_parent(tmp_path: Path) -> None:
    """Even if the parent is killed while a decoder hangs."""
    script = f"""
import threading, time
from pathlib import Path
from lobar.imaging.sandbox import Workers
from tests.imaging.test_sandbox import sleep
with Workers(sleep, 60, {MEMORY}) as workers:
    workers(Path({str(tmp_path / "pid")!r}))
"""
    parent = subprocess.Popen([sys.executable, "-c", script])
    while not (tmp_path / "pid").exists():
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if _state(pid) in ("", "Z"):
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} is alive")


def sleep(file: Path) -> None:
    """The function of a worker that is left alone."""
    file.with_suffix(".part").write_text(str(os.getpid()))
    file.with_suffix(".part").rename(file)
    time.sleep(60)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ")[1][0]
    except FileNotFoundError:
        return ""
