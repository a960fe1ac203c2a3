"""One table of all benchmarks, on screen as it grows and in a file with the machine's description."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

from lobar.core.concurrency import cpus
from lobar.inference import engines

ROUNDS = 5
FORM = "{:58}{:>15}{:>15}{:>9}{:>9}"
HEADS = ("", "beside it", "lobar", "times", "wanted")


@dataclass(frozen=True)
class Row:
    """What was measured, the other's figure and lobar's with their units, the ratio, and what is wanted."""

    what: str
    other: str
    lobar: str
    times: str = ""
    wanted: str = ""

    def __str__(self) -> str:
        return FORM.format(self.what, self.other, self.lobar, self.times, self.wanted)


def median_seconds(**ways: Callable[[], object]) -> dict[str, float]:
    """Seconds of each way, medians of ROUNDS rounds in turn, so that a busy machine is busy for all."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - started)
    return {name: median(seconds) for name, seconds in taken.items()}


def compared(what: str, count: int, seconds: float, ours: float, wanted: str = "") -> Row:
    """A row of milliseconds an image: so many seconds for `count` images, and lobar's."""
    each = (f"{1000 * taken / count:.2f} ms" for taken in (seconds, ours))
    return Row(what, *each, f"×{seconds / ours:.1f}", wanted)


def machine() -> str:
    """What the figures were measured on."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
    features = ", ".join(engines.cpu_features())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    used = ("openvino", "tensorflow", "opencv-python-headless")
    packages = ", ".join(f"{package} {version(package)}" for package in used)
    return (
        f"{name}, {cpus()} CPUs ({features}), {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {packages}"
    )


def markdown(rows: list[Row]) -> str:
    """The table as a document."""
    body = [f"| {row.what} | {row.other} | {row.lobar} | {row.times} | {row.wanted} |" for row in rows]
    head = [f"| {' | '.join(HEADS)} |", "|---|--:|--:|--:|--:|"]
    return "\n".join([*head, *body])
