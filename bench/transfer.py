"""What pretrained weights gain on few real images: python -m bench.transfer DATA.

DATA has labels.csv with RSNA's columns, groups.csv (patientId, group) and images/. Five-fold cross-validation
by patient: each image is predicted by a network that saw no image of its patient. Prints a table, writes it
to docs/quality.md, and draws truth and boxes into runs/transfer.png.
"""

import hashlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from bench import job, table, training
from bench.training import Limit
from lobar.core import console
from lobar.core.boxes import Box
from lobar.data.index import Exam, read_index
from lobar.evaluation import analysis, operating_point
from lobar.evaluation.operating_point import Scored
from lobar.storage.layout import Dataset
from lobar.training import recipe, sampler
from lobar.training.recipe import Encoder, Network
from lobar.training.record import TrainingInputs, inputs_of
from lobar.training.sampler import Split

DOCUMENT = Path("docs/quality.md")
PICTURE = Path("runs/transfer.png")
SEEDS = (0, 1, 2)
SLOW_SEEDS = (0,)  # of the notebook's network, which trains four times as long as the others
FOLDS = 5
RESAMPLES = 2000
COLUMNS = 8  # of the picture
TRUTH, PREDICTED = (90, 200, 90), (60, 60, 240)  # blue, green, red
# smaller batches than for 26,684 images, so that few images make enough steps
RECIPE = recipe.load("rsna", "epochs=6,batch_size=4")
SECTION = """\
Measured by `make bench-transfer`: {images} real images of {patients} patients, {positive} of them positive,
in five-fold cross-validation by patient. All networks train with the recipe `rsna` for {steps:,}
image-steps per fold, at batch size {batch}. The columns of seeds are the area under the ROC curve and the
challenge metric of each seed. The means have 95 % intervals over patients, and so has the paired difference
to the first row. Each image is scored at an operating point tuned without it. So few images show whether
pretrained weights help, not how good the recipe is. The notebook's network has one seed, because it trains
four times as long.

{date}: {machine}.

"""
HEADS = ("network", "ROC area, seeds", "mean", "difference", "metric, seeds", "mean", "difference")


@dataclass(frozen=True)
class Outcome:
    """Results of one network: image scores and challenge scores, (seeds, images) each."""

    image_scores: np.ndarray
    scores: np.ndarray  # NaN where an image does not count


def systems(data: Dataset) -> dict[str, TrainingInputs]:
    """What is compared, by name; the first is what the others are compared with."""
    pretrained = inputs_of(data, RECIPE, 0)
    notebook = replace(RECIPE, network=Network.NOTEBOOK, encoder=Encoder.NONE, channels=32, blocks=2, depth=4)
    return {
        "pretrained": pretrained,
        "random weights": replace(pretrained, encoder_weights=""),
        "notebook's network": inputs_of(data, notebook, 0),
    }


def folds(exams: Sequence[Exam]) -> np.ndarray:
    """The fold of each image: patients with and without a positive image are dealt out evenly, by hash."""
    positive = {exam.group for exam in exams if exam.boxes}
    names = {exam.group for exam in exams}
    order = sorted(names, key=lambda name: (name in positive, hashlib.sha256(name.encode()).digest()))
    fold = {name: i % FOLDS for i, name in enumerate(order)}
    return np.array([fold[exam.group] for exam in exams])


def cross_validate(inputs: TrainingInputs, split: Split) -> list[Scored]:
    """Each image of `split` predicted by a network of the other folds."""
    fold = folds(split.exams)
    predicted: dict[int, Scored] = {}
    for k in range(FOLDS):
        seen, unseen = (_subset(split, np.flatnonzero(mask)) for mask in (fold != k, fold == k))
        limit = Limit(np.inf, training.image_steps(inputs.recipe, len(seen.exams)))
        trained = training.train(replace(inputs, seed=FOLDS * inputs.seed + k), seen, limit)
        images = training.predict(trained.network, unseen)
        predicted |= dict(zip(np.flatnonzero(fold == k).tolist(), images, strict=True))
    return [predicted[i] for i in range(len(fold))]


def _subset(split: Split, indices: np.ndarray) -> Split:
    return Split([split.exams[i] for i in indices], split.images[indices])


def outcome(runs: Sequence[list[Scored]]) -> Outcome:
    """The result of one network from its run with each seed."""
    return Outcome(
        np.array([[image.image_score for image in images] for images in runs]),
        np.array([operating_point.tune(images).scores for images in runs], float),  # None becomes NaN
    )


