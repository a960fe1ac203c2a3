"""One library with one network in a process of its own: threads of another library would slow it down.

python -m bench.worker LIBRARY PRECISION PLACE LEVELS predicts the images in the file LEVELS once for each
line that it reads, and prints the seconds.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from lobar.core.concurrency import cpus

BATCH = 8
# The first batch of lobar's stream runs alone, which would count too much in a stream of few batches
REPETITIONS = MappingProxyType({"lobar": 4})
Predict = Callable[[np.ndarray], object]


class Worker:
    """A process that predicts the images in `levels`, a file of an array (n, size, size).

    `place` is the URL of a model for lobar, and the file of a network for other libraries.
    """

    def __init__(self, library: str, precision: str, place: str, levels: Path) -> None:
        self._name = f"{library} in {precision}"
        command = [sys.executable, "-m", "bench.worker", library, precision, place, str(levels)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.seconds()  # the first batches of a network take longer

    def seconds(self) -> float:
        """Predict all images once. Raises RuntimeError if the process ends."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"{self._name} ended with status {self._process.wait()}")
        return float(line)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def _lobar(place: str, precision: str) -> Predict:
    from lobar.inference.engines import OpenVino
    from lobar.inference.release import Release
    from lobar.storage import records
    from lobar.storage.layout import Model

    model = Model(place)
    engine = OpenVino(model, records.read(model.release, Release).files, precision)

    def predict(levels: np.ndarray) -> None:
        starts = [*range(0, len(levels), BATCH)] * REPETITIONS["lobar"]
        for _ in engine.maps((at, levels[at : at + BATCH]) for at in starts):
            pass

    return predict


def _keras(place: str, precision: str) -> Predict:
    """As in the notebook."""
    import keras

    network = keras.saving.load_model(place, compile=False)
    return lambda levels: network.predict(levels[..., None], batch_size=len(levels), verbose=0)


def _tensorflow(place: str, precision: str) -> Predict:
    """A graph of TensorFlow, which computes with oneDNN."""
    import keras
    import tensorflow as tf

    network = keras.saving.load_model(place, compile=False)
    if precision == "bfloat16":
        _set_bfloat16(network)
    graph = tf.function(lambda levels: network(levels, training=False))
    shape, dtype = (BATCH, *network.inputs[0].shape[1:]), network.inputs[0].dtype
    concrete = graph.get_concrete_function(tf.TensorSpec(shape, dtype))
    return _in_batches(lambda levels: concrete(tf.constant(levels)).numpy())


def _set_bfloat16(layer: Any) -> None:
    layer.dtype_policy = "mixed_bfloat16"
    for part in getattr(layer, "layers", ()):
        _set_bfloat16(part)


def _onnx_runtime(place: str, precision: str) -> Predict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpus()
    session = onnxruntime.InferenceSession(place, options, providers=["CPUExecutionProvider"])
    (name,) = (given.name for given in session.get_inputs())
    return _in_batches(lambda levels: session.run(None, {name: levels}))


def _litert(place: str, precision: str) -> Predict:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=place, num_threads=cpus())
    given, found = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(given["index"], [BATCH, *given["shape"][1:]])
    interpreter.allocate_tensors()

    def predict(levels: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], levels.astype(given["dtype"]))
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(found["index"]))

    return _in_batches(predict)


def _in_batches(predict: Predict) -> Predict:
    """Predict (n, size, size) with a function for (BATCH, size, size, 1); BATCH divides n."""
    return lambda levels: [predict(levels[at : at + BATCH, ..., None]) for at in range(0, len(levels), BATCH)]


LIBRARIES = MappingProxyType(
    {
        "lobar": _lobar, "Keras": _keras, "TensorFlow": _tensorflow, "ONNX Runtime": _onnx_runtime,
        "LiteRT": _litert,
    }
)  # fmt: skip


def main(library: str, precision: str, place: str, file: str) -> None:
    results, sys.stdout = sys.stdout, sys.stderr  # libraries print too
    predict, levels = LIBRARIES[library](place, precision), np.load(file)
    for _ in sys.stdin:
        started = time.perf_counter()
        predict(levels)
        seconds = (time.perf_counter() - started) / REPETITIONS.get(library, 1)
        print(seconds, file=results, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)
