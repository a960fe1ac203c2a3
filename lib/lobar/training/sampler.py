"""The decoded images of a split in memory, and the batches of an epoch drawn from them."""

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lobar.core import console
from lobar.core.boxes import draw_mask
from lobar.core.concurrency import cpus, ordered_map
from lobar.data.index import Exam
from lobar.imaging import loader
from lobar.training.recipe import Options

MEMORY_MAP_BYTES = 1 << 30


MAX_REJECTED = 0.01


@dataclass(frozen=True)
class Split:
    """The decoded images of one side, (images, size, size) in the sampling's integers, with their exams."""

    exams: list[Exam]
    images: np.ndarray

    def masks(self, indices: np.ndarray) -> np.ndarray:
        """Masks (len(indices), size, size), float32 0 or 1, drawn from the boxes."""
        size = self.images.shape[1]
        drawn = [draw_mask(e.boxes, e.rows, e.columns, size) for e in (self.exams[i] for i in indices)]
        return np.array(drawn, np.float32)


def load(exams: list[Exam], options: Options, name: str) -> tuple[Split, dict[str, str]]:
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
    rejected: dict[str, str] = {}
    found = loader.decoded(exams, options.image_size, options.sampling, rejected)
    for exam, image in console.progress(found, len(exams), f"{name} images"):
        images[len(kept)] = image.levels
        kept.append(exam)
    advice = f"more than {MAX_REJECTED:g} of them; fix or remove them and run label-index again"
    loader.check_rejected(rejected, len(exams), MAX_REJECTED, f"{name} images", advice)
    return Split(kept, images[: len(kept)]), rejected


def batches(
    side: Split, options: Options, batch_size: int, epoch: int
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


def _order(side: Split, positives: float, rng: np.random.Generator) -> np.ndarray:
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
