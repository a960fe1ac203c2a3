"""Prediction of a folder of DICOM files: lobar compared with the notebook, same files and weights."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import keras
import numpy as np

from bench import job, network, notebook
from bench.table import ROUNDS, Row, compared, median_seconds
from lobar.core.concurrency import cpus
from lobar.data.index import read_index
from lobar.imaging import dicom
from lobar.imaging.sampling import Sampling
from lobar.inference import engines, plan, postprocess, shard
from lobar.inference.release import NOTEBOOK, Release
from lobar.inference.rows import Row as SubmissionRow
from lobar.inference.rows import to_csv
from lobar.storage import objects, records
from lobar.storage.layout import Dataset, Model, Prediction
from lobar.training import recipe, sampler

IMAGES = 100
MANY = 1000
SIZE = 256
BATCH = 32
DOLLARS_PER_HOUR = 0.0892  # two vCPUs on demand: AWS, c7i.large, us-east-1
WHOLE_ROUNDS = 3  # of several minutes each
WHOLE_TARGETS = {"float32": "", "bfloat16": "×12", "int8": "×20"}


@dataclass(frozen=True)
class Bench:
    """Synthetic images, the notebook's network with the same weights for both, and lobar's default network.

    model: the network for lobar. network: the same for the notebook's code. default: that of the recipe
    `rsna` for images of SIZE, large: the same for images of twice that size.
    """

    folder: Path
    model: Model
    network: keras.Model
    default: Model
    large: Model

    @property
    def paths(self) -> list[Path]:
        return sorted((self.folder / "data/test_images").glob("*.dcm"))


def prepare(folder: Path) -> Bench:
    """Demo data, and the networks.

    The default one is trained until its maps have few regions, as after a whole training. Boxes take long on
    the maps of a network that has learned nothing.
    """
    job.run("demo-data", f"--out={folder}/data", "--train=80", f"--test={IMAGES}", "--prevalence=0.5")
    data = f"{folder}/data"
    job.run(
        "label-index", f"--labels={data}/train_labels.csv", f"--images={data}/train_images",
        f"--groups={data}/train_groups.csv", f"--out={folder}/dataset", "--valid-fraction=0.2",
    )  # fmt: skip
    dataset = f"--dataset={folder}/dataset"
    models: list[Model] = []
    for name, changes in (
        ("notebook", "sampling=area,epochs=1,batch_size=16"),
        ("rsna", "epochs=12,batch_size=4"),
        ("rsna", f"image_size={2 * SIZE},epochs=1,batch_size=16"),
    ):
        place = f"{folder}/model{len(models)}"
        options = [f"--recipe={name}", f"--set={changes}"]
        job.run("train", dataset, f"--out={place}", *options)
        job.run("evaluate", f"--model={place}", dataset)
        models.append(Model(objects.absolute(place)))
        release = _offer_all(models[-1])
    model, default, large = models
    release = records.read(model.release, Release)
    same = notebook.create_network(SIZE, release.recipe.channels)
    same.set_weights(network.of_keras(model).get_weights())
    return Bench(folder, model, same, default, large)


def _offer_all(model: Model) -> Release:
    """Make the release offer all precisions of this CPU: speed is measured here, not the effect on boxes."""
    release = records.read(model.release, Release)
    float32 = release.precisions["float32"]
    reduced = replace(float32, cpu_features=engines.cpu_features())
    offers = {name: float32 if name == "float32" else reduced for name in engines.possible_precisions()}
    release = replace(release, precisions=offers)
    objects.publish(model.release, records.encode(release))
    return release


def request(shards: int, precision: str, operating_point: str = "notebook") -> plan.Request:
    """A plan on the CPU."""
    return plan.Request(
        images_per_shard=1,
        shards=shards,
        device="cpu",
        precision=precision,
        operating_point=operating_point,
    )


def copies(paths: Sequence[Path], count: int, folder: Path) -> Path:
    """A folder in `folder` with `count` images, which repeat `paths`."""
    place = folder / f"images-{count}"
    if not place.exists():
        place.mkdir()
        for number in range(count):
            (place / f"{number:05d}.dcm").hardlink_to(paths[number % len(paths)])
    return place


def with_lobar(images: Path, model: Model, place: str, wanted: plan.Request) -> None:
    """From a folder of images to the table of a shard."""
    prediction = Prediction(objects.absolute(place))
    plan.make(str(images), model, prediction, wanted)
    shard.run(prediction, 0, 0)


def with_notebook(network: keras.Model, paths: Sequence[Path], table: Path) -> None:
    """From images to a table with the notebook's loop."""
    predicted = notebook.predict(network, paths)
    table.write_bytes(to_csv(SubmissionRow(*row) for row in predicted.items()))


def rows(bench: Bench) -> Iterator[Row]:
    """Each step, then the complete prediction from storage to CSV, then complete processes."""
    paths = bench.paths[:BATCH]
    bodies = [path.read_bytes() for path in paths]
    yield from _decoding(paths, bodies)
    levels = np.stack([dicom.network_input(body, SIZE, Sampling.AREA)[0] for body in bodies])
    networks = {
        network.NOTEBOOK: bench.model,
        "default network": bench.default,
        f"default network, {2 * SIZE} pixels": bench.large,
    }
    yield from network.rows(networks, levels)
    yield _boxes()
    yield from _whole(bench)
    yield _sampling(bench)
    yield from _processes(bench)