def rows(exams: Sequence[Exam], outcomes: dict[str, Outcome]) -> Iterator[str]:
    """A line of the table for each network."""
    positive = np.array([bool(exam.boxes) for exam in exams])
    names, group = np.unique([exam.group for exam in exams], return_inverse=True)
    members = [np.flatnonzero(group == i) for i in range(len(names))]
    drawn = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    samples = [np.concatenate([members[i] for i in draw]) for draw in drawn]

    def areas(found: Outcome, images: np.ndarray) -> np.ndarray:
        curves = [analysis.roc(values[images], positive[images]) for values in found.image_scores]
        return np.array([np.nan if curve is None else curve.area for curve in curves], float)

    def metrics(found: Outcome, images: np.ndarray) -> np.ndarray:
        return np.nanmean(found.scores[:, images], axis=1)

    first, everything = next(iter(outcomes.values())), np.arange(len(exams))

    def cells(found: Outcome, statistic: Callable[[Outcome, np.ndarray], np.ndarray]) -> Iterator[str]:
        yield ", ".join(f"{value:.3f}" for value in statistic(found, everything))
        means, first_means = (
            np.array([statistic(system, images).mean() for images in (everything, *samples)])
            for system in (found, first)
        )
        yield _interval(means, "{:.3f} ({:.3f} to {:.3f})")
        yield "" if found is first else _interval(means - first_means, "{:+.3f} ({:+.3f} to {:+.3f})")

    for name, found in outcomes.items():
        values = [name, *cells(found, areas), *cells(found, metrics)]
        yield f"| {' | '.join(values)} |"


def _interval(values: np.ndarray, form: str) -> str:
    """A value of all images, the first one, with the 95 % percentile interval of those of the resamples."""
    return form.format(values[0], *np.nanpercentile(values[1:], [2.5, 97.5]))


def draw(images: Sequence[Scored], split: Split) -> None:
    """Draw all positive images and as many negative ones, those with the highest image scores."""
    point = operating_point.tune(images).fair_points
    order = sorted(range(len(images)), key=lambda i: -images[i].image_score)
    positives = [i for i in order if images[i].exam.boxes]
    negatives = [i for i in order if not images[i].exam.boxes][: len(positives)]
    tiles = [_tile(split.images[i], images[i], images[i].boxes(point[i])) for i in positives + negatives]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % COLUMNS)
    lines = [np.hstack(tiles[at : at + COLUMNS]) for at in range(0, len(tiles), COLUMNS)]
    PICTURE.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(PICTURE), np.vstack(lines))
    print(f"{PICTURE} written: {len(positives)} positive images, then {len(negatives)} negative ones")


def _tile(levels: np.ndarray, image: Scored, boxes: Sequence[Box]) -> np.ndarray:
    tile = cv2.cvtColor(levels, cv2.COLOR_GRAY2BGR)
    for colour, group in ((TRUTH, image.exam.boxes), (PREDICTED, boxes)):
        for box in group:
            small = box.scaled(len(levels) / image.exam.columns, len(levels) / image.exam.rows)
            cv2.rectangle(tile, (small.x, small.y, small.width, small.height), colour, 2)
    text = f"{image.image_score:.2f}"
    return cv2.putText(tile, text, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, PREDICTED, 1, cv2.LINE_AA)


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        tables = [f"--labels={folder}/labels.csv", f"--groups={folder}/groups.csv"]
        job.run("label-index", *tables, f"--images={folder}/images", f"--out={scratch}/set")
        data = Dataset(f"file://{scratch}/set")
        exams = [*read_index(data, "train"), *read_index(data, "valid")]
        split, _ = sampler.load(exams, RECIPE, "real")
        runs: dict[str, list[list[Scored]]] = {name: [] for name in systems(data)}
        for seed in SEEDS:
            for name, inputs in systems(data).items():
                if inputs.recipe.encoder is Encoder.NONE and seed not in SLOW_SEEDS:
                    continue
                started = time.monotonic()
                runs[name].append(cross_validate(replace(inputs, seed=seed), split))
                print(f"seed {seed}, {name}: {time.monotonic() - started:.0f} s", flush=True)
    lines = [*table.head(HEADS), *rows(split.exams, {name: outcome(found) for name, found in runs.items()})]
    print("\n".join(lines))
    text = SECTION.format(
        images=len(split.exams),
        patients=len({exam.group for exam in split.exams}),
        positive=sum(bool(exam.boxes) for exam in split.exams),
        steps=training.image_steps(RECIPE, len(split.exams) * (FOLDS - 1) // FOLDS),
        batch=RECIPE.batch_size,
        date=time.strftime("%Y-%m-%d"),
        machine=table.machine(),
    )
    table.write_section(DOCUMENT, "bench-transfer", text + "\n".join(lines))
    draw(runs["pretrained"][0], split)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make bench-transfer DATA=folder")
    main(Path(sys.argv[1]))
    console.exit_process(0)
