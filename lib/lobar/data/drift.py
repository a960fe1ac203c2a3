"""Whether images are like those that a model was trained on. It is advice, and stops no job."""

import functools
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

from lobar.core.errors import InputError
from lobar.data.listing import Image
from lobar.data.record import Profile, Shift
from lobar.imaging.sampling import Sampling

if TYPE_CHECKING:
    from lobar.data.index import Exam

BINS = 10
# Below it a population counts as little changed. Source: Siddiqi, Credit Risk Scorecards, 2006, chapter 12
LITTLE = 0.2
PROFILED = (np.arange(2 * BINS) + 0.5) / (2 * BINS)
CERTAIN = 4  # standard deviations: users would soon ignore warnings that come from chance
CATEGORIES: MappingProxyType[str, Callable[["Exam"], list[str]]] = MappingProxyType(
    {
        "labels": lambda exam: ["positive" if exam.boxes else "negative"],
        "boxes of a positive image": lambda exam: [f"with {len(exam.boxes)}"] if exam.boxes else [],
        "views": lambda exam: [exam.view or "unknown"],
    }
)
NUMBERS: MappingProxyType[str, Callable[["Exam"], list[float]]] = MappingProxyType(
    {
        "box area, share of the image": lambda e: [box.area / (e.rows * e.columns) for box in e.boxes],
        "pixels of an image": lambda e: [e.rows * e.columns],
        "bytes of an image": lambda e: [e.bytes],
    }
)
GREYS = ("mean grey", "spread of greys")
P = ParamSpec("P")
V = TypeVar("V")
log = logging.getLogger(__name__)


def advice(compare: Callable[P, list[Shift]]) -> Callable[P, list[Shift]]:
    """A comparison whose wrong or missing input is a warning and no shift.

    An outage or an interruption still ends the job with 75: without the shifts, its record would differ.
    """

    @functools.wraps(compare)
    def advise(*arguments: P.args, **options: P.kwargs) -> list[Shift]:
        try:
            return compare(*arguments, **options)
        except InputError as error:
            log.warning("drift: not compared: %s", error)
            return []

    return advise


def between(new: Sequence["Exam"], trained: Sequence["Exam"]) -> list[Shift]:
    """How the labelled images of one dataset compare with those of another, by their labels and headers."""
    shifts = [_categories(name, _of_all(new, get), _of_all(trained, get)) for name, get in CATEGORIES.items()]
    shifts += [_numbers(name, _of_all(new, get), _of_all(trained, get)) for name, get in NUMBERS.items()]
    return [shift for shift in shifts if shift is not None]


def profile(exams: Sequence["Exam"], levels: np.ndarray, sampling: Sampling) -> Profile:
    """The profile of training images; levels (len(exams), size, size) are in the sampling's integers."""
    means, spreads = _greys(levels, sampling)
    sizes = [float(exam.bytes) for exam in exams]
    return Profile(len(exams), _quantiles(sizes), _quantiles(means), _quantiles(spreads))


def from_profile(
    new: Sequence[Image], levels: Iterable[np.ndarray], sampling: Sampling, trained: Profile
) -> list[Shift]:
    """How images to predict compare with a model's training images, by their bytes and grey levels.

    `levels` are those of a sample of the images, (size, size) each, in the sampling's integers.
    """
    means, spreads = _greys(levels, sampling)
    sizes = [float(image.object.bytes) for image in new]
    properties = {
        "bytes of an image": (sizes, trained.image_bytes),
        GREYS[0]: (means, trained.mean_grey),
        GREYS[1]: (spreads, trained.grey_spread),
    }
    shifts = {name: _numbers(name, *values, trained.images) for name, values in properties.items()}
    if missing := [name for name, shift in shifts.items() if shift is None]:
        log.warning(
            "drift: not compared: %s; the model's profile lacks it, or no image can be read",
            ", ".join(missing),
        )
    return [shift for shift in shifts.values() if shift is not None]


def _quantiles(values: Sequence[float]) -> list[float]:
    return [float(f"{quantile:.6g}") for quantile in np.quantile(values, PROFILED)]


def warn(shifts: Iterable[Shift], model: str) -> None:
    """Log what has drifted from the training images of `model`."""
    drifted = {shift.name: shift for shift in shifts if shift.drifted}
    for shift in drifted.values():
        log.warning(
            "drift: %s: %s, but %s where %s was trained (PSI %.2f, above %.2f)",
            shift.name, shift.now, shift.was, model, shift.psi, shift.limit,
        )  # fmt: skip
    if drifted and {*drifted} <= {*GREYS}:
        log.warning(
            "drift: only the grey levels differ, and nothing else explains it; look at some images: window, "
            "inversion or padding may be other than in training"
        )


def _greys(images: Iterable[np.ndarray], sampling: Sampling) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the grey levels of each image, 0 black to 1 white."""
    levels = [(float(image.mean()), float(image.std())) for image in images]
    return [mean / sampling.max_value for mean, _ in levels], [std / sampling.max_value for _, std in levels]


def _of_all(exams: Sequence["Exam"], get: Callable[["Exam"], list[V]]) -> list[V]:
    return [value for exam in exams for value in get(exam)]


def _numbers(name: str, new: Sequence[float], trained: Sequence[float], count: int = 0) -> Shift | None:
    """A numeric property, by the deciles of `trained`, which represent `count` images (0: its length)."""
    if not new or not trained:
        return None
    edges = np.unique(np.quantile(trained, np.arange(1, BINS) / BINS))
    now, was = (
        np.bincount(np.searchsorted(edges, np.asarray(values), side="right"), minlength=len(edges) + 1)
        for values in (new, trained)
    )
    psi, limit = _stability_index(now, was, count or len(trained))
    return Shift(name, psi, limit, *(f"median {np.median(values):,.6g}" for values in (trained, new)))


def _categories(name: str, new: Sequence[str], trained: Sequence[str]) -> Shift | None:
    """A property in categories, described by the one whose share changed most."""
    if not new or not trained:
        return None
    now, was = Counter(new), Counter(trained)
    categories = sorted({*new, *trained})
    change = {name: abs(now[name] / len(new) - was[name] / len(trained)) for name in categories}
    largest = max(categories, key=lambda category: (round(change[category], 9), category))
    of_new, of_trained = (np.array([counter[name] for name in categories]) for counter in (now, was))
    psi, limit = _stability_index(of_new, of_trained, len(trained))
    words = (f"{counter[largest] / counter.total():.0%} {largest}" for counter in (was, now))
    return Shift(name, psi, limit, *words)


def _stability_index(now: np.ndarray, was: np.ndarray, trained: int) -> tuple[float, float]:
    """The index of two sets of counts, and the limit that samples of one population rarely exceed.

    `was` represents `trained` images.

    Between samples of one population it is (1 / new + 1 / trained) times a chi-square with one degree of
    freedom less than there are bins. Sources: Yurdakul, Statistical Properties of Population Stability Index,
    2018; Wilson and Hilferty, The distribution of chi-square, 1931, for its quantile.
    """
    p, q = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (now, was))
    psi = float(((p - q) * np.log(p / q)).sum())
    free = max(1, len(now) - 1)
    quantile = free * (1 - 2 / (9 * free) + CERTAIN * math.sqrt(2 / (9 * free))) ** 3
    return round(psi, 4), round(LITTLE + (1 / int(now.sum()) + 1 / trained) * quantile, 4)
