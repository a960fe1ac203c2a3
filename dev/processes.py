"""Child processes that leave nothing running: each has its own process group, which ends with its block."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO

from lobar.core import console
from lobar.core.errors import InputError, OutsideError

COMMAND_GRACE_SECONDS = 40.0  # the workflow runner gives its steps 30
POLL_SECONDS = 0.05


class Stop:
    """Records SIGTERM, SIGINT and SIGHUP.

    The handler raises nothing: botocore would treat the exception as its own, and a process that is being
    started would be lost.
    """

    def __init__(self) -> None:
        self.signum = 0
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, self._record)

    def _record(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum

    def check(self) -> None:
        """Raise OutsideError if a signal was received."""
        if self.signum:
            raise OutsideError(console.interruption_message(self.signum))


@contextmanager
def started(
    command: Sequence[str], environment: Mapping[str, str], grace: float, output: IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process for the length of the block, in its own session, so that Ctrl-C does not reach it.

    At its end the process, then its group, receive SIGTERM, and SIGKILL after `grace` seconds.
    """
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:  # else its pid may have been reused
            _end(process, grace)


def ends_with_parent(command: Sequence[str]) -> list[str]:
    """`command`, changed so that the kernel kills it when the thread that started it ends.

    Without setpriv (util-linux), `command` itself.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", *command] if setpriv else [*command]


def run(command: Sequence[str], environment: Mapping[str, str], stop: Stop) -> int:
    """Run a command, end what it leaves running, and return its status.

    Raises OutsideError if a signal was received, InputError if there is no such command.
    """
    stop.check()
    try:
        with started(command, environment, COMMAND_GRACE_SECONDS) as process:
            # WNOWAIT keeps the pid reserved until the whole group has ended
            while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                stop.check()
                time.sleep(POLL_SECONDS)
    except (FileNotFoundError, PermissionError) as error:
        raise InputError(f"{command[0]}: {error.strerror}; name a command after --") from error
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    until = time.monotonic() + grace
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    with suppress(ProcessLookupError):  # raised once the group is empty
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            os.killpg(process.pid, 0)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
