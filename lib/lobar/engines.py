"""Batches -> probability maps, on OpenVINO (CPU, without TensorFlow)."""

import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

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


class OpenVino:
    """A network on the CPU. Its output does not depend on the batch's size or the number of threads."""

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
        """Yield (key, levels, probabilities) for (key, levels), in order, with a few batches in flight.

        levels (n, size, size) are the integers that the network takes, probabilities of the same shape are
        float32 in 0..1.
        """
        yield from ordered_map(self._infer, batches, workers=IN_FLIGHT, ahead=IN_FLIGHT + 1)

    def _infer(self, batch: tuple[K, np.ndarray]) -> tuple[K, np.ndarray, np.ndarray]:
        key, levels = batch
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = self._compiled.create_infer_request()
        output = self._of_thread.request.infer([levels[..., None]])[0]
        return key, levels, np.array(output[..., 0], np.float32)
