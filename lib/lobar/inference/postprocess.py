"""Probability map + operating point -> boxes and an image score."""

from dataclasses import dataclass

import cv2
import numpy as np

from lobar.core.boxes import Box, shrink
from lobar.inference.release import OperatingPoint

SCORED_SHARE = 0.02


def image_score(probabilities: np.ndarray) -> float:
    """Score of a map (size, size) for any opacity at all: the mean of its highest 2 % of pixels, 0..1.

    The share is about a third of a usual opacity, so that one hot pixel does not decide.
    """
    count = max(1, round(SCORED_SHARE * probabilities.size))
    return float(np.partition(probabilities, -count, axis=None)[-count:].mean())


@dataclass(frozen=True)
class Enlarged:
    """A map at an image's own size, in which equal neighbouring rows and columns are kept once.

    values (n, m) float32, 0..1: one value for each run of rows and of columns.
    tops (n + 1), lefts (m + 1): where the runs begin, and where the last one ends. Rows and columns outside
    of them are not needed.
    """

    values: np.ndarray
    tops: np.ndarray
    lefts: np.ndarray


def enlarge(probabilities: np.ndarray, rows: int, columns: int, above: float) -> Enlarged:
    """A map (size, size), 0..1, enlarged bilinearly to rows x columns, without the margins up to `above`.

    A network with a coarse head repeats its values, so that most rows and columns of the enlarged map equal
    their neighbours: of 1024 of a 16 x 16 head 76 differ. Only the part that can exceed `above` is enlarged:
    from the first row (column) that depends on such a value to the last. Source: OpenCV's INTER_LINEAR, its
    half-pixel centres and replicated border.
    """
    tops, upper, lower, down = _axis(probabilities, rows, above)
    lefts, left, right, across = _axis(probabilities.T, columns, above)
    wide = _between(probabilities, left, right, across, axis=1)
    return Enlarged(_between(wide, upper, lower, down[:, None], axis=0), tops, lefts)


def _between(
    values: np.ndarray, first: np.ndarray, second: np.ndarray, weight: np.ndarray, axis: int
) -> np.ndarray:
    """Lines between those `first` and `second` of an axis; in place, because new memory costs more time."""
    between, other = values.take(first, axis), values.take(second, axis)
    between *= 1 - weight
    other *= weight
    between += other
    return between


def _axis(
    lines: np.ndarray, length: int, above: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Runs of equal lines when `lines` (size, other size) are enlarged to `length` lines.

    Returns the starts of the runs and the end of the last; for each run the two source lines that it is
    between, and the weight of the second. Runs outside of the lines with a value greater than `above` are
    left out.
    """
    size = len(lines)
    same = np.concatenate([[0], np.cumsum((lines[1:] != lines[:-1]).any(axis=1))])
    at = np.clip((np.arange(length) + 0.5) * (size / length) - 0.5, 0, size - 1)
    first = at.astype(int)
    second = np.minimum(first + 1, size - 1)
    weight = np.where(same[first] == same[second], 0, at - first).astype(np.float32)
    is_start = np.diff(same[first], prepend=-1).astype(bool) | (weight > 0) | (np.roll(weight, 1) > 0)
    runs = np.flatnonzero(is_start)
    above_lines = np.flatnonzero(lines.max(axis=1) > above)
    lowest, highest = (above_lines[0], above_lines[-1]) if len(above_lines) else (size, -1)
    kept = (second[runs] >= lowest) & (first[runs] <= highest)
    starts, ends = runs[kept], np.append(runs, length)[1:][kept]
    return np.append(starts, ends[-1:]), first[starts], second[starts], weight[starts]


def components(enlarged: Enlarged, threshold: float) -> list[Box]:
    """Boxes of the 8-connected regions above `threshold`, in pixels of the image.

    A box's confidence is the mean over it. Boxes come in the order of their first pixel, row by row. Source:
    the notebook, with OpenCV instead of scikit-image.
    """
    values, tops, lefts = enlarged.values, enlarged.tops, enlarged.lefts
    above = (values > threshold).view(np.uint8)
    if not above.any():
        return []
    contours, hierarchy = cv2.findContours(above, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    heights, widths = np.diff(tops), np.diff(lefts)
    boxes = []
    # the contour around a region has no parent, also in a hole of another region; that of a hole has one
    parents = hierarchy[0, :, 3]
    for contour in (contour[:, 0] for contour, parent in zip(contours, parents, strict=True) if parent < 0):
        (x, y), (last_x, last_y) = contour.min(axis=0), contour.max(axis=0)
        first = contour[contour[:, 1] == y, 0].min()
        box_rows, box_columns = slice(y, last_y + 1), slice(x, last_x + 1)
        left, top = int(lefts[x]), int(tops[y])
        width, height = int(lefts[last_x + 1]) - left, int(tops[last_y + 1]) - top
        sums = values[box_rows, box_columns].astype(np.float64) @ widths[box_columns]
        confidence = float(heights[box_rows] @ sums) / (width * height)
        boxes.append((y, first, Box(left, top, width, height, confidence)))
    return [box for _, _, box in sorted(boxes, key=lambda item: item[:2])]


def apply(boxes: list[Box], score: float, rows: int, columns: int, point: OperatingPoint) -> list[Box]:
    """The boxes that an operating point keeps of `components`, on an image of that score and size."""
    if score < point.min_image_score:
        return []
    smallest = point.min_area * rows * columns
    return [shrink(box, point.shrink) for box in boxes if box.area >= smallest]


def detect(probabilities: np.ndarray, rows: int, columns: int, point: OperatingPoint) -> list[Box]:
    """Boxes of one image, in its own pixels, by an operating point."""
    if probabilities.max() <= point.threshold:
        return []
    score = image_score(probabilities) if point.min_image_score > 0 else 1.0
    if score < point.min_image_score:
        return []  # before the boxes are computed
    boxes = components(enlarge(probabilities, rows, columns, point.threshold), point.threshold)
    return apply(boxes, score, rows, columns, point)
