"""A function in worker processes: results and exceptions are returned, and a lost worker is survived."""

import multiprocessing.spawn
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

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
            os.write(2, b"DOE^JOHN")
    return None


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
    monkeypatch.setattr(multiprocessing.spawn, "get_executable", lambda: b"/bin/false")
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
    assert capfd.readouterr().err == ""
