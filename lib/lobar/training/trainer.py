"""Fit a network on a dataset: epochs, schedule, resume, and the record of the training."""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import pandas as pd

from lobar.core import console
from lobar.core.errors import InputError
from lobar.data import drift
from lobar.data.index import read_index
from lobar.storage import records
from lobar.storage.layout import Dataset, Model
from lobar.training import distributed, encoders, export, losses, networks, pretrained
from lobar.training.checkpoints import Checkpoints
from lobar.training.keras_backend import keras, make_deterministic
from lobar.training.recipe import Recipe, Schedule
from lobar.training.record import Epoch, Training, TrainingInputs, inputs_of
from lobar.training.sampler import Split, batches, load

log = logging.getLogger(__name__)


def cosine(time: int, end: int, highest: float) -> float:
    """A learning rate that falls from `highest` to 0 at the time `end`. Source: the notebook, by epoch."""
    return highest * (math.cos(math.pi * min(time, end) / end) + 1) / 2


def learning_rates(recipe: Recipe, epoch: int, steps: int) -> list[float]:
    """The learning rate of each step of an epoch, counted from 0."""
    epochs = recipe.schedule_epochs or recipe.epochs
    if recipe.schedule is Schedule.EPOCH:
        return [cosine(epoch, epochs, recipe.learning_rate)] * steps
    return [cosine(epoch * steps + step, epochs * steps, recipe.learning_rate) for step in range(steps)]


def compile_network(recipe: Recipe, seed: int) -> keras.Model:
    """The network of a recipe with seeded weights, optimizer, loss and metrics."""
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(recipe.precision.value)
    make_deterministic()
    with distributed.all_gpus():
        model = networks.create(recipe)
        model.compile(
            optimizer=keras.optimizers.Adam(recipe.learning_rate),
            loss=losses.LOSSES[recipe.loss],
            metrics=["accuracy", losses.mean_iou],
            jit_compile=False,
        )
        # Adam creates its variables at the first step otherwise; a checkpoint has them
        model.optimizer.build(model.trainable_variables)
    distributed.prepare(model)
    return model


def initialize(network: keras.Model, inputs: TrainingInputs) -> None:
    """Give a network the weights that its training starts from, if they are not random.

    Raises InputError if they are missing, altered, or those of another network.
    """
    recipe = inputs.recipe
    if recipe.init:
        initial = Model(recipe.init)
        export.warm_start(network, initial, records.read(initial.training, Training).files)
    elif inputs.encoder_weights:
        data = pretrained.read(recipe, inputs.encoder_weights)
        encoders.initialize(networks.encoder_of(network, recipe), recipe, data)


def fit(
    model: keras.Model, train: Split, valid: Split, recipe: Recipe, seed: int, checkpoints: Checkpoints
) -> list[Epoch]:
    """Train to the last epoch, from the newest complete checkpoint if there is one; return the history.

    Each epoch ends with a checkpoint: an interrupted training loses no more than the epoch it was in.
    """
    batch_size = distributed.batch_size(model, recipe.batch_size, len(train.exams))
    history = checkpoints.restore(model)
    if history:
        log.info("resumed after epoch %d of %d", len(history), recipe.epochs)
    for number in range(len(history), recipe.epochs):
        started = time.monotonic()
        rates = learning_rates(recipe, number, len(train.exams) // batch_size)
        epoch_batches = batches(train, recipe, seed, batch_size, number)
        metrics = _train(model, epoch_batches, rates, f"epoch {number + 1}")
        metrics |= {f"val_{name}": value for name, value in validate(model, valid, batch_size).items()}
        epoch = Epoch(number + 1, rates[0], **metrics)
        _check_finite(epoch)
        history.append(epoch)
        checkpoints.save(model, history)
        log.info(
            "epoch %d of %d: loss %.4f, val_loss %.4f, val_mean_iou %.4f, %.1f s",
            epoch.epoch, recipe.epochs, epoch.loss, epoch.val_loss, epoch.val_mean_iou,
            time.monotonic() - started,
        )  # fmt: skip
    return history


def _train(
    model: keras.Model, epoch_batches: Iterator[tuple[np.ndarray, np.ndarray]], rates: list[float], name: str
) -> dict[str, float]:
    """One epoch, with a learning rate for each step: the mean of each metric over its images."""
    logs = []
    progress = console.progress(epoch_batches, len(rates), name)
    for rate, (images, masks) in zip(rates, progress, strict=True):
        model.optimizer.learning_rate = rate
        shares = distributed.share(model, images), distributed.share(model, masks)
        logs.append((len(images), model.train_on_batch(*shares, return_dict=True)))
    return _means(logs)


def _check_finite(epoch: Epoch) -> None:
    if not (math.isfinite(epoch.loss) and math.isfinite(epoch.val_loss)):
        raise InputError(
            f"the training diverged in epoch {epoch.epoch}: loss {epoch.loss}, val_loss {epoch.val_loss}; "
            "choose a lower learning_rate"
        )


def validate(model: keras.Model, split: Split, batch_size: int) -> dict[str, float]:
    """Loss, accuracy and mean_iou over all images of a split."""
    logs = []
    for start in range(0, len(split.exams), batch_size):
        indices = np.arange(start, min(start + batch_size, len(split.exams)))
        images, masks = split.images[indices, ..., None], split.masks(indices)[..., None]
        logs.append((len(indices), model.test_on_batch(images, masks, return_dict=True)))
    return _means(logs)


def _means(logs: list[tuple[int, dict[str, float]]]) -> dict[str, float]:
    """Each metric's mean over images, from (images, metrics) of each batch."""
    weights = [count for count, _ in logs]
    names = logs[0][1]
    return {name: float(np.average([log[name] for _, log in logs], weights=weights)) for name in names}


def run(dataset: Dataset, model: Model, recipe: Recipe, seed: int) -> Training:
    """Train on a dataset, put the model's files, and return its record, new or already there.

    Raises InputError if the dataset or the recipe is wrong, or another training is there.
    """
    inputs = inputs_of(dataset, recipe, seed)
    checkpoints = Checkpoints(model.checkpoints(records.digest(inputs)[:12]))
    if record := records.find(model.training, Training, inputs):
        log.info("trained already: %s", model.url)
        checkpoints.clear()  # an earlier attempt may have been killed while it did so
        return record
    network = compile_network(recipe, seed)
    initialize(network, inputs)
    train, rejected = load(read_index(dataset, "train"), recipe, "train")
    valid, also_rejected = load(read_index(dataset, "valid"), recipe, "valid")
    if not any(exam.boxes for exam in train.exams):
        log.warning(
            "none of the %d training images is positive: the network can only learn to find nothing",
            len(train.exams),
        )
    history = fit(network, train, valid, recipe, seed, checkpoints)
    table = pd.DataFrame([asdict(epoch) for epoch in history]).to_csv(index=False, lineterminator="\n")
    record = Training(
        inputs=inputs,
        files=export.export(network, model, train.images),
        history=records.put(model.history, table.encode()),
        parameters=network.count_params(),
        profile=drift.profile(train.exams, train.images, recipe.sampling),
        rejected=[*rejected, *also_rejected],
    )
    record = records.create(model.training, record)
    checkpoints.clear()
    return record
