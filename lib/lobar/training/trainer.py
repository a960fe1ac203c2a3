"""Fit a network on a dataset: epochs, schedule, resume, and the record of the training."""

import csv
import io
import logging
import math
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from lobar.core import console
from lobar.core.errors import InputError
from lobar.core.version import code_version
from lobar.data import drift
from lobar.data.index import read_index
from lobar.storage import objects, records
from lobar.storage.layout import Dataset, Model
from lobar.training import checkpoints, distributed, export, losses, networks
from lobar.training.keras_backend import keras
from lobar.training.recipe import Options
from lobar.training.sampler import Split, batches, load

log = logging.getLogger(__name__)


def cosine(epoch: int, epochs: int, learning_rate: float) -> float:
    """Learning rate of an epoch: from `learning_rate` down to 0 after `epochs`. Source: the notebook."""
    return learning_rate * (math.cos(math.pi * min(epoch, epochs) / epochs) + 1) / 2


def compile_network(options: Options) -> keras.Model:
    """The network of the options with seeded weights, optimizer, loss and metrics."""
    keras.utils.set_random_seed(options.seed)
    keras.config.set_dtype_policy(options.precision)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    with distributed.all_of_this_node():
        model = networks.create(
            options.network,
            options.sampling,
            options.image_size,
            options.channels,
            options.blocks,
            options.depth,
        )
        model.compile(
            optimizer=keras.optimizers.Adam(options.learning_rate),
            loss=losses.LOSSES[options.loss],
            metrics=["accuracy", losses.mean_iou],
            jit_compile=False,
        )
        # Adam makes its variables at the first step otherwise; a checkpoint has them
        model.optimizer.build(model.trainable_variables)
    distributed.prepare(model)
    return model


def fit(
    model: keras.Model, train: Split, valid: Split, options: Options, saved: checkpoints.Checkpoints
) -> list[dict[str, float]]:
    """Train to the last epoch, from the newest complete checkpoint if there is one; return the history.

    Each epoch ends with a checkpoint: a stopped or killed training loses no more than the epoch it was in.
    """
    batch_size = distributed.batch_size(model, options.batch_size, len(train.exams))
    history = saved.restore(model)
    if history:
        log.info("resumed after epoch %d of %d", len(history), options.epochs)
    for epoch in range(len(history), options.epochs):
        started = time.monotonic()
        row = _epoch(model, train, options, batch_size, epoch)
        row |= {f"val_{key}": value for key, value in validate(model, valid, batch_size).items()}
        _check_finite(row, options)
        history.append(row)
        saved.save(model, history)
        shown = ", ".join(f"{key} {row[key]:.4f}" for key in ("loss", "val_loss", "val_mean_iou"))
        seconds = time.monotonic() - started
        log.info("epoch %d of %d: %s, %.1f s", epoch + 1, options.epochs, shown, seconds)
    return history


def _epoch(
    model: keras.Model, train: Split, options: Options, batch_size: int, epoch: int
) -> dict[str, float]:
    rate = cosine(epoch, options.schedule_epochs, options.learning_rate)
    model.optimizer.learning_rate = rate
    drawn = batches(train, options, batch_size, epoch)
    steps = len(train.exams) // batch_size
    seen = [
        (
            len(images),
            model.train_on_batch(
                distributed.share(model, images), distributed.share(model, masks), return_dict=True
            ),
        )
        for images, masks in console.progress(drawn, steps, f"epoch {epoch + 1}")
    ]
    return {"epoch": epoch + 1, "learning_rate": rate, **_means(seen)}


def _check_finite(row: dict[str, float], options: Options) -> None:
    if not (math.isfinite(row["loss"]) and math.isfinite(row["val_loss"])):
        raise InputError(
            f"the training diverged in epoch {row['epoch']}: loss {row['loss']}, val_loss {row['val_loss']}; "
            f"give a smaller --learning-rate than {options.learning_rate:g}"
        )


def validate(model: keras.Model, side: Split, batch_size: int) -> dict[str, float]:
    """Loss, accuracy and mean_iou over all images of a side."""
    seen = []
    for start in range(0, len(side.exams), batch_size):
        indices = np.arange(start, min(start + batch_size, len(side.exams)))
        masks = side.masks(indices)[..., None]
        seen.append(
            (len(indices), model.test_on_batch(side.images[indices, ..., None], masks, return_dict=True))
        )
    return _means(seen)


def _means(seen: list[tuple[int, dict[str, float]]]) -> dict[str, float]:
    """Each metric's mean over images, from batches of so many; Keras gives those of a batch alone."""
    weights = [count for count, _ in seen]
    return {key: float(np.average([logs[key] for _, logs in seen], weights=weights)) for key in seen[0][1]}


def run(data: Dataset, model: Model, options: Options) -> dict[str, Any]:
    """Train on a dataset and put the model's files; return its record, new or already there.

    Raises InputError where the dataset or an option is wrong, or the place holds another training.
    """
    manifest = records.read_record(data.manifest, "label-index")
    inputs = {
        "dataset": data.url,
        "index": manifest["index"],
        "options": asdict(options),
        "lobar": code_version(),
    }
    saved = checkpoints.Checkpoints(model.checkpoints(records.digest(inputs)[:12]))
    if options.init:
        began = records.read_record(Model(options.init).training, "train")
        inputs["init"] = began["files"]["openvino.bin"]  # model.keras has the time in it
    if record := records.already(model.training, inputs, "train"):
        log.info("trained already: %s", model.url)
        saved.clear()  # what an attempt may have left that was ended while it did so itself
        return record
    compiled = compile_network(options)
    if options.init:
        export.warm_start(compiled, Model(options.init), began["files"])
    train, rejected = load(read_index(data, "train"), options, "train")
    valid, others = load(read_index(data, "valid"), options, "valid")
    history = fit(compiled, train, valid, options, saved)
    files = export.export(compiled, model, train.images)
    table = io.StringIO()
    writer = csv.DictWriter(table, history[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    objects.publish(model.history, table.getvalue().encode())
    record = records.commit(
        model.training,
        inputs,
        files=files,
        parameters=compiled.count_params(),
        profile=drift.profile(train.exams, train.images, options.sampling),
        rejected=rejected | others,
    )
    saved.clear()
    return record
