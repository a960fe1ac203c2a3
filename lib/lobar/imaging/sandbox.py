"""Runs a function in worker processes, each call within limits of time and memory.

For native decoders, which a damaged file can hang, crash or make exhaust memory: then the worker process is
lost and the caller continues. A worker has an empty environment and, as far as `isolation` can, no network.
"""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar, cast

from lobar.core.errors import OutsideError
from lobar.imaging import isolation

PAGE = os.sysconf("SC_PAGE_SIZE")
START_SECONDS = 60.0
# not multiprocessing, whose processes inherit the environment
START = (
    "import sys; sys.path[:] = sys.argv[2:]; from lobar.imaging.sandbox import serve; serve(int(sys.argv[1]))"
)
A = ParamSpec("A")
R = TypeVar("R")


class WorkerLostError(Exception):
    """A worker process returned no result; the text says why, for example "died (SIGSEGV)"."""


class _KilledError(Exception):
    """Something else killed a worker process."""


class Workers(Generic[A, R]):
    """A function that runs in worker processes; call it like the function itself, from any thread.

    A call uses an idle process or starts one. The function must be importable, its arguments and result
    picklable. `seconds` and `memory` (bytes beyond what a process uses after its start) limit each call.
    Exceptions of the function are raised in the caller; WorkerLostError if a call exceeds a limit or its
    process dies; OutsideError if no process can be started, or it is killed twice by something else.
    """

    def __init__(self, function: Callable[A, R], seconds: float, memory: int) -> None:
        self._function = function
        self._seconds = seconds
        self._memory = memory
        self._idle: list[_Worker] = []
        # a process is killed with the thread that started it (isolation), so that none outlives the job
        self._starter = ThreadPoolExecutor(1)

    def __enter__(self) -> "Workers[A, R]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_idle()
        self._starter.shutdown()

    def __call__(self, *arguments: A.args, **options: A.kwargs) -> R:
        try:
            result = self._call(arguments, options)
        except _KilledError:
            self._end_idle()  # they occupy memory, and its lack is the most frequent reason
            try:
                result = self._call(arguments, options)
            except _KilledError as error:
                raise OutsideError(
                    "a decoder process was killed twice (SIGKILL), probably because memory was exhausted; "
                    "raise its memory limit (limits.memory of its template in the workflow)"
                ) from error
        if isinstance(result, MemoryError):
            raise WorkerLostError(f"needed more than {self._memory >> 20} MiB of memory") from result
        if isinstance(result, Exception):
            raise result
        return cast(R, result)

    def _call(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = self._start()
        try:
            result = worker.call((arguments, options), self._seconds)
        except BaseException:
            worker.kill()
            raise
        self._idle.append(worker)
        return result

    def _end_idle(self) -> None:
        with suppress(IndexError):  # another thread may take one at the same time
            while self._idle:
                self._idle.pop().kill()

    def _start(self) -> "_Worker":
        ours, theirs = Pipe()
        command = [sys.executable, "-c", START, str(theirs.fileno()), *sys.path]
        quiet = subprocess.DEVNULL  # warnings and native messages may quote header values

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                command, env={}, pass_fds=[theirs.fileno()], stdin=quiet, stdout=quiet, stderr=quiet
            )

        try:
            worker = _Worker(self._starter.submit(start).result(), ours)
        except OSError as error:
            raise OutsideError(f"cannot start a decoder process: {error}") from error
        theirs.close()
        # no file has been sent yet, so a failure here is not caused by one
        try:
            ours.send((self._function, self._memory))
            ready = ours.poll(START_SECONDS) and ours.recv()
        except (EOFError, OSError) as error:
            reason = f"a decoder process ended while starting ({worker.exit_reason()})"
            raise OutsideError(reason) from error
        if not ready:
            worker.kill()
            raise OutsideError(f"a decoder process did not start within {START_SECONDS:g} seconds")
        return worker


@dataclass(frozen=True)
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: Connection

    def call(self, arguments: Any, seconds: float) -> Any:
        try:
            self.pipe.send(arguments)
            if not self.pipe.poll(seconds):
                raise WorkerLostError(f"took more than {seconds:g} seconds")
            return self.pipe.recv()
        except (EOFError, OSError) as error:
            if self.process.wait() == -signal.SIGKILL:
                raise _KilledError from error
            raise WorkerLostError(f"died ({self.exit_reason()})") from error

    def exit_reason(self) -> str:
        """The signal or exit status that the process ended with."""
        code = self.process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.pipe.close()


def serve(file_descriptor: int) -> None:
    """Receive a function and a memory limit, then run calls until the parent process closes the pipe."""
    isolation.isolate()
    for signum in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to the parent as well
        signal.signal(signum, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(EOFError, OSError), Connection(file_descriptor) as pipe:
        function, memory = pipe.recv()
        limit = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        pipe.send(True)
        while True:
            arguments, options = pipe.recv()
            try:
                result: Any = function(*arguments, **options)
            except Exception as error:  # raised in the parent
                result = error
            pipe.send(result)
