"""Fit a network on a dataset: draws, epochs, schedule, resume, and the files of a trained model."""

import csv
import io
import logging
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lobar import (
    artifacts,
    checkpoints,
    code_version,
    console,
    dataset,
    drift,
    gpus,
    losses,
    network,
    storage,
    stream,
)
from lobar.backend import keras
from lobar.dataset import Exam
from lobar.dicom import Sampling
from lobar.errors import InputError
from lobar.geometry import draw_mask
from lobar.parallel import cpus, ordered_map

MEMORY_MAP_BYTES = 1 << 30
MAX_REFUSED = 0.01
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """All that a training depends on besides its dataset. Rates are per step, sizes in pixels.

    `positives` is the share of positive images that an epoch draws, 0 for the share that they have. `init` is
    the URL of a model whose weights it begins with, empty for random ones.
    """

    network: str
    sampling: Sampling
    image_size: int
    channels: int
    blocks: int
    depth: int
    epochs: int
    schedule_epochs: int
    loss: str
    batch_size: int
    learning_rate: float
    positives: float
    precision: str
    seed: int
    init: str = ""


@dataclass(frozen=True)
class Side:
    """The decoded images of one side, (images, size, size) in the sampling's integers, with their exams."""

    exams: list[Exam]
    images: np.ndarray

    def masks(self, indices: np.ndarray) -> np.ndarray:
        """Masks (len(indices), size, size), float32 0 or 1, drawn from the boxes."""
        size = self.images.shape[1]
        drawn = [draw_mask(e.boxes, e.rows, e.columns, size) for e in (self.exams[i] for i in indices)]
        return np.array(drawn, np.float32)


def load(exams: list[Exam], options: Options, name: str) -> tuple[Side, dict[str, str]]:
    """Decode the images of one side into one array, on disk when large.

    Returns it with the images that cannot be decoded and why; they are left out. Raises InputError
    where they are more than 1 in 100.
    """
    shape = (len(exams), options.image_size, options.image_size)
    dtype = np.dtype(options.sampling.dtype)
    if math.prod(shape) * dtype.itemsize > MEMORY_MAP_BYTES:
        # a file without a name: nothing is left of it, however the training ends
        with tempfile.TemporaryFile() as file:
            images: np.ndarray = np.memmap(file, dtype, "w+", shape=shape)
    else:
        images = np.empty(shape, dtype)
    kept: list[Exam] = []
    refused: dict[str, str] = {}
    found = stream.decoded(exams, options.image_size, options.sampling, refused)
    for exam, image in console.progress(found, len(exams), f"{name} images"):
        images[len(kept)] = image.levels
        kept.append(exam)
    advice = f"more than {MAX_REFUSED:g} of them; mend or remove them and run label-index again"
    stream.check_refused(refused, len(exams), MAX_REFUSED, f"{name} images", advice)
    return Side(kept, images[: len(kept)]), refused


