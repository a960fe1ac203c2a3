"""What a released model scores on each validation image, for one model to be compared with another."""

from typing import Any

from lobar import artifacts, challenge, console, dataset, detect, stream
from lobar.artifacts import Dataset, Model
from lobar.dataset import Exam
from lobar.dicom import Sampling
from lobar.engines import OpenVino
from lobar.errors import InputError


def scores_on(model: Model, data: Dataset, exams: list[Exam]) -> dict[str, float | None]:
    """A released model's challenge score of each of `exams` that can be read, by patient_id.

    On the dataset that its operating point was tuned on these are the cross-validated scores of its
    evaluation, so that nothing is tuned on itself; on another one the network runs, at the released point.
    """
    release = artifacts.read_record(model.release, "evaluate")
    if _evaluated_on(release, data):
        return _column(model, data, "score_tuned")
    points = release["precisions"]["float32"]["operating_points"]
    options, point = release["options"], detect.OperatingPoint(**points["tuned"])
    engine = OpenVino(model, release["files"], "float32")
    sampling, refused = Sampling(options["sampling"]), dict[str, str]()
    maps = engine.maps(stream.batches(exams, int(options["image_size"]), sampling, engine.batch, refused))
    found = (pair for keys, _, batch in maps for pair in zip(keys, batch, strict=True))
    scores: dict[str, float | None] = {}
    for (exam, _), probabilities in console.progress(found, len(exams), f"images for {model.url}"):
        boxes = detect.detect(probabilities, exam.rows, exam.columns, point)
        scores[exam.patient_id] = challenge.image_score(exam.boxes, boxes)
    return scores


def scores_without_network(model: Model, data: Dataset) -> dict[str, float | None]:
    """The scores of the detector without a network, from the evaluation of `model` on this very dataset.

    Raises InputError where it was evaluated on another.
    """
    if not _evaluated_on(artifacts.read_record(model.release, "evaluate"), data):
        raise InputError(
            f"{model.release}: not of {data.url}; the first champion must be evaluated on --dataset"
        )
    return _column(model, data, "score_heuristic")


def trained_on(model: Model) -> set[str]:
    """The groups that a model was trained on."""
    return {exam.group for exam in exams_of(model)}


def exams_of(model: Model) -> list[Exam]:
    """The exams that a model was trained on."""
    training = artifacts.read_record(model.training, "train")
    return dataset.read_index(Dataset(training["inputs"]["dataset"]), "train")


def _evaluated_on(release: dict[str, Any], data: Dataset) -> bool:
    index = artifacts.read_record(data.manifest, "label-index")["index"]
    return bool(release["inputs"]["dataset"] == data.url and release["inputs"]["index"] == index)


def _column(model: Model, data: Dataset, name: str) -> dict[str, float | None]:
    record = artifacts.read_record(model.evaluation, "evaluate")
    table = artifacts.read_table(model.scores(data), record["scores"])
    return dict(zip(table["patient_id"].to_pylist(), table[name].to_pylist(), strict=True))
