"""The decoded images of a split in memory, and the batches of an epoch."""

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lobar.core import console
from lobar.core.boxes import draw_mask
from lobar.core.concurrency import cpus, ordered_map
from lobar.core.rejections import Rejection, check_share
from lobar.data.index import Exam
from lobar.imaging import loader
from lobar.imaging.loader import Rejected
from lobar.training.recipe import Recipe

MEMORY_MAP_BYTES = 1 << 30
MAX_REJECTED = 0.01


@dataclass(frozen=True)
class Split:
    """The decoded images of one split, (images, size, size) in the sampling's integers, with their exams."""

    exams: list[Exam]
    images: np.ndarray

    def masks(self, indices: np.ndarray) -> np.ndarray:
        """Masks (len(indices), size, size), float32 0 or 1, drawn from the boxes."""
        size = self.images.shape[1]
        exams = (self.exams[i] for i in indices)
        return np.array([draw_mask(exam.boxes, exam.rows, exam.columns, size) for exam in exams], np.float32)


def load(exams: list[Exam], recipe: Recipe, name: str) -> tuple[Split, list[Rejection]]:
    """Decode the images of one split into one array, on disk if it is large.

    Returns it with the images that cannot be decoded, which are left out. Raises InputError if they are more
    than 1 in 100.
    """
    shape = (len(exams), recipe.image_size, recipe.image_size)
    dtype = np.dtype(recipe.sampling.dtype)
    if math.prod(shape) * dtype.itemsize > MEMORY_MAP_BYTES:
        # a file without a name: the system removes it, however the training ends
        with tempfile.TemporaryFile() as file:
            images: np.ndarray = np.memmap(file, dtype, "w+", shape=shape)
    else:
        images = np.empty(shape, dtype)
    kept: list[Exam] = []
    rejected: list[Rejection] = []
    decoded = loader.decoded(exams, recipe.image_size, recipe.sampling)
    for image in console.progress(decoded, len(exams), f"{name} images"):
        if isinstance(image, Rejected):
            rejected.append(image.rejection)
        else:
            images[len(kept)] = image.levels
            kept.append(image.item)
    check_share(rejected, len(exams), MAX_REJECTED, f"{name} images", setting="")
    return Split(kept, images[: len(kept)]), rejected


def batches(
    split: Split, recipe: Recipe, seed: int, batch_size: int, epoch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches (images, masks) of one epoch, (batch_size, size, size, 1) each.

    They follow from (seed, epoch) alone, so that a resumed training equals an uninterrupted one. Full batches
    only; half of the images are flipped left to right, as in the notebook.
    """
    rng = np.random.default_rng((seed, epoch))
    order = _order(split, recipe.positive_fraction, rng)
    flipped = rng.random(len(order)) > 0.5

    def batch(start: int) -> tuple[np.ndarray, np.ndarray]:
        indices, flip = order[start : start + batch_size], flipped[start : start + batch_size]
        images, masks = split.images[indices], split.masks(indices)
        images[flip], masks[flip] = images[flip, :, ::-1], masks[flip, :, ::-1]
        return images[..., None], masks[..., None]

    starts = range(0, len(order) - batch_size + 1, batch_size)
    yield from ordered_map(batch, starts, workers=cpus(), ahead=cpus() + 2)


def _order(split: Split, positive_fraction: float, rng: np.random.Generator) -> np.ndarray:
    """As many images as there are, in random order, with this share of positive ones; 0: each image once.

    To reach the share some images are repeated, no image a third time before all were used twice, and others
    are not used.
    """
    count = len(split.exams)
    positive = np.array([bool(exam.boxes) for exam in split.exams])
    if positive_fraction == 0 or positive.all() or not positive.any():
        return rng.permutation(count)
    positives = round(positive_fraction * count)
    kinds = ((positives, np.flatnonzero(positive)), (count - positives, np.flatnonzero(~positive)))
    return rng.permutation(np.concatenate([np.resize(rng.permutation(kind), size) for size, kind in kinds]))
