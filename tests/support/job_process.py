"""A job in its own process, forked from one that has imported TensorFlow: the import takes many seconds."""

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

from jobs.__main__ import main
from lobar.core import console

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["tensorflow"])
LIMIT_SECONDS = 300.0


class JobProcess:
    """Starts `python -m jobs ARGUMENTS`, with stdout and stderr in the file `output`."""

    def __init__(self, output: Path, *arguments: object) -> None:
        self.output = output
        self.output.touch()
        self._process = FORKSERVER.Process(target=_run, args=(str(output), [str(each) for each in arguments]))
        self._process.start()

    def wait_for(self, text: str) -> None:
        """Return when the output contains `text`."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while text not in self.output.read_text():
            assert self._process.is_alive(), self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.01)

    def send(self, signum: int) -> None:
        """Send a signal to the process."""
        assert self._process.pid
        os.kill(self._process.pid, signum)

    def status(self) -> Any:
        """Wait for the end; the exit status, or minus the number of the signal that killed the process."""
        self._process.join(LIMIT_SECONDS)
        return self._process.exitcode


def _run(output: str, arguments: list[str]) -> None:
    """As `python -m jobs` does."""
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    console.exit_on_signal()
    console.exit_process(main(arguments))
