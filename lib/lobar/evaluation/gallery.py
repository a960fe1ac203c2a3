"""The films that a report shows: the best, the typical, the worst, and what was missed or imagined."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lobar.core.boxes import Box
from lobar.data.index import Exam
from lobar.imaging import loader
from lobar.imaging.sampling import Sampling

OF_EACH_KIND = 8
SIDE = 256
QUALITY = 80


@dataclass(frozen=True)
class Picture:
    """A film as a JPEG of SIDE x SIDE, its exam with the truth, what was found, and the challenge's score."""

    jpeg: bytes
    exam: Exam
    found: Sequence[Box]
    score: float | None


def choose(
    exams: Sequence[Exam], found: Sequence[Sequence[Box]], scores: Sequence[float | None]
) -> dict[str, list[int]]:
    """Which images to show of each kind, as places in `exams`; none is of two kinds.

    Among positives with a prediction: `best` and `worst` by score, `typical` those around the median of what
    is left. `missed` are positives without any box, the largest first; `false` negatives with one, the
    surest first.
    """

    def places(positive: bool, called: bool) -> list[int]:
        return [i for i, e in enumerate(exams) if bool(e.boxes) == positive and bool(found[i]) == called]

    judged = sorted(places(True, True), key=lambda i: -(scores[i] or 0))
    count = min(OF_EACH_KIND, -(-len(judged) // 3))
    best, rest = judged[:count], judged[count:]
    between, worst = rest[:-count], rest[-count:][::-1]
    middle = max(0, (len(between) - count) // 2)
    missed = sorted(places(True, False), key=lambda i: -sum(box.area for box in exams[i].boxes))
    false = sorted(places(False, True), key=lambda i: -max(box.confidence for box in found[i]))
    return {
        "best": best,
        "typical": between[middle : middle + count],
        "worst": worst,
        "missed": missed[:OF_EACH_KIND],
        "false": false[:OF_EACH_KIND],
    }


def read(
    chosen: dict[str, list[int]],
    exams: Sequence[Exam],
    found: Sequence[Sequence[Box]],
    scores: Sequence[float | None],
) -> dict[str, list[Picture]]:
    """The pictures of `choose`, read from their store again: in a report they are larger than a network's."""
    places = {exams[i].patient_id: i for kind in chosen.values() for i in kind}
    rejected: dict[str, str] = {}
    films = loader.decoded([exams[i] for i in places.values()], SIDE, Sampling.AREA, rejected)
    pictures = {
        places[exam.patient_id]: Picture(
            _jpeg(film.levels), exam, found[places[exam.patient_id]], scores[places[exam.patient_id]]
        )
        for exam, film in films
    }
    return {kind: [pictures[i] for i in kinds if i in pictures] for kind, kinds in chosen.items()}


def _jpeg(levels: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
