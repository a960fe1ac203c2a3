"""Networks without reading and boxes: lobar compared with the notebook and with other libraries for CPUs."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import keras
import numpy as np
import openvino as ov
from openvino import opset13 as operations

from bench import peers
from bench.table import ROUNDS, Row, compared, median_seconds
from bench.worker import Worker
from lobar.core.concurrency import cpus
from lobar.inference import engines
from lobar.inference.release import Release
from lobar.storage import records
from lobar.storage.layout import Model

NOTEBOOK = "notebook's network"
NOTEBOOK_GFLOP = 20.5  # per image
TARGETS = {"float32": "", "bfloat16": "×5.7", "int8": "×12"}
PAUSE_SECONDS = 0.2  # in which the threads of the library before stop to wait for work
PRODUCTS, SIDE = 20, 2048
Way = tuple[str, str, str]  # network, precision, library


def rows(networks: Mapping[str, Model], levels: np.ndarray) -> Iterator[Row]:
    """Each network compared with NOTEBOOK in Keras and with each peer, then the share of the CPU's peak.

    levels (n, size, size), uint8; they are enlarged for a larger network.
    """
    possible = engines.possible_precisions()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        workers = {}
        files = {name: _images(model, levels, Path(folder)) for name, model in networks.items()}
        for name, model in networks.items():
            places = {("lobar", precision): model.url for precision in possible}
            if _size(model) == levels.shape[1]:
                converted = Path(tempfile.mkdtemp(dir=folder))
                places |= peers.convert(of_keras(model), levels, converted)
            if name == NOTEBOOK:
                places |= {("Keras", "float32"): _file(model)}
            for (library, precision), place in places.items():
                if precision in possible:
                    worker = stack.enter_context(Worker(library, precision, place, files[name]))
                    workers[name, precision, library] = worker
        seconds = _medians(workers)
    yield from _compared(networks, seconds, len(levels))
    for precision in possible:
        reached = NOTEBOOK_GFLOP * len(levels) / seconds[NOTEBOOK, precision, "lobar"]
        peak = _peak(precision)
        what = f"share of OpenVINO's matrix product in {precision}, {NOTEBOOK}"
        yield Row(what, f"{peak:.0f} GFLOP/s", f"{reached:.0f} GFLOP/s", f"{100 * reached / peak:.0f} %")


def _compared(networks: Mapping[str, Model], seconds: Mapping[Way, float], count: int) -> Iterator[Row]:
    notebook = seconds[NOTEBOOK, "float32", "Keras"]
    for name in networks:
        for precision, target in TARGETS.items():
            what, aim = f"{name} in {precision}, {cpus()} cores", target if name == NOTEBOOK else ""
            if (name, precision, "lobar") in seconds:
                yield compared(what, count, notebook, seconds[name, precision, "lobar"], aim)
            else:
                yield Row(what, "", "not on this CPU", "", aim)
    for (name, precision, library), other in seconds.items():
        if library not in ("lobar", "Keras"):
            what = f"{name} in {precision}, compared with {library}"
            yield compared(what, count, other, seconds[name, precision, "lobar"], "×1")


def _medians(workers: Mapping[Way, Worker]) -> dict[Way, float]:
    taken: dict[Way, list[float]] = {way: [] for way in workers}
    for _ in range(ROUNDS):
        for way, worker in workers.items():
            time.sleep(PAUSE_SECONDS)
            taken[way].append(worker.seconds())
    return {way: median(seconds) for way, seconds in taken.items()}


def _images(model: Model, levels: np.ndarray, folder: Path) -> Path:
    """A file with the levels at the size of a model's network."""
    scale = _size(model) // levels.shape[1]
    file = folder / f"levels-{scale}.npy"
    np.save(file, levels.repeat(scale, 1).repeat(scale, 2))
    return file


def _size(model: Model) -> int:
    return records.read(model.release, Release).recipe.image_size


def _file(model: Model) -> str:
    """The path of a model's network in Keras' format."""
    return model.keras(records.read(model.release, Release).files.keras).removeprefix("file://")


def of_keras(model: Model) -> keras.Model:
    """A model's network in Keras."""
    return keras.saving.load_model(_file(model), compile=False)


def _peak(precision: str) -> float:
    """Operations per second, in 10^9, of products of large matrices in OpenVINO, one after the other."""
    numbers = np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32) / SIDE**0.5
    given = operations.parameter([SIDE, SIDE], np.float32)
    output = given.output(0)
    for _ in range(PRODUCTS):
        right = operations.constant(numbers).output(0)
        if precision == "int8":  # OpenVINO computes in int8 where values are rounded to 256
            output = operations.fake_quantize(output, -4.0, 4.0, -4.0, 4.0, 256).output(0)
            right = operations.fake_quantize(right, -0.1, 0.1, -0.1, 0.1, 255).output(0)
        output = operations.matmul(output, right, transpose_a=False, transpose_b=True).output(0)
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": cpus(),
    }
    graph = ov.Model([output], [given], "products")
    request = ov.Core().compile_model(graph, "CPU", settings).create_infer_request()
    request.infer([numbers])
    seconds = median_seconds({"products": lambda: request.infer([numbers])})["products"]
    return 2 * PRODUCTS * SIDE**3 / seconds / 1e9
