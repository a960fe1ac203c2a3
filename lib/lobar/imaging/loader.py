"""Stored images to network input, without TensorFlow: the one path from storage to pixels."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

import cv2
import numpy as np

from lobar.core.concurrency import cpus, ordered_map
from lobar.core.errors import LobarError
from lobar.core.rejections import Rejection
from lobar.imaging import dicom
from lobar.imaging.dicom import Header, RejectedImage
from lobar.imaging.sampling import Sampling
from lobar.imaging.sandbox import Workers
from lobar.storage import objects

DECODER_SECONDS = 60.0
DECODER_MEMORY = 1 << 30
log = logging.getLogger(__name__)


class HasImage(Protocol):
    """An exam of an index or an image of a plan: an id, and the object that holds its DICOM file."""

    @property
    def patient_id(self) -> str: ...

    @property
    def object(self) -> objects.Object: ...


Item = TypeVar("Item", bound=HasImage)


@dataclass(frozen=True, slots=True)
class Decoded(Generic[Item]):
    """Grey levels (size, size) in the sampling's integers, and the header of their image."""

    item: Item
    levels: np.ndarray
    header: Header


@dataclass(frozen=True, slots=True)
class Rejected(Generic[Item]):
    """An image that cannot be used, and why."""

    item: Item
    reason: str

    @property
    def rejection(self) -> Rejection:
        return Rejection(self.item.patient_id, self.item.object.url, self.reason)


@dataclass(frozen=True, slots=True)
class Batch(Generic[Item]):
    """Consecutive images, and the levels (n, size, size) of those of them that are decoded; n may be 0."""

    images: list[Decoded[Item] | Rejected[Item]]
    levels: np.ndarray


def decoded(
    items: Sequence[Item], size: int, sampling: Sampling, any_body_part: bool = True
) -> Iterator[Decoded[Item] | Rejected[Item]]:
    """Read and decode images in order, on as many threads as there are CPUs, a few images ahead.

    `any_body_part` is that of `dicom.header`; label-index has checked the images of an index already. Raises
    the store's error for an object that cannot be read.
    """
    cv2.setNumThreads(1)  # images are decoded in parallel; OpenCV's own threads would only compete

    def decode(
        read: tuple[Item, tuple[objects.Object, bytes | LobarError]],
    ) -> Decoded[Item] | Rejected[Item]:
        item, (_, body) = read
        if isinstance(body, LobarError):
            raise body
        try:
            return Decoded(item, *network_input(body, size, sampling, workers))
        except RejectedImage as error:
            return Rejected(item, str(error))

    network_input = partial(dicom.network_input, any_body_part=any_body_part)
    readable = [item for item in items if item.object.bytes <= dicom.LARGEST_FILE]
    bodies = zip(readable, objects.read_many(item.object for item in readable), strict=True)
    with (
        Workers(network_input, DECODER_SECONDS, DECODER_MEMORY) as workers,
        closing(ordered_map(decode, bodies, workers=cpus(), ahead=8 * cpus())) as results,
    ):
        for item in items:
            fits = item.object.bytes <= dicom.LARGEST_FILE
            image = next(results) if fits else Rejected(item, dicom.TOO_LARGE)
            if isinstance(image, Rejected):
                log.warning("%s: rejected: %s", item.object.url, image.reason)
            yield image


def batches(
    items: Sequence[Item], size: int, sampling: Sampling, batch_size: int, any_body_part: bool = True
) -> Iterator[Batch[Item]]:
    """`decoded` in batches of `batch_size` decoded images; the last one may have fewer."""
    images: list[Decoded[Item] | Rejected[Item]] = []
    levels: list[np.ndarray] = []
    for image in decoded(items, size, sampling, any_body_part):
        images.append(image)
        if isinstance(image, Decoded):
            levels.append(image.levels)
        if len(levels) == batch_size:
            yield Batch(images, np.stack(levels))
            images, levels = [], []
    if images:
        yield Batch(images, np.array(levels, sampling.dtype).reshape(-1, size, size))
