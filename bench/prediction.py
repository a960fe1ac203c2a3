"""Predicting a folder of DICOMs: lobar beside the notebook, same files and weights."""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import keras
import numpy as np

from bench import notebook, quality
from bench.table import ROUNDS, Row, compared, median_seconds
from jobs import __main__ as jobs
from lobar.core.concurrency import cpus
from lobar.data.index import read_index
from lobar.imaging import dicom
from lobar.imaging.sampling import Sampling
from lobar.inference import engines, plan, postprocess, shard, submission
from lobar.inference.engines import OpenVino
from lobar.inference.release import NOTEBOOK
from lobar.storage import objects, records
from lobar.storage.layout import Dataset, Model, Prediction
from lobar.training import sampler

IMAGES = 100
SIZE = 256
BATCH = 25
NOTEBOOK_GFLOP = 20.5  # of the network for one image
DOLLARS_PER_HOUR = 0.0892  # two vCPUs on demand: AWS, c7i.large, us-east-1
WANTED = {"float32": "", "bfloat16": "×2.8", "int8": "×5.3"}
WANTED_WHOLE = {"float32": "", "bfloat16": "×5", "int8": "×8.5"}


@dataclass(frozen=True)
class Bench:
    """Generated films, the notebook's network with one set of weights, as both of them want it, and ours."""

    folder: Path
    model: Model
    network: keras.Model
    ours: Model

    @property
    def paths(self) -> list[Path]:
        return sorted((self.folder / "data/test_images").glob("*.dcm"))


def prepare(folder: Path) -> Bench:
    """Demo data, and networks of the notebook's size and of `make run`'s, each trained for one epoch."""
    root, model = objects.absolute(str(folder)), f"{folder}/model"
    _job("demo-data", f"--out={folder}/data", "--train=80", f"--test={IMAGES}", "--prevalence=0.5")
    data = f"{folder}/data"
    _job(
        "label-index", f"--labels={data}/train_labels.csv", f"--images={data}/train_images",
        f"--groups={data}/train_groups.csv", f"--out={folder}/dataset", "--valid-fraction=0.2",
    )  # fmt: skip
    small = ("--image-size=128", "--channels=12", "--depth=2")
    for place, size in ((model, ()), (f"{folder}/ours", small)):
        _job("train", f"--dataset={folder}/dataset", f"--out={place}", "--epochs=1", "--batch-size=16", *size)
        _job("evaluate", f"--model={place}", f"--dataset={folder}/dataset")
    _offer_all(Model(f"{root}/model"))
    network = notebook.create_network(SIZE, 32)
    network.set_weights(keras.saving.load_model(f"{model}/model.keras", compile=False).get_weights())
    return Bench(folder, Model(f"{root}/model"), network, Model(f"{root}/ours"))


def _offer_all(model: Model) -> None:
    """Let the release offer whatever this CPU computes in: speed is measured here, not what it costs."""
    release = records.read_record(model.release, "evaluate")
    exact = release["precisions"]["float32"]
    release["precisions"] = {
        name: exact | {"cpu_features": [] if name == "float32" else engines.cpu_features()}
        for name in engines.possible_precisions()
    }
    records.write_json(model.release, release)


def _job(*arguments: str) -> None:
    if status := jobs.main([*arguments]):
        raise SystemExit(status)


def rows(bench: Bench) -> Iterator[Row]:
    """Every step by itself, then all of it from storage to CSV, then whole processes."""
    paths = bench.paths[:BATCH]
    bodies = [path.read_bytes() for path in paths]
    yield from _decoding(paths, bodies)
    levels = np.stack([dicom.network_input(body, SIZE, Sampling.AREA)[0] for body in bodies])
    yield from _network(bench, levels)
    yield _boxes()
    yield from _whole(bench)
    yield _draws(bench)
    yield from _processes(bench)


def _decoding(paths: list[Path], bodies: list[bytes]) -> Iterator[Row]:
    for sampling, wanted in ((Sampling.AREA, "×8"), (Sampling.NOTEBOOK, "×3")):
        seconds = median_seconds(
            notebook=lambda: [notebook.shrink(notebook.decode(path)) for path in paths],
            lobar=lambda kind=sampling: [dicom.network_input(body, SIZE, kind) for body in bodies],
        )
        what = f"DICOM to network input, {sampling} sampling, one core"
        yield compared(what, len(paths), seconds["notebook"], seconds["lobar"], wanted)


def _network(bench: Bench, levels: np.ndarray) -> Iterator[Row]:
    floats = (levels / 255).astype(np.float32)[..., None]
    parts = [(at, levels[at : at + OpenVino.batch]) for at in range(0, len(levels), OpenVino.batch)]
    opened = {name: _open(bench, name) for name in engines.possible_precisions()}
    seconds = median_seconds(
        notebook=lambda: bench.network.predict(floats, batch_size=BATCH, verbose=0),
        **{name: (lambda engine=engine: list(engine.maps(parts))) for name, engine in opened.items()},
    )
    for name, wanted in WANTED.items():
        what = f"network in {name}, {cpus()} cores"
        if name in opened:
            yield compared(what, len(levels), seconds["notebook"], seconds[name], wanted)
        else:
            yield Row(what, "", "not this CPU", "", wanted)
    peak = _peak_gflops()
    reached = NOTEBOOK_GFLOP * len(levels) / seconds["float32"]
    what = "share of NumPy's matrix product reached in float32"
    yield Row(what, f"{peak:.0f} GFLOP/s", f"{reached:.0f} GFLOP/s", f"{100 * reached / peak:.0f} %")


