"""The metric of the RSNA Pneumonia Detection Challenge, and nothing else.

Source: the challenge's evaluation page. Per image and IoU threshold, TP / (TP + FP + FN); the mean over the
thresholds is the image's score, the mean over the images the metric.
"""

from collections.abc import Sequence

import numpy as np

from lobar.core.boxes import Box, iou

THRESHOLDS = (0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70, 0.75)


def image_score(truth: Sequence[Box], predicted: Sequence[Box]) -> float | None:
    """Score of one image in 0..1, or None if neither truth nor prediction has a box (the image is left out).

    Predictions are taken in order of confidence; each hits the free truth box it overlaps most, if by more
    than the threshold, and each truth box is hit at most once.
    """
    scores = threshold_scores(truth, predicted)
    return None if scores is None else float(np.mean(scores))


def threshold_scores(truth: Sequence[Box], predicted: Sequence[Box]) -> list[float] | None:
    """The score at each of THRESHOLDS, of which `image_score` is the mean, or None."""
    if not truth and not predicted:
        return None
    if not truth or not predicted:
        return [0.0] * len(THRESHOLDS)
    overlap = _overlap(truth, predicted)
    hits = [sum(_hits(overlap, threshold)) for threshold in THRESHOLDS]
    return [count / (len(predicted) + len(truth) - count) for count in hits]


def hits(truth: Sequence[Box], predicted: Sequence[Box], threshold: float) -> list[tuple[float, bool]]:
    """The confidence of each prediction, the most confident first, and whether it hits a truth box."""
    confidences = sorted((box.confidence for box in predicted), reverse=True)
    hit = _hits(_overlap(truth, predicted), threshold) if truth else [False] * len(predicted)
    return list(zip(confidences, hit, strict=True))


def _overlap(truth: Sequence[Box], predicted: Sequence[Box]) -> list[list[float]]:
    return [[iou(box, true) for true in truth] for box in sorted(predicted, key=lambda box: -box.confidence)]


def _hits(overlap: list[list[float]], threshold: float) -> list[bool]:
    free = set(range(len(overlap[0]))) if overlap else set()
    hits = []
    for row in overlap:
        best = max(free, key=lambda true: row[true], default=None)
        hit = best is not None and row[best] > threshold
        if best is not None and hit:
            free.remove(best)
        hits.append(hit)
    return hits


def metric(scores: Sequence[float | None]) -> float | None:
    """Mean of the images' scores, or None if no image counts."""
    counted = [score for score in scores if score is not None]
    return float(np.mean(counted)) if counted else None
