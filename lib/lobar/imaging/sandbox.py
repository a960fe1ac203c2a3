"""Run a function in processes of its own, each call within limits of time and memory.

For native decoders that a damaged file can hang, crash or make ask for all memory: the process dies, and
the one that called goes on.
"""

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

from lobar.core.errors import OutsideError

PAGE = os.sysconf("SC_PAGE_SIZE")
START_SECONDS = 60.0
A = ParamSpec("A")
R = TypeVar("R")


class LostError(Exception):
    """A call's process gave no result; the text says why."""


class Workers(Generic[A, R]):
    """Call it as the function itself, from any thread: a call goes to an idle process or to a new one.

    The function is importable, its arguments and result can be pickled; `seconds` and `memory` (bytes beyond
    what the process has at its start) are what one call may take. An exception of the function is raised
    here; LostError where it hangs, dies, or wants more memory; OutsideError where no process can be started.
    """

    def __init__(self, function: Callable[A, R], seconds: float, memory: int) -> None:
        self._function = function
        self._seconds = seconds
        self._memory = memory
        self._idle: list[_Worker] = []

    def __enter__(self) -> "Workers[A, R]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._idle:
            self._idle.pop().end()

    def __call__(self, *arguments: A.args, **options: A.kwargs) -> R:
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = _start(self._function, self._memory)
        try:
            answer = worker.ask((arguments, options), self._seconds)
        except BaseException:
            worker.end()
            raise
        self._idle.append(worker)
        if isinstance(answer, MemoryError):
            raise LostError(f"wants more than {self._memory >> 20} MiB of memory") from answer
        if isinstance(answer, Exception):
            raise answer
        result: R = answer
        return result


@dataclass(frozen=True)
class _Worker:
    process: multiprocessing.process.BaseProcess
    pipe: Connection

    def ask(self, call: Any, seconds: float) -> Any:
        try:
            self.pipe.send(call)
            if not self.pipe.poll(seconds):
                raise LostError(f"takes more than {seconds:g} seconds")
            return self.pipe.recv()
        except (EOFError, OSError) as error:
            raise LostError(f"died ({self.death()})") from error

    def death(self) -> str:
        """How the process ended, in words."""
        self.process.join()
        code = self.process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _start(function: Callable[..., Any], memory: int) -> _Worker:
    # spawned: fork is unsafe beside the threads of storage and OpenVINO
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, function, memory), daemon=True)
    try:
        process.start()
    except OSError as error:
        raise OutsideError(f"no process can be started for a decoder: {error}") from error
    theirs.close()
    worker = _Worker(process, ours)
    # what goes wrong until then is no file's fault
    try:
        ready = ours.poll(START_SECONDS) and ours.recv()
    except (EOFError, OSError) as error:
        raise OutsideError(f"a decoder's process ended at its start ({worker.death()})") from error
    if not ready:
        worker.end()
        raise OutsideError(f"a decoder's process did not start within {START_SECONDS:g} seconds")
    return worker


def _serve(pipe: Connection, function: Callable[..., Any], memory: int) -> None:
    """Answer calls until the other side is gone."""
    for told in (signal.SIGINT, signal.SIGHUP):  # from a terminal they reach the other side, too
        signal.signal(told, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what native code says may quote a header
    held = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
    resource.setrlimit(resource.RLIMIT_AS, (held + memory, held + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(EOFError, OSError):
        pipe.send(True)
        while True:
            arguments, options = pipe.recv()
            try:
                answer: Any = function(*arguments, **options)
            except Exception as error:  # raised on the other side
                answer = error
            pipe.send(answer)
