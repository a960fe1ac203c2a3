"""The files of a trained network: for Keras, and for OpenVINO in float32 and int8."""

import tempfile
from pathlib import Path

import numpy as np
import openvino as ov

from lobar.core.errors import InputError
from lobar.storage import records
from lobar.storage.layout import Model
from lobar.training import openvino_graph, quantization
from lobar.training.keras_backend import keras, load
from lobar.training.record import ModelFiles


def warm_start(network: keras.Model, model: Model, files: ModelFiles) -> None:
    """Give `network` the weights of a trained model. Raises InputError if that is another network."""
    weights = load(model, files.keras).get_weights()
    if [array.shape for array in weights] != [array.shape for array in network.get_weights()]:
        raise InputError(
            f"init {model.url}: another network; "
            "use its values of network, encoder, channels, blocks and depth"
        )
    network.set_weights(weights)


def export(network: keras.Model, model: Model, levels: np.ndarray) -> ModelFiles:
    """Put the files of a network, and return their SHA-256.

    levels (images, size, size) are training images in the network's integers, to calibrate int8 on.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        network.save(folder / "model.keras", include_optimizer=False)
        _in_float32(network, folder).export(str(folder / "keras.xml"), format="openvino", verbose=False)
        float32 = ov.Core().read_model(folder / "keras.xml")
        int8 = quantization.to_int8(float32, levels)
        for name, graph in (("float32", float32), ("int8", int8)):
            openvino_graph.speed_up(graph)
            ov.save_model(graph, folder / f"{name}.xml", compress_to_fp16=False)
        return ModelFiles(
            keras=records.put(model.keras, (folder / "model.keras").read_bytes()),
            float32_network=records.put(model.network, (folder / "float32.xml").read_bytes()),
            float32_weights=records.put(model.weights, (folder / "float32.bin").read_bytes()),
            int8_network=records.put(model.network, (folder / "int8.xml").read_bytes()),
            int8_weights=records.put(model.weights, (folder / "int8.bin").read_bytes()),
        )


def _in_float32(network: keras.Model, folder: Path) -> keras.Model:
    """The network, or a copy that computes in float32 if it was trained in mixed precision.

    In `folder` is its file. NNCF rejects bfloat16, and evaluation needs float32 to compare int8 with.
    """
    if keras.config.dtype_policy().compute_dtype == "float32":
        return network
    copy = keras.saving.load_model(folder / "model.keras", compile=False, safe_mode=True)
    _set_float32(copy)
    return copy


def _set_float32(layer: keras.Layer) -> None:
    layer.dtype_policy = "float32"
    for part in getattr(layer, "layers", ()):
        _set_float32(part)
