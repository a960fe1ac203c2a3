"""Processes that leave nothing behind: each leads a group of its own, which ends with its block."""

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

COMMAND_GRACE_SECONDS = 40.0  # a workflow's runner gives its steps 30
LOOK_EVERY_SECONDS = 0.05


class Stop:
    """Listens for SIGTERM, SIGINT and SIGHUP.

    Nothing is raised where one comes: botocore takes any exception for one of its own, and a process that is
    about to be started would be lost.
    """

    def __init__(self) -> None:
        self.signum = 0
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, self._hear)

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum

    def check(self) -> None:
        """Raise OutsideError if one came."""
        if self.signum:
            raise OutsideError(console.interrupted(self.signum))


@contextmanager
def started(
    command: Sequence[str], environment: Mapping[str, str], grace: float, output: IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, so that Ctrl-C reaches us alone; it ends with the block.

    SIGTERM goes to it, then to what it leaves of its group; what is left after `grace` seconds is killed.
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
        if process.returncode is None:  # else its number may be another's by now
            _end(process, grace)


def tied(command: Sequence[str]) -> list[str]:
    """`command`, killed by the kernel when the thread that starts it is gone, however that ended.

    Without setpriv (util-linux) it is `command` as it was.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", *command] if setpriv else [*command]


def run(command: Sequence[str], environment: Mapping[str, str], stop: Stop) -> int:
    """Run a command, end what it leaves behind, and return its status.

    Raises OutsideError where a signal told us to stop, InputError where there is no such command.
    """
    stop.check()
    try:
        with started(command, environment, COMMAND_GRACE_SECONDS) as process:
            # its status is not collected before its group has ended, so that its number stays its own
            while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                stop.check()
                time.sleep(LOOK_EVERY_SECONDS)
    except (FileNotFoundError, PermissionError) as error:
        raise InputError(f"{command[0]}: {error.strerror}; name a command after --") from error
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    until = time.monotonic() + grace
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    with suppress(ProcessLookupError):  # until none of the group is there
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < until:
            time.sleep(LOOK_EVERY_SECONDS)
            os.killpg(process.pid, 0)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
