"""The images that a report shows: best, typical and worst detections, missed and false ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2

from lobar.core.boxes import Box
from lobar.data.index import Exam
from lobar.imaging import loader
from lobar.imaging.loader import Decoded
from lobar.imaging.sampling import Sampling

OF_EACH_KIND = 8
SIDE = 256
QUALITY = 80


@dataclass(frozen=True)
class Picture:
    """An image as a JPEG of SIDE x SIDE, its exam with the truth, the predicted boxes, and its score."""

    jpeg: bytes
    exam: Exam
    boxes: Sequence[Box]
    score: float | None


def choose(
    exams: Sequence[Exam], boxes: Sequence[Sequence[Box]], scores: Sequence[float | None]
) -> dict[str, list[int]]:
    """Which images to show of each kind, as positions in `exams`; no image is of two kinds.

    Among positives with a prediction: `best` and `worst` by score, `typical` those around the median of what
    is left. `missed` are positives without any box, the largest first; `false` negatives with one, the
    most confident first.
    """

    def positions(positive: bool, called: bool) -> list[int]:
        return [i for i, e in enumerate(exams) if bool(e.boxes) == positive and bool(boxes[i]) == called]

    judged = sorted(positions(True, True), key=lambda i: -(scores[i] or 0))
    count = min(OF_EACH_KIND, -(-len(judged) // 3))
    best, rest = judged[:count], judged[count:]
    between, worst = rest[:-count], rest[-count:][::-1]
    middle = max(0, (len(between) - count) // 2)
    missed = sorted(positions(True, False), key=lambda i: -sum(box.area for box in exams[i].boxes))
    false = sorted(positions(False, True), key=lambda i: -max(box.confidence for box in boxes[i]))
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
    boxes: Sequence[Sequence[Box]],
    scores: Sequence[float | None],
) -> dict[str, list[Picture]]:
    """The pictures of the chosen images, read again from their store: a report shows them larger."""
    positions = {exams[i].patient_id: i for indices in chosen.values() for i in indices}
    images = loader.decoded([exams[i] for i in positions.values()], SIDE, Sampling.AREA)
    pictures = {}
    for image in images:
        if isinstance(image, Decoded):
            i = positions[image.item.patient_id]
            jpeg = cv2.imencode(".jpg", image.levels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
            pictures[i] = Picture(jpeg, image.item, boxes[i], scores[i])
    return {kind: [pictures[i] for i in indices if i in pictures] for kind, indices in chosen.items()}
