"""Keras on the backend that `core.runtime` has set, imported without its messages."""

import tempfile
from pathlib import Path

from lobar.core import console
from lobar.core.errors import InputError
from lobar.storage import records
from lobar.storage.layout import Model

with console.quiet():
    import keras
    from keras import layers, ops

    ops.zeros(1)  # looks for devices now; otherwise its messages would appear during the run

__all__ = ["keras", "layers", "load", "make_deterministic", "ops"]


def make_deterministic() -> None:
    """Make the same operations give the same bytes in every run on one kind of device, GPUs included."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def load(model: Model, sha256: str) -> keras.Model:
    """A model's network from its Keras file.

    Raises InputError if the file was altered, is not a network, or contains code, which is never run.
    """
    data = records.get(model.keras, sha256)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "model.keras")
        file.write_bytes(data)
        try:
            return keras.saving.load_model(file, compile=False, safe_mode=True)
        except (ValueError, TypeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"{model.keras(sha256)}: not a network that may be loaded: {reason}") from error
