"""lobar's system compared with others on demo data: prints two tables and writes them to docs/quality.md.

lobar's is what `make run` trains. The others are the notebook's system, and the small network without
pretrained weights that the recipe `demo` had before. All but the notebook are scored at a tuned operating
point; the point for each image is tuned without that image.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import job, table, training
from bench.training import Limit, Trained
from lobar.core import console
from lobar.data.index import Exam, read_index
from lobar.evaluation import bootstrap, operating_point
from lobar.evaluation.bootstrap import interval
from lobar.imaging.sampling import Sampling
from lobar.inference import release
from lobar.storage.layout import Dataset
from lobar.training import recipe, sampler
from lobar.training.recipe import Recipe
from lobar.training.record import inputs_of
from lobar.training.sampler import Split

DOCUMENT = Path("docs/quality.md")
SEEDS = (0, 1, 2)
LONGEST = 600.0  # seconds of a training
OURS = recipe.load("demo")
NOTEBOOK = recipe.load("notebook")
NOTEBOOK_SMALL = replace(NOTEBOOK, channels=12, depth=2, image_size=128)
SMALL = replace(
    NOTEBOOK_SMALL,
    sampling=Sampling.AREA,
    epochs=6,
    schedule_epochs=0,
    learning_rate=0.002,
    batch_size=8,
    positive_fraction=0.5,
)
SECTION = """\
Measured by `make bench-quality`: what `make run` trains, compared with the notebook's system and with the
small network without pretrained weights that `make run` trained before, on the same synthetic images
({train} for training, {valid} of other patients for validation), in one run. The value is the challenge
metric. The gain has the paired 95 % interval over patients. lobar and the small network are scored at a
tuned operating point; the point for each image is tuned without that image. The notebook is scored at its
own operating point. Synthetic images are not chests: the figures show which system learns more from the
same images, not what either would find in a patient.

In equal seconds, the notebook's network has its original size. In equal image-steps that would take longer
than all else together. So there it has the size of the small network, and keeps the notebook's sampling,
loss, sampler, batch size and learning rate.

{date}: {machine}.

"""
HEADS = (
    "seed",
    "compared with",
    "seconds, image-steps",
    "lobar: seconds, image-steps",
    "metric",
    "lobar",
    "gain",
)


@dataclass(frozen=True)
class Scores:
    """The cost of a training, and the score of each validation image at both operating points."""

    trained: Trained
    notebook: list[float | None]
    tuned: list[float | None]


class Data:
    """A dataset whose images are decoded once for each size and sampling."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.splits: dict[tuple[str, int, Sampling], Split] = {}

    def split(self, name: str, recipe: Recipe) -> Split:
        key = name, recipe.image_size, recipe.sampling
        if key not in self.splits:
            self.splits[key] = sampler.load(read_index(self.dataset, name), recipe, name)[0]
        return self.splits[key]


def train_and_score(data: Data, recipe: Recipe, seed: int, limit: Limit) -> Scores:
    """Train up to a limit, and score the validation images."""
    trained = training.train(inputs_of(data.dataset, recipe, seed), data.split("train", recipe), limit)
    images = training.predict(trained.network, data.split("valid", recipe))
    exams = [image.exam for image in images]
    notebook = operating_point.scores(exams, lambda i: images[i].boxes(release.NOTEBOOK))
    return Scores(trained, notebook, operating_point.tune(images).scores)


def row(
    exams: list[Exam], seed: int, name: str, costs: Sequence[Trained], scores: Sequence[list[float | None]]
) -> str:
    """A row of a table: the cost and the metric of another system and of lobar's, and lobar's gain."""
    cost = " | ".join(f"{trained.seconds:.0f} s, {trained.image_steps:,}" for trained in costs)
    metrics = " | ".join(f"{interval(exams, values).metric or 0:.3f}" for values in scores)
    gain = bootstrap.gain(exams, scores[1], scores[0])
    return (
        f"| {seed} | {name} | {cost} | {metrics} | {gain.metric:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}) |"
    )


def main() -> None:
    tables = {"In equal seconds": table.head(HEADS), "In equal image-steps": table.head(HEADS)}
    with tempfile.TemporaryDirectory() as folder:
        data = demo_data(Path(folder))
        exams = data.split("valid", OURS).exams
        count = len(data.split("train", OURS).exams)
        for seed in SEEDS:
            whole = training.image_steps(OURS, count)
            ours = train_and_score(data, OURS, seed, Limit(LONGEST, whole))
            limits = Limit(ours.trained.seconds, 1e9), Limit(LONGEST, ours.trained.image_steps)
            notebooks = NOTEBOOK, NOTEBOOK_SMALL
            for lines, limit, notebook in zip(tables.values(), limits, notebooks, strict=True):
                for name, other in (("notebook", notebook), ("small network", SMALL)):
                    theirs = train_and_score(data, other, seed, limit)
                    values = theirs.tuned if other is SMALL else theirs.notebook
                    costs = theirs.trained, ours.trained
                    lines.append(row(exams, seed, name, costs, (values, ours.tuned)))
                    print(lines[-1], flush=True)
    date, machine = time.strftime("%Y-%m-%d"), table.machine()
    parts = [SECTION.format(train=count, valid=len(exams), date=date, machine=machine)]
    parts += [f"## {title}\n\n" + "\n".join(lines) + "\n\n" for title, lines in tables.items()]
    table.write_section(DOCUMENT, "bench-quality", "".join(parts))


def demo_data(folder: Path) -> Data:
    """The default demo data, in `folder`, with two splits."""
    job.run("demo-data", f"--out={folder}/data")
    labels = [f"--labels={folder}/data/train_labels.csv", f"--groups={folder}/data/train_groups.csv"]
    images = [f"--images={folder}/data/train_images", f"--out={folder}/set", "--valid-fraction=0.22"]
    job.run("label-index", *labels, *images)
    return Data(Dataset(f"file://{folder}/set"))


if __name__ == "__main__":
    main()
    console.exit_process(0)
