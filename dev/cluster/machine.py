"""The namespaces and processes of a cluster; none remain after it ends."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lobar.core.errors import OutsideError

HOST = "10.90.0.1"  # this machine's address for the pods, in the network namespace
POLL_SECONDS = 0.2
INSIDE = "LOBAR_CLUSTER"


def in_own_namespaces(module: str, arguments: Sequence[str]) -> int:
    """Run a module in new network, mount and process namespaces, and return its exit status.

    When it ends, the namespaces' processes, addresses, firewall rules and mounts end as well.
    """
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command += [sys.executable, "-m", module, *arguments]
    try:
        return subprocess.run(command, env={**os.environ, INSIDE: "1"}, check=False).returncode
    finally:
        _remove_control_groups()


def _remove_control_groups() -> None:
    """Remove the kubelet's groups from /sys/fs/cgroup, which has no namespace here, unless in use."""
    for group in Path("/sys/fs/cgroup").glob("*/kubepods"):
        for folder, _, _ in os.walk(group, topdown=False):
            try:
                Path(folder).rmdir()
            except OSError:
                return


@dataclass
class Machine:
    """A cluster's files and processes."""

    folder: Path
    tools: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def make_folder_in_memory(self, name: str) -> None:
        """Make a folder whose files are synchronized often: on a busy disk, that takes seconds each time."""
        (self.folder / name).mkdir(parents=True, mode=0o700)
        self.run("mount", "-t", "tmpfs", "-o", "mode=0700", "tmpfs", self.folder / name)

    def start(self, name: str, *command: str | Path) -> None:
        """Start a component of the cluster; its output goes to NAME.log."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait(self, what: str, check: Callable[[], bool], seconds: float = 120) -> None:
        """Return once `check` is true. Raises OutsideError if a component ends, or after `seconds`."""
        start = time.monotonic()
        while not check():
            for name, process in self.processes.items():
                if process.poll() is not None:
                    log = (self.folder / f"{name}.log").read_text(errors="replace")
                    raise OutsideError(f"{name} ended with status {process.returncode}: {log[-1000:]}")
            if time.monotonic() - start > seconds:
                raise OutsideError(f"{what}: not ready after {seconds:g} s; the logs are in {self.folder}")
            time.sleep(POLL_SECONDS)
        print(f"{what}: {time.monotonic() - start:.1f} s", flush=True)

    def run(self, *command: str | Path, text: str | None = None, **more: str) -> str:
        """Run a command and return its output. Raises OutsideError with its stderr if it fails."""
        words = [str(word) for word in command]
        done = subprocess.run(
            words, input=text, capture_output=True, text=True, check=False, env={**os.environ, **more}
        )
        if done.returncode:
            raise OutsideError(f"{' '.join(words)[:200]}: {done.stderr.strip()[-1000:]}")
        return done.stdout

    def succeeds(self, *command: str | Path) -> bool:
        """Whether a command exits with 0."""
        words = [str(word) for word in command]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
