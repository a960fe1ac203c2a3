"""All benchmarks in one run: python -m bench prints a table and writes it to docs/benchmarks.md."""

import itertools
import tempfile
import time
from pathlib import Path

from bench import peers, prediction, scale, storage, table
from lobar.core import console

DOCUMENT = Path("docs/benchmarks.md")
SECTION = """\
Measured by `make bench`: lobar compared with the notebook (with current library versions,
`bench/notebook.py`), or with what the row names. All rows are from one run, in which the alternatives take
turns; values are medians of {rounds} rounds, and of {whole} for whole predictions. The images are synthetic
JPEG-baseline DICOM files of 1024 × 1024 pixels and 150 KB. "notebook's network" has the notebook's
{parameters} parameters, and the same weights in every library. "default network" is that of the recipe
`rsna`: a U-Net on EfficientNet-Lite0.

{date}: {machine}.

{table}
"""


def main() -> None:
    started = time.monotonic()
    machine = table.machine(peers.LIBRARIES)
    print(machine)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bench = prediction.prepare(Path(folder))
        print(table.FORM.format(*table.HEADS))
        for row in itertools.chain(prediction.rows(bench), storage.rows(), scale.rows(bench)):
            print(row, flush=True)
            rows.append(row)
        parameters = f"{bench.network.count_params():,}"
    text = SECTION.format(
        rounds=table.ROUNDS,
        whole=prediction.WHOLE_ROUNDS,
        parameters=parameters,
        date=time.strftime("%Y-%m-%d"),
        machine=machine,
        table=table.markdown(rows),
    )
    table.write_section(DOCUMENT, "bench", text)
    print(f"finished after {(time.monotonic() - started) / 60:.0f} min")


if __name__ == "__main__":
    main()
    console.exit_process(0)
