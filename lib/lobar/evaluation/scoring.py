"""Predict a dataset's validation images with a trained model, and score it and what it must beat."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lobar.core import console
from lobar.core.boxes import Box, draw_mask
from lobar.core.concurrency import cpus, ordered_map
from lobar.core.errors import InputError
from lobar.core.rejections import Rejection
from lobar.data.index import Exam, read_index
from lobar.evaluation import analysis, baseline, bootstrap, gallery, operating_point
from lobar.evaluation.analysis import Analysis
from lobar.evaluation.bootstrap import Interval
from lobar.evaluation.compare import known_to
from lobar.evaluation.gallery import Picture
from lobar.evaluation.operating_point import Scored
from lobar.evaluation.record import MaskMetrics, Trial
from lobar.imaging.loader import Decoded, Rejected
from lobar.imaging.sampling import Sampling
from lobar.inference import engines, maps
from lobar.inference.engines import OpenVino
from lobar.inference.release import NOTEBOOK
from lobar.storage.layout import Dataset, Model
from lobar.training.record import Training


@dataclass(frozen=True)
class Result:
    """The scores of every image, the metric of each system, and pictures to look at.

    The systems are `tuned` (each image scored at a point tuned without it), `notebook` (the notebook's
    operating point), `baseline` (no network) and `empty` (never a box), with the network in float32.
    `analysis` and `pictures` show the boxes of `tuned`. The other fields are those of the record of evaluate.
    """

    images: list[Scored]
    scores: dict[str, list[float | None]]
    systems: dict[str, Interval]
    precisions: dict[str, Trial]
    analysis: Analysis
    pictures: dict[str, list[Picture]]
    empty_mask: MaskMetrics
    rejected: list[Rejection]


@dataclass(frozen=True)
class _Image:
    """What is kept of one validation image: its scores by precision, and the baseline's boxes."""

    scored: dict[str, Scored]
    baseline: list[Box]


def score(model: Model, training: Training, dataset: Dataset) -> Result:
    """Predict every validation image and score the model, its tuned point, and what it must beat.

    Raises InputError if no validation image can be decoded, or the model was trained on one of the patients.
    """
    exams = read_index(dataset, "valid")
    _check_unseen(model, exams)
    rejected: list[Rejection] = []
    images: list[_Image] = []
    for image in console.progress(_images(model, training, exams), len(exams), "validation images"):
        if isinstance(image, Rejection):
            rejected.append(image)
        else:
            images.append(image)
    if not images:
        raise InputError(f"{dataset.url}: none of {len(exams)} validation images can be read: {rejected[0]}")
    scored = [image.scored["float32"] for image in images]
    exams = [image.exam for image in scored]
    tuned = {
        name: operating_point.tune([image.scored[name] for image in images]) for name in images[0].scored
    }
    exact = tuned["float32"]
    boxes = [image.boxes(point) for image, point in zip(scored, exact.fair_points, strict=True)]
    hits = len({exam.group for exam, value in zip(exams, exact.scores, strict=True) if value})
    scores = {
        "tuned": exact.scores,
        "notebook": operating_point.scores(exams, lambda i: scored[i].boxes(NOTEBOOK)),
        "baseline": operating_point.scores(exams, lambda i: images[i].baseline),
        "empty": operating_point.scores(exams, lambda i: []),
    }
    return Result(
        images=scored,
        scores=scores,
        systems={name: bootstrap.interval(exams, values) for name, values in scores.items()},
        precisions={
            name: Trial(
                point.point,
                bootstrap.interval(exams, point.scores),
                bootstrap.gain(exams, point.scores, exact.scores),
                hits,
            )
            for name, point in tuned.items()
        },
        analysis=analysis.analyse(scored, exact, boxes),
        pictures=gallery.read(gallery.choose(exams, boxes, exact.scores), exams, boxes, exact.scores),
        empty_mask=_empty_mask(exams, training.inputs.recipe.image_size),
        rejected=rejected,
    )


def _images(model: Model, training: Training, exams: list[Exam]) -> Iterator[_Image | Rejection]:
    """Each image decoded once, and its maps in each precision that this CPU supports."""
    recipe = training.inputs.recipe

    def examine(image: tuple[Decoded[Exam], dict[str, np.ndarray]] | Rejected[Exam]) -> _Image | Rejection:
        if isinstance(image, Rejected):
            return image.rejection
        decoded, predicted = image
        exam, levels = decoded.item, decoded.levels
        grey = levels if recipe.sampling is Sampling.AREA else (levels // 4).astype(np.uint8)
        across, down = exam.columns / grey.shape[1], exam.rows / grey.shape[0]
        without_network = [box.scaled(across, down) for box in baseline.detect(grey)]
        scored = {name: operating_point.score_map(exam, values) for name, values in predicted.items()}
        return _Image(scored, without_network)

    precisions = engines.possible_precisions()
    loaded = {precision: OpenVino(model, training.files, precision) for precision in precisions}
    return ordered_map(examine, maps.predict(loaded, exams, recipe), workers=cpus(), ahead=4 * cpus())


def _check_unseen(model: Model, exams: Sequence[Exam]) -> None:
    trained = known_to(model)
    groups, ids = {exam.group for exam in trained}, {exam.patient_id for exam in trained}
    if known := [exam.patient_id for exam in exams if exam.group in groups or exam.patient_id in ids]:
        raise InputError(
            f"the model was trained on {len(known)} of the {len(exams)} validation images, or on other "
            f"images of these patients, for example {known[0]}; evaluate on the dataset it was trained with"
        )


def _empty_mask(exams: Sequence[Exam], size: int) -> MaskMetrics:
    areas = np.array([draw_mask(exam.boxes, exam.rows, exam.columns, size).sum() for exam in exams])
    return MaskMetrics(float(1 - areas.mean() / size**2), float((1 / (areas + 1)).mean()))
