"""Batches -> probability maps, on OpenVINO (CPU, without TensorFlow) or TensorFlow (GPU)."""

import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import numpy as np

from lobar.core.concurrency import cpus, ordered_map
from lobar.core.errors import InputError
from lobar.storage import objects, records
from lobar.storage.layout import Model

# OpenVINO's names of what a CPU must be able to do for each precision, the fastest last
PRECISIONS = MappingProxyType({"float32": "FP32", "bfloat16": "BF16", "int8": "INT8"})
# What the bytes of bfloat16 and int8 rest on, as Linux names it on x86 and ARM
FEATURES = (
    "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8",
    "asimddp", "bf16", "i8mm",
)  # fmt: skip
IN_FLIGHT = 2
K = TypeVar("K")


def possible_precisions() -> list[str]:
    """The precisions that this CPU computes in itself, the fastest last."""
    import openvino as ov

    able = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [precision for precision, ability in PRECISIONS.items() if ability in able]


def cpu_features() -> list[str]:
    """Which of FEATURES this CPU has; none where the system does not tell."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    told = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return [feature for feature in FEATURES if feature in told.split()]


def resolve_precision(asked: str, device: str, release: dict[str, Any]) -> str:
    """The precision to plan with: `auto` becomes one here, never on the node that predicts.

    On a CPU that is the fastest that the model offers for such a CPU as this one; a GPU computes as the model
    was trained. Raises InputError where the asked one is not offered.
    """
    offered = release["precisions"]
    if device == "gpu":
        trained = str(release["options"]["precision"])
        if asked not in ("auto", trained):
            raise InputError(f"--precision {asked}: on a GPU this model computes in {trained}; choose auto")
        return trained
    if asked == "auto":
        same = {name for name, offer in offered.items() if offer["cpu_features"] in ([], cpu_features())}
        return [name for name in PRECISIONS if name in same][-1]
    if asked not in offered:
        raise InputError(
            f"--precision {asked}: not offered by this model; choose auto or {', '.join(offered)}"
        )
    return asked


def check_cpu(precision: str, needed: list[str]) -> None:
    """Raise InputError where this CPU would not compute the same bytes as the one that was evaluated on."""
    if needed and needed != cpu_features():
        raise InputError(
            f"planned in {precision} for a CPU with {', '.join(needed)}; this one has "
            f"{', '.join(cpu_features()) or 'none of these'}; "
            "choose such nodes, or plan again with --precision float32"
        )


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

    def __init__(self, model: Model, files: dict[str, str], precision: str) -> None:
        """Open a model's files on this machine. Raises InputError where they are not the recorded ones."""
        import openvino as ov

        names = model.openvino(precision)
        xml, weights = (records.read_checked(url, files[objects.name(url)]) for url in names)
        core = ov.Core()
        settings = {
            # OpenVINO would take bfloat16 by itself where the CPU has it, and count the node's CPUs
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
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

    def __init__(self, model: Model, files: dict[str, str], precision: str) -> None:
        """Open a model's file on this machine; it computes in the `precision` that it was trained in.

        Raises InputError where it is not the recorded one, or this image has no TensorFlow.
        """
        try:
            from lobar.training import keras_backend
        except ImportError as error:
            raise InputError(
                f"there is no TensorFlow here ({error}); predict with the image that train uses"
            ) from error
        self._model = keras_backend.load(model, files)

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
