"""The metric of the RSNA Pneumonia Detection Challenge, and nothing else.

Source: the challenge's evaluation page. Per image and IoU threshold, TP / (TP + FP + FN); the mean over the
thresholds is the image's score, the mean over the images the metric.
"""

from collections.abc import Sequence

import numpy as np

from lobar.geometry import Box, iou

THRESHOLDS = (0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70, 0.75)


def image_score(truth: Sequence[Box], predicted: Sequence[Box]) -> float | None:
    """Score of one image in 0..1, or None where neither truth nor prediction has a box (it is left out).

    Predictions are taken in order of confidence; each hits the free truth box it overlaps most, if by more
    than the threshold, and each truth box is hit at most once.
    """
    if not truth and not predicted:
        return None
    if not truth or not predicted:
        return 0.0
    ordered = sorted(predicted, key=lambda box: -box.confidence)
    overlap = [[iou(box, true) for true in truth] for box in ordered]
    return float(np.mean([_share_of_hits(overlap, threshold) for threshold in THRESHOLDS]))


def _share_of_hits(overlap: list[list[float]], threshold: float) -> float:
    free = set(range(len(overlap[0])))
    hits = 0
    for row in overlap:
        best = max(free, key=lambda true: row[true], default=None)
        if best is not None and row[best] > threshold:
            free.remove(best)
            hits += 1
    return hits / (len(overlap) + len(overlap[0]) - hits)


def metric(scores: Sequence[float | None]) -> float | None:
    """Mean of the images' scores, or None where no image counts."""
    counted = [score for score in scores if score is not None]
    return float(np.mean(counted)) if counted else None
