"""One network on all GPUs of a node: each GPU processes its share of every batch. Only TensorFlow does so."""

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from lobar.core.errors import InputError
from lobar.training.keras_backend import keras

log = logging.getLogger(__name__)


def all_gpus() -> AbstractContextManager[object]:
    """A scope to create and compile a network in; with at most one GPU it changes nothing."""
    if keras.backend.backend() != "tensorflow":
        return nullcontext()
    import tensorflow as tf

    gpus = [device.name for device in tf.config.list_logical_devices("GPU")]
    return tf.distribute.MirroredStrategy(gpus).scope() if len(gpus) > 1 else nullcontext()


def prepare(model: keras.Model) -> None:
    """Make a compiled network ready for shared batches."""
    if _count(model) > 1:
        _normalize_together(model)
        # Keras builds losses and metrics from a whole batch alone
        whole = np.zeros((1, *model.input_shape[1:]), np.float32)
        model.test_on_batch(whole, whole)


def batch_size(model: keras.Model, requested: int, images: int) -> int:
    """The batch size to use: at most the requested one and the number of images, and a multiple of the GPUs.

    Raises InputError if no image is left.
    """
    count = _count(model)
    size = min(requested, images)
    size -= size % count
    if size == 0:
        raise InputError(
            f"batch_size {requested} and {images} training images for {count} GPUs: each GPU needs one image "
            "per step; use a larger batch, more images or fewer GPUs"
        )
    if size < requested:
        shared = f" for {count} GPUs" if count > 1 else ""
        log.warning("%d training images%s: the batch shrinks from %d to %d", images, shared, requested, size)
    return size


def share(model: keras.Model, batch: np.ndarray) -> Any:
    """Each GPU's share of a batch, in the order of its images; the batch itself if there is one GPU."""
    count = _count(model)
    if count == 1:
        return batch
    shares = np.split(batch, count)
    return model.distribute_strategy.experimental_distribute_values_from_function(
        lambda gpu: shares[gpu.replica_id_in_sync_group]
    )


def _count(model: keras.Model) -> int:
    # another backend's model has no strategy, and uses one GPU
    strategy = getattr(model, "distribute_strategy", None)
    return strategy.num_replicas_in_sync if strategy else 1


def _normalize_together(model: keras.Model) -> None:
    """Normalize by the statistics of the whole batch, not by those of a GPU's share of it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            _normalize_together(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
