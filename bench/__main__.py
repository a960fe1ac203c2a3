"""Every benchmark in one run: python -m bench prints a table and writes docs/bench.md."""

import itertools
import tempfile
import time
from pathlib import Path

from bench import prediction, scale, storage, table
from lobar.core import console

DOCUMENT = Path("docs/bench.md")
HEAD = """# Measured

Written by `make bench`: lobar beside the notebook (as today's libraries run it, `bench/notebook.py`) or what
the row names, in one run, in turn, medians of {rounds} rounds. The films are drawn, JPEG-baseline DICOMs of
1024 × 1024 and 150 KB; both networks have the notebook's {parameters} parameters and the same weights.

{date}: {machine}.

"""


def main() -> None:
    started = time.monotonic()
    print(table.machine())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bench = prediction.prepare(Path(folder))
        print(table.FORM.format(*table.HEADS))
        for row in itertools.chain(prediction.rows(bench), storage.rows(), scale.rows(bench)):
            print(row, flush=True)
            rows.append(row)
        parameters = f"{bench.network.count_params():,}"
    date = time.strftime("%Y-%m-%d")
    head = HEAD.format(rounds=table.ROUNDS, parameters=parameters, date=date, machine=table.machine())
    DOCUMENT.write_text(head + table.markdown(rows) + "\n")
    print(f"{DOCUMENT} written after {(time.monotonic() - started) / 60:.0f} min")


if __name__ == "__main__":
    main()
    console.exit_process(0)
