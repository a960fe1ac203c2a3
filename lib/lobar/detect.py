"""Probability map + operating point -> boxes and an image score."""

from dataclasses import dataclass

import cv2
import numpy as np

from lobar.geometry import Box, shrink

SCORED_SHARE = 0.02


@dataclass(frozen=True)
class OperatingPoint:
    """How a probability map becomes boxes.

    threshold: a pixel belongs to a box where its probability is above it, 0..1.
    min_area: boxes smaller than this share of the image are dropped, 0..1.
    shrink: sides of every box are multiplied by it about the centre, above 0, at most 1.
    min_image_score: an image that scores less has no box at all, 0..1.
    """

    threshold: float
    min_area: float
    shrink: float
    min_image_score: float


NOTEBOOK = OperatingPoint(threshold=0.5, min_area=0.0, shrink=1.0, min_image_score=0.0)


def image_score(probabilities: np.ndarray) -> float:
    """How sure the map (size, size) is of any opacity: the mean of its highest 2 % of pixels, 0..1.

    The share is about a third of a usual opacity, so that one hot pixel does not decide.
    """
    count = max(1, round(SCORED_SHARE * probabilities.size))
    return float(np.partition(probabilities, -count, axis=None)[-count:].mean())


def components(probabilities: np.ndarray, rows: int, columns: int, threshold: float) -> list[Box]:
    """Boxes of the 8-connected regions above `threshold`, in pixels of the rows x columns image.

    The map (size, size), 0..1, is enlarged bilinearly first; a box's confidence is the mean over it. Boxes
    come in the order of their first pixel, row by row. Source: the notebook, with OpenCV in scikit-image's
    place.
    """
    if probabilities.max() <= threshold:
        return []
    enlarged = cv2.resize(probabilities, (columns, rows), interpolation=cv2.INTER_LINEAR)
    above = (enlarged > threshold).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    found = []
    for label in range(1, count):
        x, y, width, height = (int(value) for value in stats[label, :4])
        first = x + int(np.argmax(labels[y, x : x + width] == label))
        confidence = float(enlarged[y : y + height, x : x + width].mean(dtype=np.float64))
        found.append((y, first, Box(x, y, width, height, confidence)))
    return [box for _, _, box in sorted(found, key=lambda item: item[:2])]


def apply(found: list[Box], score: float, rows: int, columns: int, point: OperatingPoint) -> list[Box]:
    """What an operating point keeps of `components` at its threshold, on an image of that score and size."""
    if score < point.min_image_score:
        return []
    smallest = point.min_area * rows * columns
    return [shrink(box, point.shrink) for box in found if box.area >= smallest]


def detect(probabilities: np.ndarray, rows: int, columns: int, point: OperatingPoint) -> list[Box]:
    """Boxes of one image, in its own pixels, by an operating point."""
    score = image_score(probabilities) if point.min_image_score > 0 else 1.0
    return apply(components(probabilities, rows, columns, point.threshold), score, rows, columns, point)
