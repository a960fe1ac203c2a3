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

from lobar import console
from lobar.errors import InputError, OutsideError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
COMMAND_GRACE_SECONDS = 40.0  # a workflow's runner gives its steps 30


@contextmanager
def started(
    command: Sequence[str], environment: Mapping[str, str], grace: float, output: IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, so that Ctrl-C reaches us alone; it ends with the block.

    SIGTERM goes to it, then to what it leaves of its group; what is left after `grace` seconds is killed.
    """
    process: subprocess.Popen[bytes] | None = None
    try:
        # raising in the midst of Popen, a signal's handler would lose the process; so signals wait for its end
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, mask),
            )  # fmt: skip
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield process
    finally:
        if process and process.returncode is None:  # else its number may be another's by now
            _end(process, grace)


def tied(command: Sequence[str]) -> list[str]:
    """`command`, killed by the kernel when the thread that starts it is gone, however that ended.

    Without setpriv (util-linux) it is `command` as it was.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", *command] if setpriv else [*command]


def run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command, end what it leaves behind, and return its status.

    Raises InputError where there is no such command.
    """
    try:
        with started(command, environment, COMMAND_GRACE_SECONDS) as process:
            # not collected before its group has ended, so that its number stays its own
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    except (FileNotFoundError, PermissionError) as error:
        raise InputError(f"{command[0]}: {error.strerror}; name a command after --") from error
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def raise_once_when_told() -> None:
    """Raise OutsideError on the first SIGTERM, SIGINT or SIGHUP; another must not interrupt the ending."""

    def told_to_stop(signum: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise OutsideError(console.told(signum))

    for each in SIGNALS:
        signal.signal(each, told_to_stop)


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    until = time.monotonic() + grace
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    with suppress(ProcessLookupError):  # until none of the group is there
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < until:
            time.sleep(0.02)
            os.killpg(process.pid, 0)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
