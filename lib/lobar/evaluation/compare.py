"""A challenger beside the champion: what each scores on the same validation images, and where they differ."""

from dataclasses import dataclass
from typing import Any, Self

from lobar.core import console
from lobar.core.errors import InputError
from lobar.data.index import Exam, read_index
from lobar.evaluation import analysis, bootstrap, rsna_metric
from lobar.evaluation.bootstrap import Interval
from lobar.imaging import loader
from lobar.imaging.sampling import Sampling
from lobar.inference import postprocess
from lobar.inference.engines import OpenVino
from lobar.inference.release import OperatingPoint
from lobar.storage import records
from lobar.storage.layout import Dataset, Model

LISTED = 10


@dataclass(frozen=True)
class Difference:
    """An image, and the challenge's score of each system there; without truth, 1 where it is left empty."""

    patient_id: str
    target: int
    challenger: float
    other: float


@dataclass(frozen=True)
class Comparison:
    """By how much a challenger's metric is above the other's, on images that neither was trained on.

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

    @classmethod
    def of(cls, record: dict[str, Any]) -> Self:
        """The comparison that a registry's record holds."""
        return cls(
            other=record["other"],
            gain=Interval(**record["gain"]),
            kinds={name: Interval(**value) for name, value in record["kinds"].items()},
            won=[Difference(**row) for row in record["won"]],
            lost=[Difference(**row) for row in record["lost"]],
            left_out=record["left_out"],
        )


def compare(challenger: Model, champion: Model | None, data: Dataset) -> Comparison:
    """Compare a challenger with the champion, or where there is none with the detector without a network."""
    exams = read_index(data, "valid")
    ours = scores_on(challenger, data, exams)
    theirs = scores_on(champion, data, exams) if champion else scores_without_network(challenger, data)
    known = {e.group for model in (challenger, champion) if model for e in known_to(model)}
    left = [e for e in exams if e.group not in known and e.patient_id in ours and e.patient_id in theirs]

    def gain(chosen: list[Exam]) -> Interval:
        both = ([scores[exam.patient_id] for exam in chosen] for scores in (ours, theirs))
        return bootstrap.gain(chosen, *both)

    differing = _differing(left, ours, theirs)
    return Comparison(
        other=champion.url if champion else "",
        gain=gain(left),
        kinds={name: gain([e for e in left if holds(e)]) for name, holds in analysis.kinds(left).items()},
        won=[each for each in differing if each.challenger > each.other][:LISTED],
        lost=[each for each in differing[::-1] if each.challenger < each.other][:LISTED],
        left_out=len(exams) - len(left),
    )


def _differing(
    exams: list[Exam], ours: dict[str, float | None], theirs: dict[str, float | None]
) -> list[Difference]:
    """All images, those that the challenger wins most on first."""
    rows = [
        Difference(e.patient_id, e.target, *(_worth(scores[e.patient_id]) for scores in (ours, theirs)))
        for e in exams
    ]
    return sorted(rows, key=lambda row: row.other - row.challenger)


def _worth(score: float | None) -> float:
    """The challenge's score, and 1 where there was nothing to find and nothing was found."""
    return 1.0 if score is None else score


def scores_on(model: Model, data: Dataset, exams: list[Exam]) -> dict[str, float | None]:
    """A released model's challenge score of each of `exams` that can be read, by patient_id.

    On the dataset that its operating point was tuned on these are the cross-validated scores of its
    evaluation, so that nothing is tuned on itself; on another one the network runs, at the released point.
    """
    release = records.read_record(model.release, "evaluate")
    if _evaluated_on(release, data):
        return _column(model, data, "score_tuned")
    points = release["precisions"]["float32"]["operating_points"]
    options, point = release["options"], OperatingPoint(**points["tuned"])
    engine = OpenVino(model, release["files"], "float32")
    sampling, rejected = Sampling(options["sampling"]), dict[str, str]()
    maps = engine.maps(loader.batches(exams, int(options["image_size"]), sampling, engine.batch, rejected))
    found = (pair for keys, _, batch in maps for pair in zip(keys, batch, strict=True))
    scores: dict[str, float | None] = {}
    for (exam, _), probabilities in console.progress(found, len(exams), f"images for {model.url}"):
        boxes = postprocess.detect(probabilities, exam.rows, exam.columns, point)
        scores[exam.patient_id] = rsna_metric.image_score(exam.boxes, boxes)
    return scores


def scores_without_network(model: Model, data: Dataset) -> dict[str, float | None]:
    """The scores of the detector without a network, from the evaluation of `model` on this very dataset.

    Raises InputError where it was evaluated on another.
    """
    if not _evaluated_on(records.read_record(model.release, "evaluate"), data):
        raise InputError(
            f"{model.release}: not of {data.url}; the first champion must be evaluated on --dataset"
        )
    return _column(model, data, "score_heuristic")


def exams_of(model: Model) -> list[Exam]:
    """The exams that a model was trained on."""
    return _trained(records.read_record(model.training, "train"))


def known_to(model: Model) -> list[Exam]:
    """The exams that a model was trained on, and those that the models were that its training began with."""
    exams: list[Exam] = []
    url = model.url
    while url:
        training = records.read_record(Model(url).training, "train")
        exams += _trained(training)
        url = training["inputs"]["options"]["init"]
    return exams


def _trained(training: dict[str, Any]) -> list[Exam]:
    return read_index(Dataset(training["inputs"]["dataset"]), "train")


def _evaluated_on(release: dict[str, Any], data: Dataset) -> bool:
    index = records.read_record(data.manifest, "label-index")["index"]
    return bool(release["inputs"]["dataset"] == data.url and release["inputs"]["index"] == index)


def _column(model: Model, data: Dataset, name: str) -> dict[str, float | None]:
    record = records.read_record(model.evaluation, "evaluate")
    table = records.read_table(model.scores(data), record["scores"])
    return dict(zip(table["patient_id"].to_pylist(), table[name].to_pylist(), strict=True))
