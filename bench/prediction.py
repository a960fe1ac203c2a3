"""Predicting a folder of DICOMs: lobar beside the notebook, same files and weights, in one run.

python -m bench.prediction: every step by itself, then all of it from storage to CSV, memory and start-up.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import keras
import numpy as np

from bench import notebook
from jobs import __main__ as jobs
from lobar import artifacts, console, detect, dicom, plan, prediction, storage, submission
from lobar.dicom import Sampling
from lobar.engines import OpenVino
from lobar.parallel import cpus

IMAGES = 100
ROUNDS = 5
SIZE = 256


@dataclass(frozen=True)
class Bench:
    """Generated films, and the notebook's network with one set of weights, as both of them want it."""

    folder: Path
    model: artifacts.Model
    network: keras.Model

    @property
    def paths(self) -> list[Path]:
        return sorted((self.folder / "data/test_images").glob("*.dcm"))


def prepare(folder: Path) -> Bench:
    """Demo data and a network of the notebook's full size, trained for one epoch by lobar's own jobs."""
    root, model = storage.absolute(str(folder)), f"{folder}/model"
    _job("demo-data", f"--out={folder}/data", "--train=80", f"--test={IMAGES}", "--prevalence=0.5")
    data = f"{folder}/data"
    _job(
        "label-index", f"--labels={data}/train_labels.csv", f"--images={data}/train_images",
        f"--groups={data}/train_groups.csv", f"--out={folder}/dataset", "--valid-fraction=0.2",
    )  # fmt: skip
    _job("train", f"--dataset={folder}/dataset", f"--out={model}", "--epochs=1", "--batch-size=16")
    _job("evaluate", f"--model={model}", f"--dataset={folder}/dataset")
    network = notebook.create_network(SIZE, 32)
    network.set_weights(keras.saving.load_model(f"{model}/model.keras", compile=False).get_weights())
    return Bench(folder, artifacts.Model(f"{root}/model"), network)


def _job(*arguments: str) -> None:
    if status := jobs.main([*arguments]):
        raise SystemExit(status)


def compare(what: str, notebooks: Callable[[], object], ours: Callable[[], object], count: int) -> None:
    """One line: milliseconds an image, both in turn, so that a busy machine is busy for both."""
    rounds = [(_seconds(notebooks), _seconds(ours)) for _ in range(ROUNDS)]
    theirs, lobars = (1000 * median(of_way) / count for of_way in zip(*rounds, strict=True))
    print(f"{what:44}{theirs:10.2f}{lobars:10.2f}{theirs / lobars:8.1f}", flush=True)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def steps(bench: Bench) -> None:
    """Decoding, the network and the post-processing, each by itself."""
    paths = bench.paths[:25]
    bodies = [path.read_bytes() for path in paths]
    for sampling in Sampling:
        compare(
            f"DICOM to network input, {sampling} sampling, one core",
            lambda: [notebook.shrink(notebook.decode(path)) for path in paths],
            lambda kind=sampling: [dicom.network_input(body, SIZE, kind) for body in bodies],
            len(paths),
        )
    levels = np.stack([dicom.network_input(body, SIZE, Sampling.AREA)[0] for body in bodies])
    floats = (levels / 255).astype(np.float32)[..., None]
    files = artifacts.read_record(bench.model.release, "evaluate")["files"]
    engine = OpenVino(bench.model, files)
    parts = [(at, levels[at : at + engine.batch]) for at in range(0, len(levels), engine.batch)]
    compare(
        f"network in float32, {cpus()} cores",
        lambda: bench.network.predict(floats, batch_size=25, verbose=0),
        lambda: list(engine.maps(parts)),
        len(levels),
    )
    maps = [probabilities for *_, batch in engine.maps(parts) for probabilities in batch]
    compare(
        "map to boxes, one core",
        lambda: [notebook.prediction_string(each[..., None]) for each in maps[:5]] * 5,
        lambda: [detect.detect(each, 1024, 1024, detect.NOTEBOOK) for each in maps],
        len(maps),
    )


def whole(bench: Bench) -> None:
    """A shard from the folder to its committed table, against the notebook's loop and its CSV."""
    numbers = iter(range(1000))

    def ours() -> None:
        place = artifacts.Prediction(storage.absolute(f"{bench.folder}/prediction-{next(numbers)}"))
        images = f"{bench.folder}/data/test_images"
        plan.make(images, bench.model, 1, place, "cpu", "auto", "notebook")
        prediction.run(place, 0, 0)

    def notebooks() -> None:
        rows = notebook.predict(bench.network, bench.paths)
        (bench.folder / "notebook.csv").write_bytes(submission.to_csv(submission.HEADER, rows.items()))

    compare(f"all of it, {cpus()} cores, float32", notebooks, ours, IMAGES)


def processes(bench: Bench) -> None:
    """What a whole process takes: to answer, to its first box, and in memory."""
    help_seconds = median(_run("merge-submission", "--help")[0] for _ in range(ROUNDS))
    print(f"python -m jobs merge-submission --help: {help_seconds:.2f} s")
    for count in (1, IMAGES, 10 * IMAGES):
        images = bench.folder / f"images-{count}"
        images.mkdir()
        for number in range(count):
            (images / f"{number:05d}.dcm").hardlink_to(bench.paths[number % IMAGES])
        place = f"{bench.folder}/of-{count}"
        _job("plan", f"--images={images}", f"--model={bench.folder}/model", "--shards=1", f"--out={place}")
        seconds, megabytes = _run("predict", f"--prediction={place}", "--shard=0")
        print(f"predict of {count:4} images: {seconds:6.1f} s from start to end, peak {megabytes} MB")


def _run(*arguments: str) -> tuple[float, int]:
    """Seconds and peak megabytes of one job as a process of its own."""
    command = [sys.executable, "-m", "bench.peak", *arguments]
    started = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return time.perf_counter() - started, int(done.stdout.splitlines()[-1])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = prepare(Path(folder))
        print(f"\nmilliseconds an image, medians of {ROUNDS} rounds in turn")
        print(f"{'':44}{'notebook':>10}{'lobar':>10}{'times':>8}")
        steps(bench)
        whole(bench)
        processes(bench)


if __name__ == "__main__":
    main()
    console.leave(0)
