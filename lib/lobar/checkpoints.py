"""A network's state as objects: checkpoints to resume from, and the files of the finished model."""

import io
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lobar import artifacts, quantization, storage
from lobar.artifacts import Model
from lobar.backend import keras, load
from lobar.errors import InputError


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training: weights and optimizer, named by epoch and content, then a record.

    A record that is there names a complete object; two pods of one training cannot harm each other.
    """

    url: str

    def save(self, model: keras.Model, history: list[dict[str, float]]) -> None:
        """Put the state after the last epoch of `history`, then drop what it replaces."""
        body = io.BytesIO()
        np.savez(body, *(variable.numpy() for variable in _state(model)))
        data = body.getvalue()
        epoch = len(history)
        name = f"{epoch:04d}-{artifacts.sha256(data)}.npz"
        storage.publish(storage.join(self.url, name), data)
        record = storage.join(self.url, f"{epoch:04d}.json")
        artifacts.commit(record, {"weights": name}, history=history)
        for item in reversed(storage.list_objects(self.url)):  # a record goes before what it names
            # never a newer one: another pod of this training may be ahead
            if int(storage.name(item.url)[:4]) < epoch:
                storage.remove(item.url)

    def restore(self, model: keras.Model) -> list[dict[str, float]]:
        """Load the newest complete checkpoint into `model` and return its history, empty if there is none."""
        records = [item.url for item in storage.list_objects(self.url) if item.url.endswith(".json")]
        if not records:
            return []
        record = json.loads(storage.read(records[-1]))
        name = record["inputs"]["weights"]
        data = artifacts.read_checked(storage.join(self.url, name), name[5:-4])
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            for variable, name in zip(_state(model), arrays.files, strict=True):
                variable.assign(arrays[name])
        return record["history"]

    def clear(self) -> None:
        """Drop all checkpoints; the model is complete."""
        for item in reversed(storage.list_objects(self.url)):
            storage.remove(item.url)


def _state(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]


def begin_with(model: keras.Model, place: Model, files: dict[str, str]) -> None:
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
            data = (saved / storage.name(url)).read_bytes()
            storage.publish(url, data)
            files[storage.name(url)] = artifacts.sha256(data)
    return files
