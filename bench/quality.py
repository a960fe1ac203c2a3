"""lobar's system compared with the notebook's: prints two tables and writes them to docs/quality.md.

lobar's is what `make run` trains, at its tuned operating point; the point for each image is tuned without
that image. The notebook's is its network, pixels, loss, sampler and learning rate, at its own operating
point.
"""

import itertools
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import table
from jobs.__main__ import main as job
from lobar.core import console
from lobar.data.index import Exam, read_index
from lobar.evaluation import bootstrap, operating_point
from lobar.evaluation.bootstrap import interval
from lobar.inference import release
from lobar.storage.layout import Dataset
from lobar.training import recipe, sampler, trainer
from lobar.training.recipe import Recipe
from lobar.training.sampler import Split

DOCUMENT = Path("docs/quality.md")
SEEDS = (0, 1, 2)
SECONDS = 120
# two thirds of the epochs of make run: within SECONDS on a slow machine
OURS = recipe.load("demo", "epochs=4")
NOTEBOOK = recipe.load("notebook")
NOTEBOOK_SMALL = replace(NOTEBOOK, image_size=OURS.image_size, channels=OURS.channels, depth=OURS.depth)
SECTION = """\
Measured by `make bench-quality`: what `make run` trains, compared with the notebook's system, on the same
synthetic images ({train} for training, {valid} of other patients for validation), in one run. The value is
the challenge metric. The gain has the paired 95 % interval over patients. lobar is scored at a tuned
operating point; the point for each image is tuned without that image. The notebook is scored at its own
operating point and, for comparison, at one tuned in the same way. Synthetic images are not chests: the
figures show which system learns more from the same images, not what either would find in a patient.

In equal seconds, the notebook's network has its original size. In equal image-steps that would take most of
an hour per seed. So there it has the size of lobar's network, and keeps the notebook's sampling, loss,
sampler, batch size and learning rate.

{date}: {machine}.

"""
HEADS = (
    "seed", "notebook: seconds, image-steps", "lobar: seconds, image-steps", "notebook", "notebook, tuned",
    "lobar", "gain",
)  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """A trained system: seconds and images of its training, and its scores at both operating points."""

    seconds: float
    image_steps: int
    notebook: list[float | None]
    tuned: list[float | None]


def train_and_score(data: Dataset, recipe: Recipe, seed: int, seconds: float, image_steps: int) -> Trained:
    """Train until `seconds` or `image_steps` are used up, and score the validation images."""
    train, valid = (sampler.load(read_index(data, name), recipe, name)[0] for name in ("train", "valid"))
    model = trainer.compile_network(recipe, seed)
    started, steps = time.monotonic(), 0
    for epoch in itertools.count():
        schedule = recipe.schedule_epochs or recipe.epochs
        model.optimizer.learning_rate = trainer.cosine(epoch, schedule, recipe.learning_rate)
        for images, masks in sampler.batches(train, recipe, seed, recipe.batch_size, epoch):
            model.train_on_batch(images, masks)
            steps += len(images)
            if steps >= image_steps or time.monotonic() - started >= seconds:
                duration = time.monotonic() - started
                return Trained(duration, steps, *_scores(model, valid))
    raise AssertionError("the loop over epochs does not end by itself")


def _scores(model: Any, valid: Split) -> tuple[list[float | None], list[float | None]]:
    starts = range(0, len(valid.exams), 16)
    maps = np.concatenate([model.predict_on_batch(valid.images[at : at + 16, ..., None]) for at in starts])
    images = [
        operating_point.score_map(exam, probabilities)
        for exam, probabilities in zip(valid.exams, maps[..., 0], strict=True)
    ]
    notebook = operating_point.scores(valid.exams, lambda i: images[i].boxes(release.NOTEBOOK))
    return notebook, operating_point.tune(images).scores


def row(exams: list[Exam], seed: int, notebook: Trained, ours: Trained) -> str:
    """A row of a table: the cost and the metric of each system, and the gain of lobar's."""
    metrics = (
        interval(exams, scores).metric or 0 for scores in (notebook.notebook, notebook.tuned, ours.tuned)
    )
    gain = bootstrap.gain(exams, ours.tuned, notebook.notebook)
    costs = " | ".join(f"{system.seconds:.0f} s, {system.image_steps:,}" for system in (notebook, ours))
    shown = " | ".join(f"{metric:.3f}" for metric in metrics)
    assert None not in (gain.metric, gain.low, gain.high)
    return f"| {seed} | {costs} | {shown} | {gain.metric:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}) |"


def main() -> None:
    tables = {"In equal seconds": table.head(HEADS), "In equal image-steps": table.head(HEADS)}
    with tempfile.TemporaryDirectory() as folder:
        job(["demo-data", f"--out={folder}/data"])
        labels = [f"--labels={folder}/data/train_labels.csv", f"--groups={folder}/data/train_groups.csv"]
        images = [f"--images={folder}/data/train_images", f"--out={folder}/set", "--valid-fraction=0.22"]
        job(["label-index", *labels, *images])
        data = Dataset(f"file://{folder}/set")
        exams = read_index(data, "valid")
        count = len(read_index(data, "train"))
        for seed in SEEDS:
            whole = OURS.epochs * (count // OURS.batch_size) * OURS.batch_size
            ours = train_and_score(data, OURS, seed, SECONDS, whole)
            full = train_and_score(data, NOTEBOOK, seed, ours.seconds, whole)
            small = train_and_score(data, NOTEBOOK_SMALL, seed, 1e9, ours.image_steps)
            for lines, notebook in zip(tables.values(), (full, small), strict=True):
                lines.append(row(exams, seed, notebook, ours))
                print(lines[-1], flush=True)
    date, machine = time.strftime("%Y-%m-%d"), table.machine()
    parts = [SECTION.format(train=count, valid=len(exams), date=date, machine=machine)]
    parts += [f"## {title}\n\n" + "\n".join(lines) + "\n\n" for title, lines in tables.items()]
    table.write_section(DOCUMENT, "bench-quality", "".join(parts))


if __name__ == "__main__":
    main()
    console.exit_process(0)
