"""Objects -> batches of network input, without TensorFlow: the one way from storage to pixels."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol, TypeVar

import cv2
import numpy as np

from lobar.core.concurrency import cpus, ordered_map
from lobar.core.errors import InputError, LobarError
from lobar.imaging import dicom
from lobar.imaging.dicom import Header, RejectedImage
from lobar.imaging.sampling import Sampling
from lobar.imaging.sandbox import Workers
from lobar.storage import objects

DECODER_SECONDS = 60.0
DECODER_MEMORY = 1 << 30
log = logging.getLogger(__name__)


class HasImage(Protocol):
    """An exam of an index or an image of a plan: an id and the object that holds its DICOM file."""

    @property
    def patient_id(self) -> str: ...

    @property
    def object(self) -> objects.Object: ...


E = TypeVar("E", bound=HasImage)


@dataclass(frozen=True, slots=True)
class Decoded:
    """Levels (size, size) in the sampling's integers, and the header of the image they came from."""

    levels: np.ndarray
    header: Header


def decoded(
    items: Sequence[E], size: int, sampling: Sampling, rejected: dict[str, str]
) -> Iterator[tuple[E, Decoded]]:
    """Read and decode images in order, on as many threads as there are CPUs, a few images ahead.

    An image that cannot be used is left out and entered in `rejected` by its patient id, with the reason.
    Raises the store's error for an object that cannot be read.
    """
    cv2.setNumThreads(1)  # images are decoded side by side; OpenCV's own threads would only compete

    def decode(read: tuple[objects.Object, bytes | LobarError]) -> Decoded | RejectedImage:
        body = read[1]
        if isinstance(body, LobarError):
            raise body
        try:
            return Decoded(*dicom.network_input(body, size, sampling, apart))
        except RejectedImage as rejection:
            return rejection

    bodies = objects.read_many(item.object for item in items if item.object.bytes <= dicom.LARGEST_FILE)
    with (
        Workers(dicom.network_input, DECODER_SECONDS, DECODER_MEMORY) as apart,
        closing(ordered_map(decode, bodies, workers=cpus(), ahead=8 * cpus())) as results,
    ):
        for item in items:
            fits = item.object.bytes <= dicom.LARGEST_FILE
            result = next(results) if fits else RejectedImage(dicom.TOO_LARGE)
            if isinstance(result, RejectedImage):
                rejected[item.patient_id] = str(result)
                log.warning("%s: rejected: %s", item.object.url, result)
            else:
                yield item, result


def check_rejected(rejected: dict[str, str], count: int, share: float, what: str, advice: str) -> None:
    """Raise InputError, with examples, where more than `share` of `count` images were rejected."""
    if len(rejected) > share * count:
        examples = "; ".join(f"{patient_id}: {reason}" for patient_id, reason in list(rejected.items())[:3])
        raise InputError(
            f"{len(rejected)} of {count} {what} cannot be read, {advice}. For example {examples}"
        )


def batches(
    items: Sequence[E], size: int, sampling: Sampling, batch_size: int, rejected: dict[str, str]
) -> Iterator[tuple[list[tuple[E, Header]], np.ndarray]]:
    """`decoded`, gathered: lists of (item, header), and levels (n, size, size), n at most batch_size."""
    keys: list[tuple[E, Header]] = []
    levels: list[np.ndarray] = []
    for item, image in decoded(items, size, sampling, rejected):
        keys.append((item, image.header))
        levels.append(image.levels)
        if len(keys) == batch_size:
            yield keys, np.stack(levels)
            keys, levels = [], []
    if keys:
        yield keys, np.stack(levels)
