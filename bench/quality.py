"""The notebook's system beside ours on drawn films: prints two tables and writes docs/quality.md.

Ours is what `make run` trains, at the operating point that it tunes; each image is scored at a point tuned
without it. The notebook's is its network, pixels, loss, draws and rate, at its own operating point.
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
from lobar.imaging.sampling import Sampling
from lobar.inference.release import NOTEBOOK
from lobar.storage.layout import Dataset
from lobar.training import sampler, trainer
from lobar.training.recipe import Options
from lobar.training.sampler import Split

DOCUMENT = Path("docs/quality.md")
SEEDS = (0, 1, 2)
SECONDS = 120
# as make run's, with two thirds of its epochs: within SECONDS on a slow machine
OURS = Options("notebook", Sampling.AREA, 128, 12, 2, 2, 4, 4, "notebook", 8, 0.002, 0.5, "float32", 0)
NOTEBOOK = Options(
    "notebook", Sampling.NOTEBOOK, 256, 32, 2, 4, 10, 25, "notebook", 32, 0.001, 0.0, "float32", 0
)
NOTEBOOK_SMALL = replace(NOTEBOOK, image_size=OURS.image_size, channels=OURS.channels, depth=OURS.depth)
HEAD = """# Quality

Written by `make bench-quality`: what `make run` trains beside the notebook's system, on the same drawn
films ({train} to train on, {valid} of other people to validate), in one run. The figure is the challenge
metric, its gain with the paired 95 % interval over people. Ours is scored at a tuned operating point,
each image at one tuned without it; the notebook's at its own, and to compare at one tuned as ours. Drawn
films are no chests: this tells which system learns more from the same, not what either would find in a
patient.

In equal seconds the notebook's network has its own size. In equal image-steps that would take most of an
hour a seed: there it has ours, with the notebook's pixels, loss, draws, batch and rate.

{date}: {machine}.

"""
COLUMNS = """| seed | notebook: seconds, image-steps | ours | notebook | notebook, tuned | ours | gain |
|---|--:|--:|--:|--:|--:|--:|"""


@dataclass(frozen=True)
class Trained:
    """A trained system: seconds and images that its steps took, and its scores at both operating points."""

    seconds: float
    image_steps: int
    notebook: list[float | None]
    tuned: list[float | None]


def train_and_score(data: Dataset, options: Options, seconds: float, image_steps: int) -> Trained:
    """Train until either is used up, or to the last epoch of ours, and score the validation images."""
    train, valid = (sampler.load(read_index(data, side), options, side)[0] for side in ("train", "valid"))
    model = trainer.compile_network(options)
    started, steps = time.monotonic(), 0
    for epoch in itertools.count():
        model.optimizer.learning_rate = trainer.cosine(epoch, options.schedule_epochs, options.learning_rate)
        for images, masks in sampler.batches(train, options, options.batch_size, epoch):
            model.train_on_batch(images, masks)
            steps += len(images)
            if steps >= image_steps or time.monotonic() - started >= seconds:
                taken = time.monotonic() - started
                return Trained(taken, steps, *_scores(model, valid))
    raise AssertionError("epochs have no end")


def _scores(model: Any, valid: Split) -> tuple[list[float | None], list[float | None]]:
    starts = range(0, len(valid.exams), 16)
    maps = np.concatenate([model.predict_on_batch(valid.images[at : at + 16, ..., None]) for at in starts])
    images = [
        operating_point.score_map(exam, found) for exam, found in zip(valid.exams, maps[..., 0], strict=True)
    ]
    theirs = operating_point.scores(valid.exams, lambda i: images[i].boxes(NOTEBOOK))
    return theirs, operating_point.tune(images).scores


def row(exams: list[Exam], seed: int, theirs: Trained, ours: Trained) -> str:
    """A line of a table: each system's metric and cost, and by how much ours is ahead."""
    metrics = (interval(exams, scores).metric or 0 for scores in (theirs.notebook, theirs.tuned, ours.tuned))
    gain = bootstrap.gain(exams, ours.tuned, theirs.notebook)
    cost = " | ".join(f"{each.seconds:.0f} s, {each.image_steps:,}" for each in (theirs, ours))
    shown = " | ".join(f"{metric:.3f}" for metric in metrics)
    assert None not in (gain.metric, gain.low, gain.high)
    return f"| {seed} | {cost} | {shown} | {gain.metric:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}) |"


def main() -> None:
    tables = {"In equal seconds": [COLUMNS], "In equal image-steps": [COLUMNS]}
    with tempfile.TemporaryDirectory() as folder:
        job(["demo-data", f"--out={folder}/data"])
        labels = [f"--labels={folder}/data/train_labels.csv", f"--groups={folder}/data/train_groups.csv"]
        images = [f"--images={folder}/data/train_images", f"--out={folder}/set", "--valid-fraction=0.22"]
        job(["label-index", *labels, *images])
        data = Dataset(f"file://{folder}/set")
        exams = read_index(data, "valid")
        count = len(read_index(data, "train"))
        for seed in SEEDS:
            options = replace(OURS, seed=seed)
            whole = options.epochs * (count // options.batch_size) * options.batch_size
            ours = train_and_score(data, options, SECONDS, whole)
            full = train_and_score(data, replace(NOTEBOOK, seed=seed), ours.seconds, whole)
            small = train_and_score(data, replace(NOTEBOOK_SMALL, seed=seed), 1e9, ours.image_steps)
            for lines, theirs in zip(tables.values(), (full, small), strict=True):
                lines.append(row(exams, seed, theirs, ours))
                print(lines[-1], flush=True)
    date, machine = time.strftime("%Y-%m-%d"), table.machine()
    parts = [HEAD.format(train=count, valid=len(exams), date=date, machine=machine)]
    parts += [f"## {title}\n\n" + "\n".join(lines) + "\n\n" for title, lines in tables.items()]
    DOCUMENT.write_text("".join(parts).rstrip() + "\n")
    print(f"{DOCUMENT} written")


if __name__ == "__main__":
    main()
    console.exit_process(0)
