"""Runs a function in worker processes, each call within limits of time and memory.

For native decoders, which a damaged file can hang, crash or make exhaust memory: then the worker process is
lost and the caller continues.
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
from typing import Any, Generic, ParamSpec, TypeVar, cast

from lobar.core.errors import OutsideError

PAGE = os.sysconf("SC_PAGE_SIZE")
START_SECONDS = 60.0
A = ParamSpec("A")
R = TypeVar("R")


class WorkerLostError(Exception):
    """A worker process returned no result; the text says why, for example "died (SIGSEGV)"."""


class Workers(Generic[A, R]):
    """A function that runs in worker processes; call it like the function itself, from any thread.

    A call uses an idle process or starts one. The function must be importable, its arguments and result
    picklable. `seconds` and `memory` (bytes beyond what a process uses after its start) limit each call.
    Exceptions of the function are raised in the caller; WorkerLostError if a call exceeds a limit or its
    process dies; OutsideError if no process can be started.
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
            self._idle.pop().kill()

    def __call__(self, *arguments: A.args, **options: A.kwargs) -> R:
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = _start(self._function, self._memory)
        try:
            result = worker.call((arguments, options), self._seconds)
        except BaseException:
            worker.kill()
            raise
        self._idle.append(worker)
        if isinstance(result, MemoryError):
            raise WorkerLostError(f"needed more than {self._memory >> 20} MiB of memory") from result
        if isinstance(result, Exception):
            raise result
        return cast(R, result)


@dataclass(frozen=True)
class _Worker:
    process: multiprocessing.process.BaseProcess
    pipe: Connection

    def call(self, arguments: Any, seconds: float) -> Any:
        try:
            self.pipe.send(arguments)
            if not self.pipe.poll(seconds):
                raise WorkerLostError(f"took more than {seconds:g} seconds")
            return self.pipe.recv()
        except (EOFError, OSError) as error:
            raise WorkerLostError(f"died ({self.exit_reason()})") from error

    def exit_reason(self) -> str:
        """The signal or exit status that the process ended with."""
        self.process.join()
        code = self.process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _start(function: Callable[..., Any], memory: int) -> _Worker:
    # spawn, because fork is unsafe with the threads of storage and OpenVINO
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, function, memory), daemon=True)
    try:
        process.start()
    except OSError as error:
        raise OutsideError(f"cannot start a decoder process: {error}") from error
    theirs.close()
    worker = _Worker(process, ours)
    # no file has been sent yet, so a failure here is not caused by one
    try:
        ready = ours.poll(START_SECONDS) and ours.recv()
    except (EOFError, OSError) as error:
        raise OutsideError(f"a decoder process ended while starting ({worker.exit_reason()})") from error
    if not ready:
        worker.kill()
        raise OutsideError(f"a decoder process did not start within {START_SECONDS:g} seconds")
    return worker


def _serve(pipe: Connection, function: Callable[..., Any], memory: int) -> None:
    """Run calls until the parent process closes the pipe."""
    for signum in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to the parent as well
        signal.signal(signum, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # warnings and native messages may quote header values
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(EOFError, OSError):
        pipe.send(True)
        while True:
            arguments, options = pipe.recv()
            try:
                result: Any = function(*arguments, **options)
            except Exception as error:  # raised in the parent
                result = error
            pipe.send(result)
