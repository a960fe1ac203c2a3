"""A function in a process of its own: what it returns and raises comes back, and its death is survived."""

import multiprocessing.spawn
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lobar.core.errors import OutsideError
from lobar.imaging.dicom import RejectedImage
from lobar.imaging.sandbox import LostError, Workers

MEMORY = 64 << 20


def work(what: str, number: int = 0) -> object:
    """What the worker is asked to do."""
    match what:
        case "process":
            return os.getpid()
        case "double":
            return 2 * number
        case "hang":
            time.sleep(60)
        case "crash":
            os.abort()
        case "leave":
            os._exit(3)
        case "balloon":
            return float(np.ones(number, np.uint8).sum())
        case "reject":
            raise RejectedImage("of this kind none is read")
        case "say":
            os.write(2, b"DOE^JOHN")
    return None


@pytest.fixture
def workers() -> Iterator[Workers[..., object]]:
    with Workers(work, seconds=3, memory=MEMORY) as workers:
        assert workers("double", number=4) == 8  # its start is not counted
        yield workers


def test_a_process_is_used_again_and_gone_at_the_end() -> None:
    with Workers(work, seconds=20, memory=MEMORY) as workers:
        found = workers("process")
        assert found == workers("process") != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(int(str(found)), 0)


def test_threads_have_a_process_each() -> None:
    with Workers(work, seconds=20, memory=MEMORY) as workers, ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda n: workers("double", n), range(20))) == list(range(0, 40, 2))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("hang", r"takes more than 3 seconds"),
        ("crash", r"died \(SIGABRT\)"),
        ("leave", r"died \(exit status 3\)"),
        ("balloon", "wants more than 64 MiB of memory"),
    ],
)
def test_what_happens_to_it_is_said_and_the_next_call_works(
    workers: Workers[..., object], what: str, said: str
) -> None:
    with pytest.raises(LostError, match=said):
        workers(what, 3 * MEMORY)
    assert workers("double", 4) == 8


def test_a_process_that_cannot_start_is_no_fault_of_what_it_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its interpreter ends before it has answered."""
    monkeypatch.setattr(multiprocessing.spawn, "get_executable", lambda: b"/bin/false")
    with (
        Workers(work, seconds=20, memory=MEMORY) as workers,
        pytest.raises(OutsideError, match=r"a decoder's process ended at its start \(exit status 1\)"),
    ):
        workers("double", 4)


def test_its_own_errors_come_back(workers: Workers[..., object]) -> None:
    with pytest.raises(RejectedImage, match="of this kind none is read"):
        workers("reject")


def test_memory_within_the_limit_is_given_call_after_call(workers: Workers[..., object]) -> None:
    for _ in range(5):
        assert workers("balloon", MEMORY // 2) == MEMORY // 2


def test_what_native_code_says_is_not_shown(
    workers: Workers[..., object], capfd: pytest.CaptureFixture[str]
) -> None:
    workers("say")
    assert capfd.readouterr().err == ""
