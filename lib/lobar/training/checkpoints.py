"""A training's state as objects, to resume from."""

import io
import json
from dataclasses import dataclass

import numpy as np

from lobar.storage import objects, records
from lobar.training.keras_backend import keras


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
        name = f"{epoch:04d}-{records.sha256(data)}.npz"
        objects.publish(objects.join(self.url, name), data)
        record = objects.join(self.url, f"{epoch:04d}.json")
        records.commit(record, {"weights": name}, history=history)
        for item in reversed(objects.list_objects(self.url)):  # a record goes before what it names
            # never a newer one: another pod of this training may be ahead
            if int(objects.name(item.url)[:4]) < epoch:
                objects.remove(item.url)

    def restore(self, model: keras.Model) -> list[dict[str, float]]:
        """Load the newest complete checkpoint into `model` and return its history, empty if there is none."""
        saved = [item.url for item in objects.list_objects(self.url) if item.url.endswith(".json")]
        if not saved:
            return []
        record = json.loads(objects.read(saved[-1]))
        name = record["inputs"]["weights"]
        data = records.read_checked(objects.join(self.url, name), name[5:-4])
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            for variable, name in zip(_state(model), arrays.files, strict=True):
                variable.assign(arrays[name])
        return record["history"]

    def clear(self) -> None:
        """Drop all checkpoints; the model is complete."""
        for item in reversed(objects.list_objects(self.url)):
            objects.remove(item.url)


def _state(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]
