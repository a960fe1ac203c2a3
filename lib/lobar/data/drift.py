"""Whether images are like those that a model was trained on."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from lobar.data.index import Exam
from lobar.data.listing import Image
from lobar.imaging import loader
from lobar.imaging.sampling import Sampling

BINS = 10
# Below it a population counts as little changed. Source: Siddiqi, Credit Risk Scorecards, 2006, chapter 12
LITTLE = 0.2
PROFILED = (np.arange(2 * BINS) + 0.5) / (2 * BINS)
CERTAIN = 4  # standard deviations: a warning that comes by chance is soon no longer read
SAMPLE = 200
KINDS: MappingProxyType[str, Callable[[Exam], list[str]]] = MappingProxyType(
    {
        "labels": lambda exam: ["positive" if exam.boxes else "negative"],
        "boxes of a positive image": lambda exam: [f"with {len(exam.boxes)}"] if exam.boxes else [],
        "views": lambda exam: [exam.view or "unknown"],
    }
)
NUMBERS: MappingProxyType[str, Callable[[Exam], list[float]]] = MappingProxyType(
    {
        "box area, share of the image": lambda e: [box.area / (e.rows * e.columns) for box in e.boxes],
        "pixels of an image": lambda e: [e.rows * e.columns],
        "bytes of an image": lambda e: [e.bytes],
    }
)
V = TypeVar("V")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shift:
    """How far one property of new images lies from that of a model's training images.

    `psi` is the population stability index, 0 for equal shares; below `limit` it may be chance. `was` and
    `now` say the property in words.
    """

    name: str
    psi: float
    limit: float
    was: str
    now: str

    @property
    def drifted(self) -> bool:
        return self.psi > self.limit


def between(new: Sequence[Exam], trained: Sequence[Exam]) -> list[Shift]:
    """How the labelled images of one dataset lie to those of another, by their labels and headers."""
    found = [_kinds(name, _of_all(new, of), _of_all(trained, of)) for name, of in KINDS.items()]
    found += [_numbers(name, _of_all(new, of), _of_all(trained, of)) for name, of in NUMBERS.items()]
    return [shift for shift in found if shift is not None]


def profile(exams: Sequence[Exam], images: np.ndarray, sampling: Sampling) -> dict[str, Any]:
    """What training images look like, for `from_profile`: the number of them and quantiles of properties.

    images (len(exams), size, size) are in the sampling's integers.
    """
    sizes: dict[str, list[float]] = {"bytes of an image": [exam.bytes for exam in exams]}
    values = sizes | _greys(images, sampling)
    quantiles = {
        name: [float(f"{q:.6g}") for q in np.quantile(each, PROFILED)] for name, each in values.items()
    }
    return {"images": len(exams), "quantiles": quantiles}


def from_profile(new: Sequence[Image], training: dict[str, Any]) -> list[Shift]:
    """How images to predict lie to those of a training's record, by their sizes and a sample of their pixels.

    The sample are the first SAMPLE, which are random ones in the order of `listing`. What of them cannot be
    read is left to predict.
    """
    was, options = training["profile"], training["inputs"]["options"]
    sampling = Sampling(options["sampling"])
    films = loader.decoded(new[:SAMPLE], int(options["image_size"]), sampling, {})
    sizes: dict[str, list[float]] = {"bytes of an image": [image.object.bytes for image in new]}
    values = sizes | _greys((film.levels for _, film in films), sampling)
    found = [_numbers(name, values[name], was["quantiles"][name], was["images"]) for name in values]
    return [shift for shift in found if shift is not None]


def warn(shifts: Iterable[Shift], model: str) -> None:
    """Log what has drifted from the training images of `model`."""
    for shift in shifts:
        if shift.drifted:
            log.warning(
                "drift: %s: %s, but %s where %s was trained (PSI %.2f, above %.2f)",
                shift.name, shift.now, shift.was, model, shift.psi, shift.limit,
            )  # fmt: skip


def _greys(images: Iterable[np.ndarray], sampling: Sampling) -> dict[str, list[float]]:
    """Mean and standard deviation of each image's grey levels, 0 black to 1 white."""
    found = [
        (float(each.mean()) / sampling.max_value, float(each.std()) / sampling.max_value) for each in images
    ]
    return {"mean grey": [mean for mean, _ in found], "spread of greys": [spread for _, spread in found]}


def _of_all(exams: Sequence[Exam], of: Callable[[Exam], list[V]]) -> list[V]:
    return [value for exam in exams for value in of(exam)]


def _numbers(name: str, new: Sequence[float], trained: Sequence[float], count: int = 0) -> Shift | None:
    """A property in numbers, by the deciles of `trained`, which stand for `count` images."""
    if not new or not trained:
        return None
    edges = np.unique(np.quantile(trained, np.arange(1, BINS) / BINS))
    now, was = (
        np.bincount(np.searchsorted(edges, np.asarray(values), side="right"), minlength=len(edges) + 1)
        for values in (new, trained)
    )
    psi, limit = _index(now, was, len(new), count or len(trained))
    return Shift(name, psi, limit, *(f"median {np.median(each):,.6g}" for each in (trained, new)))


def _kinds(name: str, new: Sequence[str], trained: Sequence[str]) -> Shift | None:
    """A property in kinds; the one whose share changed most stands for it in words."""
    if not new or not trained:
        return None
    now, was = Counter(new), Counter(trained)
    kinds = sorted({*new, *trained})
    change = {kind: abs(now[kind] / len(new) - was[kind] / len(trained)) for kind in kinds}
    told = max(kinds, key=lambda kind: (round(change[kind], 9), kind))
    counts = np.array([[each[kind] for kind in kinds] for each in (now, was)])
    psi, limit = _index(counts[0], counts[1], len(new), len(trained))
    words = (f"{each[told] / each.total():.0%} {told}" for each in (was, now))
    return Shift(name, psi, limit, *words)


def _index(now: np.ndarray, was: np.ndarray, new_count: int, trained_count: int) -> tuple[float, float]:
    """The index of two sets of counts, and the limit that equal populations of so many stay below.

    Between samples of one population it is (1 / new + 1 / trained) times a chi-square of one degree of
    freedom less than there are bins. Sources: Yurdakul, Statistical Properties of Population Stability Index,
    2018; Wilson and Hilferty, The distribution of chi-square, 1931, for its quantile.
    """
    p, q = ((each + 0.5) / (each.sum() + 0.5 * len(each)) for each in (now, was))
    psi = float(((p - q) * np.log(p / q)).sum())
    free = max(1, len(now) - 1)
    quantile = free * (1 - 2 / (9 * free) + CERTAIN * math.sqrt(2 / (9 * free))) ** 3
    return round(psi, 4), round(LITTLE + (1 / new_count + 1 / trained_count) * quantile, 4)
