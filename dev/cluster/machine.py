"""The namespaces and the processes of a cluster that leaves nothing behind."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lobar.core.errors import OutsideError

HOST = "10.90.0.1"  # this machine as the pods see it, within the network namespace
LOOK_EVERY_SECONDS = 0.2
INSIDE = "LOBAR_CLUSTER"


def in_own_namespaces(module: str, arguments: Sequence[str]) -> int:
    """Run a module again in network, mount and process namespaces of its own, and return its status.

    With the namespaces go all processes, addresses, rules and mounts that were made in them.
    """
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command += [sys.executable, "-m", module, *arguments]
    try:
        return subprocess.run(command, env={**os.environ, INSIDE: "1"}, check=False).returncode
    finally:
        _remove_control_groups()


def _remove_control_groups() -> None:
    """What the kubelet leaves in /sys/fs/cgroup, which is no namespace's; one in use stays."""
    for group in Path("/sys/fs/cgroup").glob("*/kubepods"):
        for folder, _, _ in os.walk(group, topdown=False):
            try:
                Path(folder).rmdir()
            except OSError:
                return


@dataclass
class Machine:
    """Where a cluster keeps its files, and the processes that it is made of."""

    folder: Path
    tools: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *command: str | Path) -> None:
        """Start a part of the cluster; its output goes to NAME.log."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait(self, what: str, check: Callable[[], bool], seconds: float = 120) -> None:
        """Return once `check` is true. Raises OutsideError where a part ends, or after `seconds`."""
        began = time.monotonic()
        while not check():
            for name, process in self.processes.items():
                if process.poll() is not None:
                    log = (self.folder / f"{name}.log").read_text(errors="replace")
                    raise OutsideError(f"{name} ended with status {process.returncode}: {log[-1000:]}")
            if time.monotonic() - began > seconds:
                raise OutsideError(f"{what}: not ready after {seconds:g} s; the logs are in {self.folder}")
            time.sleep(LOOK_EVERY_SECONDS)
        print(f"{what}: {time.monotonic() - began:.1f} s", flush=True)

    def run(self, *command: str | Path, text: str | None = None, **more: str) -> str:
        """Run a command to its end and return its output. Raises OutsideError with its error output."""
        words = [str(word) for word in command]
        done = subprocess.run(
            words, input=text, capture_output=True, text=True, check=False, env={**os.environ, **more}
        )
        if done.returncode:
            raise OutsideError(f"{' '.join(words)[:200]}: {done.stderr.strip()[-1000:]}")
        return done.stdout

    def succeeds(self, *command: str | Path) -> bool:
        """Whether a command ends with 0."""
        words = [str(word) for word in command]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
