"""A training's state as objects, to resume from."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lobar.core.errors import AbsentError
from lobar.storage import objects, records
from lobar.storage.records import Record
from lobar.training.keras_backend import keras
from lobar.training.record import Epoch


@dataclass(frozen=True)
class CheckpointInputs:
    """What a checkpoint is made from, in the folder of one training."""

    epoch: int


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Record):
    """The state after an epoch: the SHA-256 of weights and optimizer variables, and the history up to it."""

    MADE_BY: ClassVar[str] = "train"

    inputs: CheckpointInputs
    variables: str
    history: list[Epoch]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training: variables, named by epoch and content, then a record.

    A record names a complete object, so two pods of one training cannot corrupt each other's state.
    """

    url: str

    def save(self, model: keras.Model, history: list[Epoch]) -> None:
        """Put the state after the last epoch of `history`, then remove what it replaces."""
        body = io.BytesIO()
        np.savez(body, *(keras.ops.convert_to_numpy(variable) for variable in _variables(model)))
        epoch = len(history)
        sha256 = records.put(self._variables(epoch), body.getvalue())
        record = objects.join(self.url, f"{epoch:04d}.json")
        checkpoint = Checkpoint(inputs=CheckpointInputs(epoch), variables=sha256, history=history)
        records.create(record, checkpoint)
        for item in reversed(objects.list_objects(self.url)):  # a record goes before what it names
            # never a newer one: another pod of this training may be ahead
            if int(objects.name(item.url)[:4]) < epoch:
                objects.remove(item.url)

    def restore(self, model: keras.Model) -> list[Epoch]:
        """Load the newest complete checkpoint into `model` and return its history, empty if there is none."""
        newest = ""
        while urls := [item.url for item in objects.list_objects(self.url) if item.url.endswith(".json")]:
            previous, newest = newest, urls[-1]
            try:
                record = records.read(newest, Checkpoint)
                data = records.get(self._variables(record.inputs.epoch), record.variables)
            except AbsentError:
                if newest == previous:
                    raise
                continue  # another pod of this training has replaced it since the listing
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                for variable, name in zip(_variables(model), arrays.files, strict=True):
                    variable.assign(arrays[name])
            return record.history
        return []

    def clear(self) -> None:
        """Remove all checkpoints; the model is complete."""
        for item in reversed(objects.list_objects(self.url)):
            objects.remove(item.url)

    def _variables(self, epoch: int) -> Callable[[str], str]:
        return lambda sha256: objects.join(self.url, f"{epoch:04d}-{sha256}.npz")


def _variables(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]
