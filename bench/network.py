"""Networks without reading and boxes: lobar compared with the notebook and with other libraries for CPUs."""

from collections.abc import Callable, Iterator
from functools import partial

import keras
import numpy as np
import openvino as ov
from openvino import opset13 as operations

from bench import peers
from bench.table import Row, compared, median_seconds
from lobar.core.concurrency import cpus
from lobar.inference import engines
from lobar.inference.engines import OpenVino
from lobar.inference.release import Release
from lobar.storage import records
from lobar.storage.layout import Model

NOTEBOOK_GFLOP = 20.5  # of its network per image
TARGETS = {"float32": "", "bfloat16": "×2.8", "int8": "×5.3"}
MATRIX = 3000


def rows(networks: dict[str, Model], notebook: keras.Model, levels: np.ndarray) -> Iterator[Row]:
    """Each network with the notebook's and with each peer, then the share of the CPU's peak.

    networks: by name, the first one the notebook's; `notebook` is the same for Keras. levels (n, size, size),
    enlarged for a network of twice that size; n is a multiple of the engine's batch.
    """
    floats = (levels / 255).astype(np.float32)[..., None]
    ways = {
        f"{name} in {precision}": _lobar(model, precision, levels)
        for name, model in networks.items()
        for precision in engines.possible_precisions()
    }
    others = {
        f"{name} in {precision}, {library}": _in_batches(predict, levels)
        for name, model in networks.items()
        if _size(model) == levels.shape[1]
        for (library, precision), predict in peers.ways(of_keras(model), levels, OpenVino.batch).items()
    }
    with_keras = partial(notebook.predict, floats, batch_size=len(floats), verbose=0)
    seconds = median_seconds(notebook=with_keras, **ways, **others)
    for name in networks:
        for precision, target in TARGETS.items():
            way, first = f"{name} in {precision}", name == next(iter(networks))
            what = f"{way}, {cpus()} cores"
            if way in seconds:
                taken = seconds["notebook"], seconds[way]
                yield compared(what, len(levels), *taken, target if first else "")
            else:
                yield Row(what, "", "not on this CPU", "", target if first else "")
    for other in others:
        way, _, library = other.partition(", ")
        if way in seconds:
            yield compared(f"{way}, compared with {library}", len(levels), seconds[other], seconds[way], "×1")
    for precision in engines.possible_precisions():
        reached = NOTEBOOK_GFLOP * len(levels) / seconds[f"{next(iter(networks))} in {precision}"]
        peak = _peak(precision)
        what = f"share of OpenVINO's matrix product in {precision}, notebook's network"
        yield Row(what, f"{peak:.0f} GFLOP/s", f"{reached:.0f} GFLOP/s", f"{100 * reached / peak:.0f} %")


def _lobar(model: Model, precision: str, levels: np.ndarray) -> Callable[[], None]:
    release = records.read(model.release, Release)
    engine, scale = OpenVino(model, release.files, precision), _size(model) // levels.shape[1]
    enlarged = levels.repeat(scale, 1).repeat(scale, 2)
    batches = [(at, enlarged[at : at + engine.batch]) for at in range(0, len(levels), engine.batch)]

    def predict() -> None:
        for _ in engine.maps(batches):
            pass

    predict()  # the first batch of a network takes longer
    return predict


def _in_batches(predict: peers.Predict, levels: np.ndarray) -> Callable[[], None]:
    def run() -> None:
        for at in range(0, len(levels), OpenVino.batch):
            predict(levels[at : at + OpenVino.batch])

    run()
    return run


def _size(model: Model) -> int:
    return records.read(model.release, Release).recipe.image_size


def of_keras(model: Model) -> keras.Model:
    """A model's network in Keras."""
    file = model.keras(records.read(model.release, Release).files.keras)
    return keras.saving.load_model(file.removeprefix("file://"), compile=False)


def _peak(precision: str) -> float:
    """Operations per second, in 10^9, of a product of two large matrices in OpenVINO."""
    numbers = np.random.default_rng(0).standard_normal((MATRIX, MATRIX), np.float32)
    given = operations.parameter([MATRIX, MATRIX], np.float32)
    left, right = given.output(0), operations.constant(numbers).output(0)
    if precision == "int8":  # what OpenVINO computes in int8 is marked by rounding to its values
        ends = (-4.0, 4.0, -4.0, 4.0, 256)
        left, right = (operations.fake_quantize(each, *ends).output(0) for each in (left, right))
    graph = ov.Model([operations.matmul(left, right, False, True)], [given], "product")
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": cpus(),
    }
    request = ov.Core().compile_model(graph, "CPU", settings).create_infer_request()
    request.infer([numbers])
    seconds = median_seconds(product=lambda: request.infer([numbers]))["product"]
    return 2 * MATRIX**3 / seconds / 1e9
