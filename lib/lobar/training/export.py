"""The files of a trained network: for Keras, and for OpenVINO in float32 and int8."""

import tempfile
from pathlib import Path

import numpy as np

from lobar.core.errors import InputError
from lobar.storage import objects, records
from lobar.storage.layout import Model
from lobar.training import quantization
from lobar.training.keras_backend import keras, load


def warm_start(model: keras.Model, place: Model, files: dict[str, str]) -> None:
    """Give `model` the weights of a trained one; files are the SHA-256 of its files.

    Raises InputError where that is another network.
    """
    weights = load(place, files).get_weights()
    if [each.shape for each in weights] != [each.shape for each in model.get_weights()]:
        raise InputError(
            f"--init {place.url}: another network; give the same --network, --channels, --blocks and --depth"
        )
    model.set_weights(weights)


def export(model: keras.Model, place: Model, levels: np.ndarray) -> dict[str, str]:
    """Put the network for Keras and for OpenVINO, and return each file's SHA-256 by name.

    levels (images, size, size) are training images in the network's integers, to calibrate int8 on.
    """
    files = {}
    with tempfile.TemporaryDirectory() as scratch:
        saved = Path(scratch)
        model.save(saved / "model.keras", include_optimizer=False)
        model.export(str(saved / "openvino.xml"), format="openvino", verbose=False)
        quantization.to_int8(saved / "openvino.xml", levels, saved / "openvino-int8.xml")
        for url in (place.keras, *place.openvino("float32"), *place.openvino("int8")):
            data = (saved / objects.name(url)).read_bytes()
            objects.publish(url, data)
            files[objects.name(url)] = records.sha256(data)
    return files