def draws(
    side: Side, options: Options, batch_size: int, epoch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches (images, masks) of one epoch, from (seed, epoch) alone, so that a resumed training equals
    an undisturbed one. Full batches only; half of the images are flipped left to right, as in the notebook.
    """
    rng = np.random.default_rng((options.seed, epoch))
    order = _order(side, options.positives, rng)
    flipped = rng.random(len(order)) > 0.5

    def draw(start: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = slice(start, start + batch_size)
        images, masks = side.images[order[chosen]], side.masks(order[chosen])
        flip = flipped[chosen]
        images[flip], masks[flip] = images[flip, :, ::-1], masks[flip, :, ::-1]
        return images[..., None], masks[..., None]

    starts = range(0, len(order) - batch_size + 1, batch_size)
    yield from ordered_map(draw, starts, workers=cpus(), ahead=cpus() + 2)


def _order(side: Side, positives: float, rng: np.random.Generator) -> np.ndarray:
    """As many images as there are, in random order; of them the share `positives`, 0 for all of them once.

    To reach the share some images come again, none a third time before all came twice, and others not.
    """
    count = len(side.exams)
    positive = np.array([bool(exam.boxes) for exam in side.exams])
    if positives == 0 or positive.all() or not positive.any():
        return rng.permutation(count)
    wanted = round(positives * count)
    kinds = ((wanted, np.flatnonzero(positive)), (count - wanted, np.flatnonzero(~positive)))
    return rng.permutation(np.concatenate([np.resize(rng.permutation(kind), of) for of, kind in kinds]))


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
    with gpus.all_of_this_node():
        model = network.create(
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
    gpus.prepare(model)
    return model


def fit(
    model: keras.Model, train: Side, valid: Side, options: Options, saved: checkpoints.Checkpoints
) -> list[dict[str, float]]:
    """Train to the last epoch, from the newest complete checkpoint if there is one; return the history.

    Each epoch ends with a checkpoint: a stopped or killed training loses no more than the epoch it was in.
    """
    batch_size = gpus.batch_size(model, options.batch_size, len(train.exams))
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
    model: keras.Model, train: Side, options: Options, batch_size: int, epoch: int
) -> dict[str, float]:
    rate = cosine(epoch, options.schedule_epochs, options.learning_rate)
    model.optimizer.learning_rate = rate
    batches = draws(train, options, batch_size, epoch)
    steps = len(train.exams) // batch_size
    seen = [
        (
            len(images),
            model.train_on_batch(gpus.share(model, images), gpus.share(model, masks), return_dict=True),
        )
        for images, masks in console.progress(batches, steps, f"epoch {epoch + 1}")
    ]
    return {"epoch": epoch + 1, "learning_rate": rate, **_means(seen)}


def _check_finite(row: dict[str, float], options: Options) -> None:
    if not (math.isfinite(row["loss"]) and math.isfinite(row["val_loss"])):
        raise InputError(
            f"the training diverged in epoch {row['epoch']}: loss {row['loss']}, val_loss {row['val_loss']}; "
            f"give a smaller --learning-rate than {options.learning_rate:g}"
        )


def validate(model: keras.Model, side: Side, batch_size: int) -> dict[str, float]:
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


def run(data: artifacts.Dataset, model: artifacts.Model, options: Options) -> dict[str, Any]:
    """Train on a dataset and put the model's files; return its record, new or already there.

    Raises InputError where the dataset or an option is wrong, or the place holds another training.
    """
    manifest = artifacts.read_record(data.manifest, "label-index")
    inputs = {
        "dataset": data.url,
        "index": manifest["index"],
        "options": asdict(options),
        "lobar": code_version(),
    }
    saved = checkpoints.Checkpoints(model.checkpoints(artifacts.digest(inputs)[:12]))
    if options.init:
        began = artifacts.read_record(artifacts.Model(options.init).training, "train")
        inputs["init"] = began["files"]["openvino.bin"]  # model.keras has the time in it
    if record := artifacts.already(model.training, inputs, "train"):
        log.info("trained already: %s", model.url)
        saved.clear()  # what an attempt may have left that was ended while it did so itself
        return record
    compiled = compile_network(options)
    if options.init:
        checkpoints.begin_with(compiled, artifacts.Model(options.init), began["files"])
    train, refused = load(dataset.read_index(data, "train"), options, "train")
    valid, others = load(dataset.read_index(data, "valid"), options, "valid")
    history = fit(compiled, train, valid, options, saved)
    files = checkpoints.export(compiled, model, train.images)
    table = io.StringIO()
    writer = csv.DictWriter(table, history[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    storage.publish(model.history, table.getvalue().encode())
    record = artifacts.commit(
        model.training,
        inputs,
        files=files,
        parameters=compiled.count_params(),
        profile=drift.profile(train.exams, train.images, options.sampling),
        refused=refused | others,
    )
    saved.clear()
    return record
