"""Metric and speed together: lobar and the notebook learn the same demo data and predict, in one run."""

import itertools
import tempfile
import time
from functools import partial
from pathlib import Path

from bench import job, notebook, prediction, quality, table
from bench.training import Limit
from lobar.core import console
from lobar.evaluation.bootstrap import interval
from lobar.evaluation.record import Evaluation
from lobar.inference.release import Release
from lobar.storage import objects, records
from lobar.storage.layout import Model
from lobar.training.keras_backend import keras

DOCUMENT = Path("docs/benchmarks.md")
PREDICTED = 1000
OF_NOTEBOOK = 100  # its time per image does not depend on their number
ROUNDS = 3
SECTION = """\
Measured by `make bench-systems`, in one run: lobar's model is what the jobs `train` and `evaluate` make of
the recipe `demo` on the demo data of `make run`, at its tuned operating point. The notebook's network has
trained as long on the same images ({seconds:.0f} s), and predicts with the notebook's own code, at its own
operating point. The metrics are of the {valid} validation images, with 95 % intervals over patients.
Milliseconds per image are from a folder of {predicted:,} images to the table, on all CPUs: medians of
{rounds} rounds.

{date}: {machine}.

{table}
"""
HEADS = ("system", "metric", "ms per image", "ratio")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = quality.demo_data(folder)
        model, dataset = Model(objects.absolute(f"{folder}/model")), f"--dataset={data.dataset.url}"
        started = time.monotonic()
        job.run("train", "--recipe=demo", dataset, f"--out={model.url}")
        seconds = time.monotonic() - started
        job.run("evaluate", f"--model={model.url}", dataset)
        theirs = quality.train_and_score(data, quality.NOTEBOOK, 0, Limit(seconds, 1e9))
        exams = data.split("valid", quality.NOTEBOOK).exams
        metric = str(interval(exams, theirs.notebook))
        lines = _table(folder, model, metric, theirs.trained.network)
    print("\n".join(lines))
    text = SECTION.format(
        seconds=seconds,
        valid=len(exams),
        predicted=PREDICTED,
        rounds=ROUNDS,
        date=time.strftime("%Y-%m-%d"),
        machine=table.machine(),
        table="\n".join(lines),
    )
    table.write_section(DOCUMENT, "bench-systems", text)


def _table(folder: Path, model: Model, metric: str, network: keras.Model) -> list[str]:
    """lobar's `model` compared with the notebook's trained `network`, which has `metric`."""
    trials = records.read(model.evaluation, Evaluation).precisions
    released = records.read(model.release, Release).precisions
    paths = sorted((folder / "data/test_images").glob("*.dcm"))
    images, numbers = prediction.copies(paths, PREDICTED, folder), itertools.count()

    def lobar(precision: str) -> None:
        place = f"{folder}/prediction-{next(numbers)}"
        prediction.with_lobar(images, model, place, prediction.request(1, precision, "tuned"))

    same = notebook.create_network(quality.NOTEBOOK.image_size, quality.NOTEBOOK.channels)
    same.set_weights(network.get_weights())
    theirs = partial(prediction.with_notebook, same, paths[:OF_NOTEBOOK], folder / "notebook.csv")
    ways = {"notebook": theirs} | {name: partial(lobar, name) for name in released}
    seconds = table.median_seconds(ways, ROUNDS)
    reference = seconds["notebook"] / OF_NOTEBOOK
    lines = [*table.head(HEADS), f"| notebook | {metric} | {1000 * reference:.1f} | |"]
    for name, trial in trials.items():
        cells = f"not offered: {trial.objection} | "
        if name in released:
            taken = seconds[name] / PREDICTED
            cells = f"{1000 * taken:.1f} | ×{reference / taken:.1f}"
        lines.append(f"| lobar in {name} | {trial.metric} | {cells} |")
    return lines


if __name__ == "__main__":
    main()
    console.exit_process(0)
