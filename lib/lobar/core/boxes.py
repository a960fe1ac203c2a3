"""Boxes in image pixels: overlap, shrinking, and the masks that a network learns from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in whole pixels: left, top, width, height, and a confidence in 0..1 (1 for labels)."""

    x: int
    y: int
    width: int
    height: int
    confidence: float = 1.0

    @property
    def area(self) -> int:
        return self.width * self.height

    def inside(self, rows: int, columns: int) -> bool:
        """Whether the whole box is within an image of this size."""
        return 0 <= self.x <= columns - self.width and 0 <= self.y <= rows - self.height

    def scaled(self, x_scale: float, y_scale: float) -> "Box":
        """The box in an image with `x_scale` times the columns and `y_scale` times the rows."""
        x, y = round(self.x * x_scale), round(self.y * y_scale)
        right, bottom = round((self.x + self.width) * x_scale), round((self.y + self.height) * y_scale)
        return Box(x, y, right - x, bottom - y, self.confidence)


def iou(a: Box, b: Box) -> float:
    """Area of the intersection over area of the union of two boxes, 0..1."""
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    return intersection / (a.area + b.area - intersection)


def shrink(box: Box, factor: float) -> Box:
    """`box` with both sides multiplied by `factor` (above 0, at most 1) about its centre, in whole pixels."""
    width, height = max(1, round(box.width * factor)), max(1, round(box.height * factor))
    x, y = box.x + (box.width - width) // 2, box.y + (box.height - height) // 2
    return Box(x, y, width, height, box.confidence)


def draw_mask(boxes: Sequence[Box], rows: int, columns: int, size: int) -> np.ndarray:
    """Mask of shape (size, size), bool: the boxes of a rows x columns image, sampled as in the notebook.

    Equals ones drawn at full size, then skimage's resize(mode="reflect", anti_aliasing=False) > 0.5, but
    computes only the two rows and two columns that each bilinear sample reads.
    """
    if not boxes:
        return np.zeros((size, size), bool)
    row_index, row_weight = _bilinear_sources(rows, size)
    column_index, column_weight = _bilinear_sources(columns, size)
    inside = np.zeros((2 * size, 2 * size), bool)
    for box in boxes:
        in_rows = (row_index >= box.y) & (row_index < box.y + box.height)
        in_columns = (column_index >= box.x) & (column_index < box.x + box.width)
        inside |= in_rows[:, None] & in_columns
    weighted = inside * row_weight[:, None]
    covered = (weighted[::2] + weighted[1::2]) * column_weight
    return covered[:, ::2] + covered[:, 1::2] > 0.5


@lru_cache(maxsize=16)  # a dataset has few image sizes
def _bilinear_sources(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixels, out of `length`, that `size` bilinear samples read, and their weights.

    Both of shape (2 * size,): elements 2i and 2i + 1 belong to sample i.
    """
    centre = (np.arange(size) + 0.5) * (length / size) - 0.5
    low = np.floor(centre)
    weight = (centre - low).astype(np.float32)
    index = np.clip(np.stack([low, low + 1], axis=1).astype(int), 0, length - 1)
    return index.ravel(), np.stack([1 - weight, weight], axis=1).ravel()
