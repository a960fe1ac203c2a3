"""A challenger compared with the champion on the same validation images, and where their scores differ."""

import itertools
from dataclasses import dataclass

import numpy as np

from lobar.core import console
from lobar.core.concurrency import cpus, ordered_map
from lobar.core.errors import InputError
from lobar.data.index import Exam, read_index
from lobar.data.record import Manifest
from lobar.evaluation import analysis, bootstrap, operating_point
from lobar.evaluation.bootstrap import Interval
from lobar.evaluation.operating_point import Scored
from lobar.evaluation.record import Evaluation
from lobar.imaging.loader import Decoded, Rejected
from lobar.inference import maps
from lobar.inference.engines import OpenVino
from lobar.inference.release import Release
from lobar.storage import records, tables
from lobar.storage.layout import Dataset, Model
from lobar.training.record import Training

LISTED = 10


@dataclass(frozen=True)
class Difference:
    """An image and the challenge's score of each system on it; 1 if there is neither truth nor prediction."""

    patient_id: str
    target: int
    challenger: float
    other: float


@dataclass(frozen=True)
class Comparison:
    """By how much a challenger's metric exceeds the other's, on images that neither was trained on.

    `other` is the champion's URL, or empty for the detector without a network. `kinds` is the gain by kind
    of image, `won` and `lost` are the images on which the two differ most. `left_out` counts the images that
    one of them knows, or could not read.
    """

    other: str
    gain: Interval
    kinds: dict[str, Interval]
    won: list[Difference]
    lost: list[Difference]
    left_out: int


def compare(challenger: Model, champion: Model | None, dataset: Dataset) -> Comparison:
    """Compare a challenger with the champion, or before the first one with the detector without a network."""
    exams = read_index(dataset, "valid")
    known = {exam.group for model in (challenger, champion) if model for exam in known_to(model)}
    unknown = [exam for exam in exams if exam.group not in known]
    ours = scores_on(challenger, dataset, unknown)
    theirs = (
        scores_on(champion, dataset, unknown) if champion else scores_without_network(challenger, dataset)
    )
    compared = [exam for exam in unknown if exam.patient_id in ours and exam.patient_id in theirs]

    def gain(chosen: list[Exam]) -> Interval:
        both = ([scores[exam.patient_id] for exam in chosen] for scores in (ours, theirs))
        return bootstrap.gain(chosen, *both)

    differing = _differing(compared, ours, theirs)
    return Comparison(
        other=champion.url if champion else "",
        gain=gain(compared),
        kinds={
            name: gain(list(itertools.compress(compared, mask)))
            for name, mask in analysis.kinds(compared).items()
        },
        won=[row for row in differing if row.challenger > row.other][:LISTED],
        lost=[row for row in differing[::-1] if row.challenger < row.other][:LISTED],
        left_out=len(exams) - len(compared),
    )


def _differing(
    exams: list[Exam], ours: dict[str, float | None], theirs: dict[str, float | None]
) -> list[Difference]:
    """All images, those on which the challenger gains most first."""

    def score(scores: dict[str, float | None], exam: Exam) -> float:
        value = scores[exam.patient_id]
        return 1.0 if value is None else value  # neither truth nor prediction

    rows = [Difference(e.patient_id, e.target, score(ours, e), score(theirs, e)) for e in exams]
    return sorted(rows, key=lambda row: row.other - row.challenger)


def scores_on(model: Model, dataset: Dataset, exams: list[Exam]) -> dict[str, float | None]:
    """A released model's challenge score of each of `exams` that can be read, by patient id.

    Each image is scored at the operating point that the other folds of `exams` choose, never at the released
    one, which may have been tuned on the same images. The scores are those of the model's evaluation if that
    was on this dataset and tuned on no other images; else the network runs.
    """
    release = records.read(model.release, Release)
    if _evaluated_on(release, dataset):
        evaluated = _column(model, "score_tuned")
        if evaluated.keys() <= {exam.patient_id for exam in exams}:
            return evaluated

    def examine(image: tuple[Decoded[Exam], dict[str, np.ndarray]] | Rejected[Exam]) -> list[Scored]:
        if isinstance(image, Rejected):
            return []
        return [operating_point.score_map(image[0].item, image[1]["float32"])]

    network = {"float32": OpenVino(model, release.files, "float32")}
    images = console.progress(
        maps.predict(network, exams, release.recipe), len(exams), f"images for {model.url}"
    )
    scored = [one for found in ordered_map(examine, images, cpus(), 4 * cpus()) for one in found]
    if not scored:
        return {}
    tuned = operating_point.tune(scored)
    return {one.exam.patient_id: score for one, score in zip(scored, tuned.scores, strict=True)}


def scores_without_network(model: Model, dataset: Dataset) -> dict[str, float | None]:
    """The scores of the detector without a network, from the evaluation of `model` on this very dataset.

    Raises InputError if the model was evaluated on another.
    """
    if not _evaluated_on(records.read(model.release, Release), dataset):
        raise InputError(
            f"{model.release}: evaluated on another dataset than {dataset.url}; the first champion must be "
            "evaluated on the dataset that it is compared on"
        )
    return _column(model, "score_baseline")


def exams_of(model: Model) -> list[Exam]:
    """The exams that a model was trained on."""
    training = records.read(model.training, Training)
    return read_index(Dataset(training.inputs.dataset), "train")


def known_to(model: Model) -> list[Exam]:
    """The exams that a model was trained on, and those of the models that its training started from."""
    init = records.read(model.training, Training).inputs.recipe.init
    return exams_of(model) + (known_to(Model(init)) if init else [])


def _evaluated_on(release: Release, dataset: Dataset) -> bool:
    index = records.read(dataset.manifest, Manifest).index
    return (release.inputs.dataset, release.inputs.index) == (dataset.url, index)


def _column(model: Model, name: str) -> dict[str, float | None]:
    evaluation = records.read(model.evaluation, Evaluation)
    table = tables.decode(records.get(model.scores, evaluation.scores))
    return dict(zip(table["patient_id"].to_pylist(), table[name].to_pylist(), strict=True))
