"""A model in detail: ROC and FROC curves, calibration, and the metric by kind of image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lobar.core.boxes import Box
from lobar.data.index import Exam
from lobar.evaluation import rsna_metric
from lobar.evaluation.bootstrap import Interval, interval
from lobar.evaluation.operating_point import Scored, Tuned

FROC_IOU = rsna_metric.THRESHOLDS[0]
CALIBRATION_BINS = 10


@dataclass(frozen=True)
class Curve:
    """Points of a curve from left to right, and the area under it, if it has one."""

    x: list[float]
    y: list[float]
    area: float | None = None


@dataclass(frozen=True)
class Subset:
    """Some of the images: the challenge metric of those that count, and how often boxes are predicted.

    `sensitivity` is the share of positive images with a box, `specificity` that of negative ones without.
    """

    images: int
    metric: Interval
    sensitivity: float | None
    specificity: float | None


@dataclass(frozen=True)
class Analysis:
    """Results on the validation images, each image at the operating point that was tuned without it.

    roc: true positive rate against false positive rate of images, by image score.
    froc: false boxes per image against the share of truth boxes hit, by confidence; min_image_score is 0.
    calibration: mean image score against the share of positive images, in bins of equally many images.
    by_iou: the metric at each IoU threshold of the challenge.
    """

    roc: Curve | None
    froc: Curve | None
    calibration: Curve
    by_iou: dict[str, float]
    subsets: dict[str, Subset]


def analyse(images: Sequence[Scored], tuned: Tuned, boxes: Sequence[Sequence[Box]]) -> Analysis:
    """Analyse a model; `boxes` are those of `images` at the tuned points."""
    exams = [image.exam for image in images]
    scores = np.array([image.image_score for image in images])
    positive = np.array([bool(exam.boxes) for exam in exams])
    ungated = [
        image.boxes(replace(point, min_image_score=0.0))
        for image, point in zip(images, tuned.fair_points, strict=True)
    ]
    return Analysis(
        roc=roc(scores, positive),
        froc=froc([exam.boxes for exam in exams], ungated),
        calibration=calibration(scores, positive),
        by_iou=_by_iou(exams, boxes),
        subsets={
            name: _subset(np.flatnonzero(mask).tolist(), exams, boxes, tuned.scores)
            for name, mask in kinds(exams).items()
        },
    )


def roc(scores: np.ndarray, positive: np.ndarray) -> Curve | None:
    """The receiver operating characteristic of image scores, None if all images are positive or all negative.

    Images of equal score are one step. Source: Fawcett, An introduction to ROC analysis, 2006.
    """
    if positive.all() or not positive.any():
        return None
    order = np.argsort(-scores, kind="stable")
    last_of_equals = np.append(np.diff(scores[order]) != 0, True)
    called = np.cumsum(positive[order])[last_of_equals], np.cumsum(~positive[order])[last_of_equals]
    y = np.concatenate([[0], called[0] / positive.sum()])
    x = np.concatenate([[0], called[1] / (~positive).sum()])
    return Curve(x.tolist(), y.tolist(), float(np.trapezoid(y, x)))


def froc(truth: Sequence[Sequence[Box]], boxes: Sequence[Sequence[Box]]) -> Curve | None:
    """Free-response ROC: a box hits where its IoU with a free truth box exceeds FROC_IOU; None without truth.

    Source: Bunch et al., A free response approach to the measurement of radiographic-observer performance,
    1977.
    """
    count = sum(map(len, truth))
    if not count:
        return None
    hits = [hit for image in zip(truth, boxes, strict=True) for hit in rsna_metric.hits(*image, FROC_IOU)]
    hits.sort(key=lambda hit: -hit[0])
    hit = np.array([is_hit for _, is_hit in hits], bool)
    x = np.concatenate([[0], np.cumsum(~hit) / len(truth)])
    y = np.concatenate([[0], np.cumsum(hit) / count])
    return Curve(x.tolist(), y.tolist())


def calibration(scores: np.ndarray, positive: np.ndarray) -> Curve:
    """Mean score and share of positives in up to CALIBRATION_BINS bins of equally many images, by score."""
    bins = np.array_split(np.argsort(scores, kind="stable"), min(CALIBRATION_BINS, len(scores)))
    means = [(float(scores[part].mean()), float(positive[part].mean())) for part in bins]
    return Curve([x for x, _ in means], [y for _, y in means])


def _by_iou(exams: Sequence[Exam], boxes: Sequence[Sequence[Box]]) -> dict[str, float]:
    pairs = zip(exams, boxes, strict=True)
    scores = [rsna_metric.threshold_scores(exam.boxes, predicted) for exam, predicted in pairs]
    counted = [values for values in scores if values is not None]
    means = np.mean(counted, axis=0) if counted else [0.0] * len(rsna_metric.THRESHOLDS)
    return {f"{iou:.2f}": float(mean) for iou, mean in zip(rsna_metric.THRESHOLDS, means, strict=True)}


def kinds(exams: Sequence[Exam]) -> dict[str, np.ndarray]:
    """Kinds of image as masks (exams,), bool: all, each view, positives by number and size of their boxes."""
    view = np.array([exam.view for exam in exams])
    count = np.array([len(exam.boxes) for exam in exams])
    share = np.array([sum(box.area for box in exam.boxes) / (exam.rows * exam.columns) for exam in exams])
    kinds = {"all": np.full(len(exams), True)}
    kinds |= {f"view {name or 'unknown'}": view == name for name in np.unique(view)}
    kinds |= {"1 box": count == 1, "2 boxes": count == 2, "3 boxes or more": count > 2}
    shares = np.sort(share[count > 0])
    if len(shares) > 2:
        first, second = shares[len(shares) // 3], shares[2 * len(shares) // 3]
        kinds |= {
            f"boxes below {first:.1%} of the image": (count > 0) & (share < first),
            f"boxes of {first:.1%} to {second:.1%}": (count > 0) & (first <= share) & (share < second),
            f"boxes of {second:.1%} or more": (count > 0) & (share >= second),
        }
    return kinds


def _subset(
    indices: list[int], exams: Sequence[Exam], boxes: Sequence[Sequence[Box]], scores: Sequence[float | None]
) -> Subset:
    with_box = [bool(boxes[i]) for i in indices if exams[i].boxes]
    empty = [not boxes[i] for i in indices if not exams[i].boxes]
    return Subset(
        images=len(indices),
        metric=interval([exams[i] for i in indices], [scores[i] for i in indices]),
        sensitivity=float(np.mean(with_box)) if with_box else None,
        specificity=float(np.mean(empty)) if empty else None,
    )
