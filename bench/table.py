"""The table of all benchmarks, for the screen and for a document, and the description of the machine."""

import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

from lobar.core.concurrency import cpus
from lobar.inference import engines

ROUNDS = 5
FORM = "{:72}{:>15}{:>15}{:>8}{:>8}"
HEADS = ("", "reference", "lobar", "ratio", "target")


@dataclass(frozen=True)
class Row:
    """What was measured, the values of the reference and of lobar with their units, the ratio, its target."""

    what: str
    reference: str
    lobar: str
    ratio: str = ""
    target: str = ""

    def __str__(self) -> str:
        return FORM.format(self.what, self.reference, self.lobar, self.ratio, self.target)


def median_seconds(functions: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each function; they alternate, so that other load affects all equally."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            taken[name].append(time.perf_counter() - started)
    return {name: median(seconds) for name, seconds in taken.items()}


def compared(what: str, count: int, reference: float, lobar: float, target: str = "") -> Row:
    """A row of milliseconds per image, from the seconds of the reference and of lobar for `count` images."""
    theirs, ours = (f"{1000 * seconds / count:.2f} ms" for seconds in (reference, lobar))
    return Row(what, theirs, ours, f"×{reference / lobar:.1f}", target)


def machine(others: Sequence[str] = ()) -> str:
    """CPU, memory, operating system and versions of libraries, also of `others`."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
    features = ", ".join(engines.cpu_features())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    libraries = ("openvino", "tensorflow", "opencv-python-headless", *others)
    packages = ", ".join(f"{package} {version(package)}" for package in libraries)
    return (
        f"{name}, {cpus()} CPUs ({features}), {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {packages}"
    )


def markdown(rows: list[Row]) -> str:
    """The table in Markdown."""
    body = [f"| {row.what} | {row.reference} | {row.lobar} | {row.ratio} | {row.target} |" for row in rows]
    return "\n".join([*head(HEADS), *body])


def head(columns: Sequence[str]) -> list[str]:
    """The first two lines of a table in Markdown; the numbers in all columns but the first are aligned."""
    return [f"| {' | '.join(columns)} |", "|---" + "|--:" * (len(columns) - 1) + "|"]


def write_section(document: Path, target: str, text: str) -> None:
    """Replace the measurements of `make TARGET` in a document, between two comments; keep the rest."""
    start, end = (f"<!-- measured by make {target}: {edge} -->" for edge in ("start", "end"))
    section = f"{start}\n{text.strip()}\n{end}"
    old = document.read_text() if document.exists() else f"{start}\n{end}\n"
    new, count = re.subn(f"{re.escape(start)}.*?{re.escape(end)}", lambda _: section, old, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{document}: found {count} times {start} … {end}; it needs these comments once")
    document.write_text(new)
    print(f"{document} written")
