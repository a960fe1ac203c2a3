"""Boxes in image pixels: overlap, shrinking, and the masks that a network learns from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of whole pixels: left, top, width and height, with a confidence in 0..1 where predicted."""

    x: int
    y: int
    width: int
    height: int
    confidence: float = 1.0

    @property
    def area(self) -> int:
        return self.width * self.height

    def inside(self, rows: int, columns: int) -> bool:
        """Whether no part of the box leaves an image of that size."""
        across = self.x >= 0 and self.x + self.width <= columns
        return across and self.y >= 0 and self.y + self.height <= rows

    def scaled(self, across: float, down: float) -> "Box":
        """The box in a grid that has `across` times the columns and `down` times the rows."""
        x, y = round(self.x * across), round(self.y * down)
        right, bottom = round((self.x + self.width) * across), round((self.y + self.height) * down)
        return Box(x, y, right - x, bottom - y, self.confidence)


def iou(a: Box, b: Box) -> float:
    """Area of the intersection over area of the union of two boxes, 0..1."""
    across = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    down = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    if across <= 0 or down <= 0:
        return 0.0
    both = across * down
    return both / (a.area + b.area - both)


def shrink(box: Box, factor: float) -> Box:
    """`box` with its sides times `factor` (above 0, at most 1) about its centre, in whole pixels."""
    width, height = max(1, round(box.width * factor)), max(1, round(box.height * factor))
    return replace(
        box,
        x=box.x + (box.width - width) // 2,
        y=box.y + (box.height - height) // 2,
        width=width,
        height=height,
    )


def draw_mask(boxes: Sequence[Box], rows: int, columns: int, size: int) -> np.ndarray:
    """Mask of shape (size, size), bool: the boxes of a rows x columns image, as the notebook sampled them.

    Equals drawing ones at full size, skimage's resize(mode="reflect", anti_aliasing=False) and > 0.5, but
    draws only the two rows and columns that each bilinear sample reads.
    """
    mask = np.zeros((size, size), bool)
    if not boxes:
        return mask
    row_at, row_weight = _bilinear_sources(rows, size)
    column_at, column_weight = _bilinear_sources(columns, size)
    inside = np.zeros((2 * size, 2 * size), bool)
    for box in boxes:
        down = (row_at >= box.y) & (row_at < box.y + box.height)
        inside |= down[:, None] & (column_at >= box.x) & (column_at < box.x + box.width)
    weighted = inside * row_weight[:, None]
    covered = (weighted[::2] + weighted[1::2]) * column_weight
    return covered[:, ::2] + covered[:, 1::2] > 0.5


@lru_cache(maxsize=16)  # images of a set have few sizes
def _bilinear_sources(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """For `size` samples of `length` pixels: the two each reads and their weights, in turn, (2 * size)."""
    centre = (np.arange(size) + 0.5) * (length / size) - 0.5
    low = np.floor(centre)
    weight = (centre - low).astype(np.float32)
    at = np.clip(np.stack([low, low + 1], axis=1).astype(int), 0, length - 1)
    return at.ravel(), np.stack([1 - weight, weight], axis=1).ravel()