def _open(bench: Bench, precision: str) -> OpenVino:
    files = records.read_record(bench.model.release, "evaluate")["files"]
    engine = OpenVino(bench.model, files, precision)
    list(engine.maps([(None, np.zeros((1, SIZE, SIZE), np.uint8))]))
    return engine


def _peak_gflops() -> float:
    matrix = np.ones((3000, 3000), np.float32)
    seconds = median_seconds(product=lambda: matrix @ matrix)["product"]
    return 2 * len(matrix) ** 3 / seconds / 1e9


def _boxes() -> Row:
    """Maps of the notebook's head with many regions each; one without any takes lobar no time."""
    cells = np.random.default_rng(0).beta(0.4, 0.8, (5, 16, 16)).astype(np.float32)
    maps = cells.repeat(16, 1).repeat(16, 2)
    seconds = median_seconds(
        notebook=lambda: [notebook.prediction_string(each[..., None]) for each in maps],
        lobar=lambda: [postprocess.detect(each, 1024, 1024, NOTEBOOK) for each in maps],
    )
    return compared("map to boxes, one core", len(maps), seconds["notebook"], seconds["lobar"], "×40")


def _whole(bench: Bench) -> Iterator[Row]:
    """A shard from the folder to its committed table, against the notebook's loop and its CSV."""
    numbers = iter(range(1000))

    def ours(model: Model, precision: str) -> None:
        place = Prediction(objects.absolute(f"{bench.folder}/prediction-{next(numbers)}"))
        images = f"{bench.folder}/data/test_images"
        plan.make(images, model, 1, place, "cpu", precision, "notebook")
        shard.run(place, 0, 0)

    def notebooks() -> None:
        rows = notebook.predict(bench.network, bench.paths)
        (bench.folder / "notebook.csv").write_bytes(submission.to_csv(submission.HEADER, rows.items()))

    possible = engines.possible_precisions()
    ways = {name: (lambda name=name: ours(bench.model, name)) for name in possible}
    seconds = median_seconds(notebook=notebooks, own=lambda: ours(bench.ours, "float32"), **ways)
    for name, wanted in WANTED_WHOLE.items():
        what = f"all of it, storage to CSV, {cpus()} cores, {name}"
        if name in possible:
            yield compared(what, IMAGES, seconds["notebook"], seconds[name], wanted)
        else:
            yield Row(what, "", "not this CPU", "", wanted)
    what = f"all of it, with make run's network, {cpus()} cores, float32"
    yield compared(what, IMAGES, seconds["notebook"], seconds["own"], "×20")
    for name in (*possible, "own"):
        cost = {way: 1e6 / 3600 * taken / IMAGES * DOLLARS_PER_HOUR for way, taken in seconds.items()}
        how = "make run's network" if name == "own" else name
        what = f"a million images on such CPUs at {DOLLARS_PER_HOUR} $/h, {how}"
        yield Row(what, f"{cost['notebook']:.2f} $", f"{cost[name]:.2f} $")


def _draws(bench: Bench) -> Row:
    """How fast training's batches come from the array of decoded images, with their masks."""
    exams = read_index(Dataset(objects.absolute(f"{bench.folder}/dataset")), "train") * 20
    images = np.random.default_rng(0).integers(0, 256, (len(exams), SIZE, SIZE), np.uint8)
    side = sampler.Split(exams, images)
    options = quality.NOTEBOOK
    seconds = median_seconds(
        draws=lambda: sum(len(each) for each, _ in sampler.batches(side, options, 32, 0))
    )
    return Row("images/s drawn for training, with their masks", "", f"{len(exams) / seconds['draws']:.0f}")


def _processes(bench: Bench) -> Iterator[Row]:
    """What a whole process takes: to answer, to its first box, and in memory."""
    seconds = median(run("merge-submission", "--help")[0] for _ in range(ROUNDS))
    yield Row("seconds of merge-submission --help", "", f"{seconds:.2f} s", "", "0.5 s")
    for count in (1, IMAGES, 10 * IMAGES):
        images = bench.folder / f"images-{count}"
        images.mkdir()
        for number in range(count):
            (images / f"{number:05d}.dcm").hardlink_to(bench.paths[number % IMAGES])
        place = f"{bench.folder}/of-{count}"
        _job("plan", f"--images={images}", f"--model={bench.folder}/model", "--shards=1", f"--out={place}")
        seconds, megabytes = run("predict", f"--prediction={place}", "--shard=0")
        wanted = "2 s" if count == 1 else ""
        yield Row(
            f"predict of {count} images, start to end, and its peak memory",
            "",
            f"{seconds:.1f} s",
            f"{megabytes} MB",
            wanted,
        )


def run(*arguments: str) -> tuple[float, int]:
    """Seconds and peak megabytes of one job as a process of its own."""
    command = [sys.executable, "-m", "bench.peak", *arguments]
    started = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return time.perf_counter() - started, int(done.stdout.splitlines()[-1])