def _decoding(paths: list[Path], bodies: list[bytes]) -> Iterator[Row]:
    for sampling, target in ((Sampling.AREA, "×8"), (Sampling.NOTEBOOK, "×3")):
        ways: dict[str, Callable[[], object]] = {
            "notebook": lambda: [notebook.shrink(notebook.decode(path)) for path in paths],
            "lobar": partial(_network_inputs, bodies, sampling),
        }
        seconds = median_seconds(ways)
        what = f"DICOM to network input, {sampling} sampling, one core"
        yield compared(what, len(paths), seconds["notebook"], seconds["lobar"], target)


def _network_inputs(bodies: list[bytes], sampling: Sampling) -> None:
    for body in bodies:
        dicom.network_input(body, SIZE, sampling)


def _boxes() -> Row:
    """Maps as the notebook's output layer makes them, each with many regions; with fewer, lobar is faster."""
    cells = np.random.default_rng(0).beta(0.4, 0.8, (5, 16, 16)).astype(np.float32)
    maps = cells.repeat(16, 1).repeat(16, 2)
    ways: dict[str, Callable[[], object]] = {
        "notebook": lambda: [notebook.prediction_string(probabilities[..., None]) for probabilities in maps],
        "lobar": lambda: [postprocess.detect(probabilities, 1024, 1024, NOTEBOOK) for probabilities in maps],
    }
    seconds = median_seconds(ways)
    return compared(
        "probability map to boxes, one core", len(maps), seconds["notebook"], seconds["lobar"], "×40"
    )


def _whole(bench: Bench) -> Iterator[Row]:
    """From a folder of MANY images to a table, compared with the notebook's loop and CSV of IMAGES of them.

    The notebook's time per image does not depend on their number.
    """
    many = copies(bench.paths, MANY, bench.folder)
    numbers = itertools.count()

    def lobar(model: Model, precision: str) -> None:
        place = f"{bench.folder}/prediction-{next(numbers)}"
        with_lobar(many, model, place, request(1, precision))

    possible = engines.possible_precisions()
    ways = {name: partial(lobar, bench.model, name) for name in possible}
    ways |= {f"default network, {name}": partial(lobar, bench.default, name) for name in possible}
    reference = partial(with_notebook, bench.network, bench.paths, bench.folder / "notebook.csv")
    taken = median_seconds({"notebook": reference} | ways, WHOLE_ROUNDS)
    seconds = {name: taken[name] / (IMAGES if name == "notebook" else MANY) for name in taken}
    for name, target in WHOLE_TARGETS.items():
        what = f"whole prediction, storage to CSV, {cpus()} cores, {name}"
        if name in possible:
            yield compared(what, 1, seconds["notebook"], seconds[name], target)
        else:
            yield Row(what, "", "not on this CPU", "", target)
    for name in possible:
        what = f"whole prediction, default network, {cpus()} cores, {name}"
        target = "×50" if name == possible[-1] else ""
        yield compared(what, 1, seconds["notebook"], seconds[f"default network, {name}"], target)
    dollars = {name: 1e6 / 3600 * value * DOLLARS_PER_HOUR for name, value in seconds.items()}
    for name in ways:
        what = f"a million images on such CPUs at {DOLLARS_PER_HOUR} $/h, {name}"
        yield Row(what, f"{dollars['notebook']:.2f} $", f"{dollars[name]:.2f} $")


def _sampling(bench: Bench) -> Row:
    """How fast training gets its batches, images with masks, from the array of decoded images."""
    exams = read_index(Dataset(objects.absolute(f"{bench.folder}/dataset")), "train") * 20
    images = np.random.default_rng(0).integers(0, 256, (len(exams), SIZE, SIZE), np.uint8)
    split, chosen = sampler.Split(exams, images), recipe.load("rsna")

    def epoch() -> None:
        for _ in sampler.batches(split, chosen, 0, chosen.batch_size, 0):
            pass

    rate = len(exams) / median_seconds({"epoch": epoch})["epoch"]
    what = f"images/s that the recipe `rsna` samples for training, with their masks, {cpus()} cores"
    return Row(what, "", f"{rate:.0f}")


def _processes(bench: Bench) -> Iterator[Row]:
    """Time of complete processes, to `--help` and to the first box, and their peak memory."""
    seconds = median(job.measure("merge-submission", "--help")[0] for _ in range(ROUNDS))
    yield Row("duration of merge-submission --help", "", f"{seconds:.2f} s", "", "0.5 s")
    for count, rounds in ((1, ROUNDS), (IMAGES, ROUNDS), (MANY, 1)):
        images = f"--images={copies(bench.paths, count, bench.folder)}"
        measured = []
        for number in range(rounds):
            place = f"{bench.folder}/of-{count}-{number}"
            job.run("plan", images, f"--model={bench.default.url}", "--shards=1", f"--out={place}")
            measured.append(job.measure("predict", f"--prediction={place}", "--shard=0"))
        seconds, megabytes = (median(values) for values in zip(*measured, strict=True))
        what = f"predict of {count} image{'s' * (count > 1)}, start to end, and its peak memory"
        yield Row(what, "", f"{seconds:.1f} s", f"{megabytes:.0f} MB", "2 s" if count == 1 else "")
