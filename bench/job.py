"""One of lobar's jobs, in this process or in its own.

python -m bench.job JOB OPTIONS prints the job's peak memory in megabytes.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

from jobs.__main__ import main
from lobar.core import console


def run(*arguments: str) -> None:
    """Run a job in this process; a job that fails ends the benchmark."""
    if status := main([*arguments]):
        raise SystemExit(status)


def measure(*arguments: str) -> tuple[float, int]:
    """Seconds and peak memory in megabytes of one job in its own process."""
    command = [sys.executable, "-m", "bench.job", *arguments]
    started = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return time.perf_counter() - started, int(done.stdout.splitlines()[-1])


def megabytes() -> int:
    """Peak memory of this process. Not from getrusage, which includes that of the process that forked it."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match
    return int(match[1]) // 1024


if __name__ == "__main__":
    status = main(sys.argv[1:])
    print(megabytes())
    console.exit_process(status)
