"""Run one job and print its peak memory in megabytes: python -m bench.peak JOB OPTIONS."""

import re
import sys
from pathlib import Path

from jobs.__main__ import main
from lobar.core import console


def megabytes() -> int:
    """Peak memory of this process. Not from getrusage, which includes that of the process that forked it."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match
    return int(match[1]) // 1024


if __name__ == "__main__":
    status = main(sys.argv[1:])
    print(megabytes())
    console.exit_process(status)
