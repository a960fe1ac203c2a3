"""The challenge metric with its 95 % interval, and paired gains, by bootstrap over groups."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lobar.data.index import Exam
from lobar.evaluation import rsna_metric

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """The challenge metric with its 95 % interval, None if no image counts, and how many images count."""

    metric: float | None
    low: float | None
    high: float | None
    counted: int

    def __str__(self) -> str:
        if self.metric is None:
            return "no image counts"
        return f"{self.metric:.3f} ({self.low:.3f} to {self.high:.3f})"

    @property
    def signed(self) -> str:
        """A gain in words, with its sign."""
        if self.metric is None:
            return "no image counts"
        return f"{self.metric:+.4f} ({self.low:+.4f} to {self.high:+.4f})"


def interval(exams: Sequence[Exam], values: Sequence[float | None]) -> Interval:
    """The metric with its 95 % percentile bootstrap interval over groups: images of one patient are alike.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13.
    """
    counted = [(exam, value) for exam, value in zip(exams, values, strict=True) if value is not None]
    if not counted:
        return Interval(None, None, None, 0)
    low, high = np.percentile(_resampled(*zip(*counted, strict=True))[0], [2.5, 97.5])
    return Interval(
        rsna_metric.metric([value for _, value in counted]), float(low), float(high), len(counted)
    )


def gain(exams: Sequence[Exam], ours: Sequence[float | None], theirs: Sequence[float | None]) -> Interval:
    """By how much the metric of `ours` is above that of `theirs`, with its paired 95 % interval over groups.

    Both are resampled together, and each over the images that count for it: an image without truth counts
    only for a system that predicts a box on it. `counted` are the images that count for either.
    """
    first, second = rsna_metric.metric(ours), rsna_metric.metric(theirs)
    counted = sum(a is not None or b is not None for a, b in zip(ours, theirs, strict=True))
    if first is None or second is None:
        return Interval(None, None, None, counted)
    low, high = np.nanpercentile(np.subtract(*_resampled(exams, ours, theirs)), [2.5, 97.5])
    return Interval(first - second, float(low), float(high), counted)


def _resampled(exams: Sequence[Exam], *systems: Sequence[float | None]) -> np.ndarray:
    """Means (systems, RESAMPLES) of the scores that are not None, the same groups drawn for all systems."""
    names, group = np.unique([exam.group for exam in exams], return_inverse=True)
    drawn = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    scores = np.array(systems, float)  # None becomes NaN
    totals = [np.bincount(group, np.nan_to_num(values), len(names)) for values in scores]
    sizes = [np.bincount(group, ~np.isnan(values), len(names)) for values in scores]
    with np.errstate(invalid="ignore"):  # a draw without any image that counts
        return np.array(
            [total[drawn].sum(1) / size[drawn].sum(1) for total, size in zip(totals, sizes, strict=True)]
        )
