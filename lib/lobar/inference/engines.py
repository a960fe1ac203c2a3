"""Batches to probability maps, on OpenVINO (CPU, without TensorFlow) or TensorFlow (GPU)."""

import logging
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, TypeVar

import numpy as np

from lobar.core.concurrency import cpus, ordered_map
from lobar.core.errors import InputError
from lobar.inference.release import Release
from lobar.storage import records
from lobar.storage.layout import Model
from lobar.training.record import ModelFiles

# OpenVINO's name of the CPU capability that each precision needs, the fastest last
PRECISIONS = MappingProxyType({"float32": "FP32", "bfloat16": "BF16", "int8": "INT8"})
# The CPU features on which the bytes of bfloat16 and int8 depend, as Linux names them on x86 and ARM
FEATURES = (
    "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8",
    "asimddp", "bf16", "i8mm",
)  # fmt: skip
IN_FLIGHT = 2
K = TypeVar("K")
log = logging.getLogger(__name__)


def possible_precisions() -> list[str]:
    """The precisions that this CPU supports, the fastest last."""
    import openvino as ov

    capabilities = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [precision for precision, capability in PRECISIONS.items() if capability in capabilities]


def cpu_features() -> list[str]:
    """The FEATURES that this CPU has; empty if the system does not report them."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "").split()
    return [feature for feature in FEATURES if feature in flags]


def resolve_precision(choice: str, device: str, release: Release) -> str:
    """The precision to plan with: `auto` is resolved here, never on the node that predicts.

    On a CPU it becomes the fastest precision that the model offers for a CPU like this one; a GPU computes in
    the precision that the model was trained in, with a warning, because that was not evaluated. Raises
    InputError if `choice` is not offered.
    """
    if device == "gpu":
        trained = release.recipe.precision.value
        if choice not in ("auto", trained):
            raise InputError(
                f"precision {choice}: on a GPU this model computes in {trained}; choose auto",
                setting="precision",
            )
        log.warning(
            "on a GPU this model computes in %s: evaluate has not judged this, and the operating point is "
            "that of float32 on a CPU",
            trained,
        )
        return trained
    if choice == "auto":
        features = cpu_features()
        same = {name for name, offer in release.precisions.items() if offer.cpu_features in ([], features)}
        return [name for name in PRECISIONS if name in same][-1]
    if choice not in release.precisions:
        raise InputError(
            f"precision {choice}: not offered by this model; choose auto or {', '.join(release.precisions)}",
            setting="precision",
        )
    return choice


def check_cpu(precision: str, needed: list[str]) -> None:
    """Raise InputError if this CPU would not compute the same bytes as the one of the model's evaluation."""
    if needed and needed != cpu_features():
        raise InputError(
            f"planned in {precision} for a CPU with {', '.join(needed)}; this one has "
            f"{', '.join(cpu_features()) or 'none of these'}; "
            "use such nodes, or plan again with precision float32"
        )


class Engine(Protocol):
    """A released network, loaded on this machine, and the number of images per batch that suits it."""

    batch: int

    def maps(self, batches: Iterable[tuple[K, np.ndarray]]) -> Iterator[tuple[K, np.ndarray]]:
        """Yield (key, probabilities) for (key, levels), in order.

        levels (n, size, size) are the integers that the network takes, probabilities of the same shape are
        float32 in 0..1; n may be 0.
        """


class OpenVino:
    """A network on the CPU. Its output does not depend on the batch size or the number of threads."""

    batch = 8

    def __init__(self, model: Model, files: ModelFiles, precision: str) -> None:
        """Load a model's files. Raises InputError if they are not the recorded ones."""
        import openvino as ov

        sha256s = files.openvino(precision)
        xml, weights = records.get(model.network, sha256s[0]), records.get(model.weights, sha256s[1])
        core = ov.Core()
        settings = {
            # OpenVINO would choose bfloat16 if the CPU has it, and use all CPUs of the node
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "INFERENCE_NUM_THREADS": cpus(),
            "NUM_STREAMS": min(IN_FLIGHT, cpus()),
        }
        self._compiled = core.compile_model(core.read_model(xml, weights), "CPU", settings)
        self._of_thread = threading.local()

    def maps(self, batches: Iterable[tuple[K, np.ndarray]]) -> Iterator[tuple[K, np.ndarray]]:
        """As in `Engine`, with a few batches in flight."""
        remaining = iter(batches)
        # alone: two first inferences at once can deadlock in OpenVINO: one thread holds the GIL and waits for
        # a C++ static that the other, waiting for the GIL, initializes
        yield from map(self._infer, islice(remaining, 1))
        yield from ordered_map(self._infer, remaining, workers=IN_FLIGHT, ahead=IN_FLIGHT + 1)

    def _infer(self, batch: tuple[K, np.ndarray]) -> tuple[K, np.ndarray]:
        key, levels = batch
        if not len(levels):
            return key, np.zeros(levels.shape, np.float32)
        if not hasattr(self._of_thread, "request"):
            self._of_thread.request = self._compiled.create_infer_request()
        output = self._of_thread.request.infer([levels[..., None]])[0]
        return key, np.array(output[..., 0], np.float32)


class TensorFlow:
    """A network on the GPU, or on the CPU if there is none.

    Its output is the same in every run on one kind of GPU with one driver; on another kind it may differ.
    """

    batch = 32

    def __init__(self, model: Model, files: ModelFiles, precision: str) -> None:
        """Load a model's file; it computes in the `precision` that it was trained in.

        Raises InputError if it is not the recorded one, or this container image has no TensorFlow.
        """
        try:
            from lobar.training import keras_backend
        except ImportError as error:
            raise InputError(
                f"there is no TensorFlow here ({error}); predict with the image that train uses"
            ) from error
        self._model = keras_backend.load(model, files.keras)
        keras_backend.make_deterministic()

    def maps(self, batches: Iterable[tuple[K, np.ndarray]]) -> Iterator[tuple[K, np.ndarray]]:
        """As in `Engine`. Each batch is padded to one size, on which an image's sums may depend."""
        for key, levels in batches:
            padded = np.zeros((self.batch, *levels.shape[1:], 1), levels.dtype)
            padded[: len(levels), ..., 0] = levels
            output = self._model.predict_on_batch(padded)
            yield key, np.asarray(output[: len(levels), ..., 0], np.float32)


ENGINE_OF_DEVICE: MappingProxyType[str, type[OpenVino] | type[TensorFlow]] = MappingProxyType(
    {"cpu": OpenVino, "gpu": TensorFlow}
)
