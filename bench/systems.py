"""Metric and speed together: both systems, trained for the same time, predict the same images in one run."""

import itertools
from functools import partial
from pathlib import Path

from bench import job, notebook, prediction, table
from lobar.evaluation.bootstrap import Interval
from lobar.evaluation.record import Evaluation
from lobar.inference.release import Release
from lobar.storage import objects, records
from lobar.storage.layout import Dataset, Model
from lobar.training.keras_backend import keras

PREDICTED = 1000
OF_NOTEBOOK = 100  # its time per image does not depend on their number
ROUNDS = 3
SECTION = """\
Milliseconds per image are from a folder of {predicted:,} test images to the table, on all CPUs. The metrics
are of the validation images, with 95 % intervals over patients. lobar's model is what the jobs `train` and
`evaluate` make of the recipe `demo` with seed 0, at its tuned operating point. The notebook's network has
trained as long, and predicts with the notebook's own code at its own operating point.

"""
HEADS = ("system", "metric", "ms per image", "ratio")


def section(folder: Path, dataset: Dataset, network: keras.Model, metric: Interval) -> str:
    """The table of lobar and the notebook's trained `network`, which has `metric`.

    `folder` has the demo data, of which the dataset was made, in `data/`.
    """
    model = Model(objects.absolute(str(folder / "model")))
    job.run("train", "--recipe=demo", f"--dataset={dataset.url}", f"--out={model.url}")
    job.run("evaluate", f"--model={model.url}", f"--dataset={dataset.url}")
    trials = records.read(model.evaluation, Evaluation).precisions
    released = records.read(model.release, Release).precisions
    paths = sorted((folder / "data/test_images").glob("*.dcm"))
    images, numbers = prediction.copies(paths, PREDICTED, folder), itertools.count()

    def lobar(precision: str) -> None:
        place = f"{folder}/prediction-{next(numbers)}"
        prediction.with_lobar(images, model, place, prediction.request(1, precision, "tuned"))

    same, table_file = _of_notebook(network), folder / "table.csv"
    theirs = partial(prediction.with_notebook, same, paths[:OF_NOTEBOOK], table_file)
    offered = {name: partial(lobar, name) for name in released}
    seconds = table.median_seconds({"notebook": theirs} | offered, ROUNDS)
    reference = seconds["notebook"] / OF_NOTEBOOK
    lines = [*table.head(HEADS), f"| notebook | {metric} | {1000 * reference:.1f} | |"]
    for name, trial in trials.items():
        cells = f"not offered: {trial.objection} | "
        if name in offered:
            taken = seconds[name] / PREDICTED
            cells = f"{1000 * taken:.1f} | ×{reference / taken:.1f}"
        lines.append(f"| lobar in {name} | {trial.metric} | {cells} |")
    return SECTION.format(predicted=PREDICTED) + "\n".join(lines)


def _of_notebook(network: keras.Model) -> keras.Model:
    """The notebook's network with the weights that lobar's training gave to the same one."""
    same = notebook.create_network(256, 32)
    same.set_weights(network.get_weights())
    return same
