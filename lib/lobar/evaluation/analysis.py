"""Where a model is right and where it is wrong: curves, calibration, and the metric by kind of image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from lobar.core.boxes import Box
from lobar.data.index import Exam
from lobar.evaluation import rsna_metric
from lobar.evaluation.bootstrap import Interval, interval
from lobar.evaluation.operating_point import Scored, Tuned
from lobar.inference.release import OperatingPoint

FROC_IOU = rsna_metric.THRESHOLDS[0]
CALIBRATION_BINS = 10


@dataclass(frozen=True)
class Curve:
    """Points of a curve from left to right, and where it has one the area below it."""

    x: list[float]
    y: list[float]
    area: float | None = None


@dataclass(frozen=True)
class Subset:
    """Some of the images: the challenge metric of those that count, and how their images were called.

    `sensitivity` is the share of positive images with a box, `specificity` that of negative ones without.
    """

    images: int
    metric: Interval
    sensitivity: float | None
    specificity: float | None


@dataclass(frozen=True)
class Analysis:
    """What the validation images tell beyond one number, each at the point that was tuned without it.

    roc: share of negative images called positive against that of positive ones, by image score.
    froc: false boxes an image against the share of truth boxes found, by confidence, without a gate.
    calibration: mean image score against the share of positive images, in bins of equally many images.
    by_iou: the metric at each IoU threshold of the challenge.
    """

    roc: Curve | None
    froc: Curve | None
    calibration: Curve
    by_iou: dict[str, float]
    subsets: dict[str, Subset]


def analyse(images: Sequence[Scored], tuned: Tuned, found: Sequence[Sequence[Box]]) -> Analysis:
    """Analyse a model whose boxes `found` come from `images` at the tuned points."""
    exams = [image.exam for image in images]
    scores = np.array([image.image_score for image in images])
    positive = np.array([bool(exam.boxes) for exam in exams])
    ungated = [
        image.boxes(OperatingPoint(point.threshold, point.min_area, point.shrink, 0.0))
        for image, point in zip(images, tuned.fair_points, strict=True)
    ]
    return Analysis(
        roc=roc(scores, positive),
        froc=froc([exam.boxes for exam in exams], ungated),
        calibration=calibration(scores, positive),
        by_iou=_by_iou(exams, found),
        subsets={
            name: _subset([i for i, exam in enumerate(exams) if holds(exam)], exams, found, tuned.scores)
            for name, holds in kinds(exams).items()
        },
    )


def roc(scores: np.ndarray, positive: np.ndarray) -> Curve | None:
    """The receiver operating characteristic of image scores, None where all images are of one kind.

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


def froc(truth: Sequence[Sequence[Box]], found: Sequence[Sequence[Box]]) -> Curve | None:
    """Free-response ROC: a box hits where its IoU with a free truth box exceeds FROC_IOU; None without truth.

    Source: Bunch et al., A free response approach to the measurement of radiographic-observer performance,
    1977.
    """
    boxes = sum(map(len, truth))
    if not boxes:
        return None
    calls = [call for each in zip(truth, found, strict=True) for call in rsna_metric.hits(*each, FROC_IOU)]
    calls.sort(key=lambda call: -call[0])
    hit = np.array([hit for _, hit in calls], bool)
    x = np.concatenate([[0], np.cumsum(~hit) / len(truth)])
    y = np.concatenate([[0], np.cumsum(hit) / boxes])
    return Curve(x.tolist(), y.tolist())


def calibration(scores: np.ndarray, positive: np.ndarray) -> Curve:
    """Mean score and share of positives in up to CALIBRATION_BINS bins of equally many images, by score."""
    bins = np.array_split(np.argsort(scores, kind="stable"), min(CALIBRATION_BINS, len(scores)))
    means = [(float(scores[each].mean()), float(positive[each].mean())) for each in bins]
    return Curve([x for x, _ in means], [y for _, y in means])


def _by_iou(exams: Sequence[Exam], found: Sequence[Sequence[Box]]) -> dict[str, float]:
    each = [rsna_metric.threshold_scores(exam.boxes, boxes) for exam, boxes in zip(exams, found, strict=True)]
    counted = [values for values in each if values is not None]
    means = np.mean(counted, axis=0) if counted else [0.0] * len(rsna_metric.THRESHOLDS)
    return {f"{iou:.2f}": float(mean) for iou, mean in zip(rsna_metric.THRESHOLDS, means, strict=True)}


def kinds(exams: Sequence[Exam]) -> dict[str, Callable[[Exam], bool]]:
    """Kinds of image, and whether an exam is of one: all, a view, positives by number and size of boxes."""
    found: dict[str, Callable[[Exam], bool]] = {"all": lambda exam: True}
    for view in sorted({exam.view for exam in exams}):
        found[f"view {view or 'unknown'}"] = partial(_has_view, view)
    found |= {
        "1 box": lambda exam: len(exam.boxes) == 1,
        "2 boxes": lambda exam: len(exam.boxes) == 2,
        "3 boxes or more": lambda exam: len(exam.boxes) > 2,
    }
    shares = sorted(_share(exam) for exam in exams if exam.boxes)
    if len(shares) > 2:
        first, second = shares[len(shares) // 3], shares[2 * len(shares) // 3]
        found |= {
            f"boxes below {first:.1%} of the image": lambda e: bool(e.boxes) and _share(e) < first,
            f"boxes of {first:.1%} to {second:.1%}": lambda e: bool(e.boxes) and first <= _share(e) < second,
            f"boxes of {second:.1%} or more": lambda e: bool(e.boxes) and _share(e) >= second,
        }
    return found


def _has_view(view: str, exam: Exam) -> bool:
    return exam.view == view


def _share(exam: Exam) -> float:
    return sum(box.area for box in exam.boxes) / (exam.rows * exam.columns)


def _subset(
    chosen: list[int],
    exams: Sequence[Exam],
    found: Sequence[Sequence[Box]],
    scores: Sequence[float | None],
) -> Subset:
    called = [bool(found[i]) for i in chosen if exams[i].boxes]
    empty = [not found[i] for i in chosen if not exams[i].boxes]
    return Subset(
        images=len(chosen),
        metric=interval([exams[i] for i in chosen], [scores[i] for i in chosen]),
        sensitivity=float(np.mean(called)) if called else None,
        specificity=float(np.mean(empty)) if empty else None,
    )
