"""Choose an operating point, and score each image at one that was chosen without it."""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lobar.core.boxes import Box
from lobar.data.index import Exam
from lobar.evaluation import rsna_metric
from lobar.inference import postprocess
from lobar.inference.release import OperatingPoint

THRESHOLDS = (0.5, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9)
MIN_AREAS = (0.0, 0.002, 0.005, 0.01)
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)
MIN_IMAGE_SCORES = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
FOLDS = 5


@dataclass(frozen=True)
class Scored:
    """One image: its exam, the map's image score, and the components at each of THRESHOLDS."""

    exam: Exam
    image_score: float
    components: tuple[tuple[Box, ...], ...]

    def boxes(self, point: OperatingPoint) -> list[Box]:
        """The model's boxes at an operating point whose threshold is one of THRESHOLDS."""
        components = self.components[THRESHOLDS.index(point.threshold)]
        return postprocess.apply(list(components), self.image_score, self.exam.rows, self.exam.columns, point)


@dataclass(frozen=True)
class Tuned:
    """A point tuned on all images; for each image the point that the other folds choose, its score there."""

    point: OperatingPoint
    fair_points: list[OperatingPoint]
    scores: list[float | None]


def score_map(exam: Exam, probabilities: np.ndarray) -> Scored:
    """What tuning needs of one image's map (size, size), 0..1."""
    enlarged = postprocess.enlarge(probabilities, exam.rows, exam.columns, min(THRESHOLDS))
    components = (postprocess.components(enlarged, threshold) for threshold in THRESHOLDS)
    return Scored(exam, postprocess.image_score(probabilities), tuple(tuple(boxes) for boxes in components))


def scores(exams: Sequence[Exam], boxes: Callable[[int], Sequence[Box]]) -> list[float | None]:
    """The challenge's score of each image for the boxes that `boxes(i)` predicts on it."""
    return [rsna_metric.image_score(exam.boxes, boxes(i)) for i, exam in enumerate(exams)]


def tune(images: Sequence[Scored]) -> Tuned:
    """Choose the operating point with the best metric, and score each image fairly.

    Each image's score is taken at a point tuned on the other folds (by group), so that the metric of these
    scores is not tuned on itself. Of points with equal metrics, the one with the fewest boxes is chosen, and
    of those the first: what gains nothing is a false alarm. So a network that never hits gets a point without
    boxes, and without a positive image it is the notebook's point, unless that has boxes on the negatives.
    """
    points, table, counts = _table(images)
    fold = np.array([_fold(image.exam.group) for image in images])
    best_without = np.array([_best(table[:, fold != k], counts[:, fold != k]) for k in range(FOLDS)])[fold]
    scores = table[best_without, range(len(images))].tolist()
    return Tuned(
        points[_best(table, counts)],
        [points[best] for best in best_without],
        [None if np.isnan(score) else score for score in scores],
    )


def _table(images: Sequence[Scored]) -> tuple[list[OperatingPoint], np.ndarray, np.ndarray]:
    """All operating points, the notebook's first, and two arrays (points, images).

    The score of each image, NaN if it is left out, and its number of boxes.
    """
    image_scores = np.array([image.image_score for image in images])
    empty = np.array([0.0 if image.exam.boxes else np.nan for image in images])
    points: list[OperatingPoint] = []
    rows: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    for threshold, min_area, shrink in itertools.product(THRESHOLDS, MIN_AREAS, SHRINKS):
        ungated = OperatingPoint(threshold, min_area, shrink, 0.0)
        found = [image.boxes(ungated) for image in images]
        number = np.array([len(boxes) for boxes in found], np.int32)
        values = np.array(scores([image.exam for image in images], found.__getitem__), float)  # None is NaN
        for gate in MIN_IMAGE_SCORES:
            points.append(OperatingPoint(threshold, min_area, shrink, gate))
            rows.append(np.where(image_scores >= gate, values, empty))
            counts.append(np.where(image_scores >= gate, number, 0))
    return points, np.array(rows), np.array(counts)


def _best(table: np.ndarray, counts: np.ndarray) -> int:
    """The row with the best mean; of equals the one with the fewest boxes, and of those the first."""
    counted = ~np.isnan(table)
    means = np.where(counted, table, 0).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)
    return int(np.lexsort((counts.sum(axis=1), -means))[0])


def _fold(group: str) -> int:
    return int.from_bytes(hashlib.sha256(f"fold:{group}".encode()).digest()[:8]) % FOLDS
