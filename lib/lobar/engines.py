"""Batches -> probability maps, on OpenVINO (CPU, without TensorFlow) or TensorFlow (GPU)."""

import tempfile
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, TypeVar

import numpy as np

from lobar import artifacts
from lobar.artifacts import Model
from lobar.errors import InputError
from lobar.parallel import cpus, ordered_map

PRECISIONS = ("float32",)
IN_FLIGHT = 2
K = TypeVar("K")


def resolve_precision(asked: str) -> str:
    """The precision to plan with: `auto` becomes one here, never on the node that predicts.

    Raises InputError where it is not offered.
    """
    if asked == "auto":
        return PRECISIONS[0]
    if asked not in PRECISIONS:
        raise InputError(f"--precision {asked}: not offered; choose auto or {', '.join(PRECISIONS)}")
    return asked


class Engine(Protocol):
    """A released network, open on this machine, and the number of images that it likes to get at once."""

    batch: int

    def maps(self, batches: Iterable[tuple[K, np.ndarray]]) -> Iterator[tuple[K, np.ndarray, np.ndarray]]:
        """Yield (key, levels, probabilities) for (key, levels), in order.

        levels (n, size, size) are the integers that the network takes, probabilities of the same shape are
        float32 in 0..1.
        """


class OpenVino:
    """A network on the CPU. Its output does not depend on the batch's size or the number of threads."""

    batch = 8

    def __init__(self, model: Model, files: dict[str, str]) -> None:
        """Open a model's files on this machine. Raises InputError where they are not the recorded ones."""
        import openvino as ov

        xml = artifacts.read_checked(model.openvino_xml, files["openvino.xml"])
        weights = artifacts.read_checked(model.openvino_bin, files["openvino.bin"])
        core = ov.Core()
        settings = {
            # OpenVINO would take bfloat16 by itself where the CPU has it, and count the node's CPUs
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": cpus(),
            "NUM_STREAMS": min(IN_FLIGHT, cpus()),
        }
        self._compiled = core.compile_model(core.read_model(xml, weights), "CPU", settings)
        self._of_thread = threading.local()

    def maps(self, batches: Iterable[tuple[K, np.ndarray]]) -> Iterator[tuple[K, np.ndarray, np.ndarray]]:
        """As `Engine` says, with a few batches in flight."""
        remaining = iter(batches)
        # Alone: two first inferences at once can deadlock in OpenVINO: one thread holds the GIL and
        # waits for a C++ static that the other, waiting for the GIL, initialises
        yield from map(self._infer, islice(remaining, 1))
        yield from ordered_map(self._infer, remaining, workers=IN_FLIGHT, ahead=IN_FLIGHT + 1)

    def _infer(self, batch: tuple[K, np.ndarray]) -> tuple[K, np.ndarray, np.ndarray]:
        key, levels = batch
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = self._compiled.create_infer_request()
        output = self._of_thread.request.infer([levels[..., None]])[0]
        return key, levels, np.array(output[..., 0], np.float32)


class TensorFlow:
    """A network on the GPU, or on the CPU where there is none."""

    batch = 32

    def __init__(self, model: Model, files: dict[str, str]) -> None:
        """Open a model's file on this machine.

        Raises InputError where it is not the recorded one, or this image has no TensorFlow.
        """
        data = artifacts.read_checked(model.keras, files["model.keras"])
        try:
            from lobar.backend import keras
        except ImportError as error:
            raise InputError(
                f"there is no TensorFlow here ({error}); predict with the image that train uses"
            ) from error
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch, "model.keras")
            file.write_bytes(data)
            self._model = keras.saving.load_model(file, compile=False)

    def maps(self, batches: Iterable[tuple[K, np.ndarray]]) -> Iterator[tuple[K, np.ndarray, np.ndarray]]:
        """As `Engine` says. Each batch is filled up to one size, on which an image's sums may depend."""
        for key, levels in batches:
            filled = np.zeros((self.batch, *levels.shape[1:], 1), levels.dtype)
            filled[: len(levels), ..., 0] = levels
            output = self._model.predict_on_batch(filled)
            yield key, levels, np.asarray(output[: len(levels), ..., 0], np.float32)


ENGINE_OF_DEVICE: MappingProxyType[str, type[OpenVino] | type[TensorFlow]] = MappingProxyType(
    {"cpu": OpenVino, "gpu": TensorFlow}
)
