"""Score a trained model on a dataset's validation images, release it, and gather what the report shows."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lobar import artifacts, challenge, code_version, console, dataset, detect, heuristic, stream, tuning
from lobar.artifacts import Dataset, Model
from lobar.dataset import Exam
from lobar.dicom import Header, Sampling
from lobar.engines import OpenVino
from lobar.errors import InputError
from lobar.geometry import Box, draw_mask
from lobar.parallel import cpus, ordered_map
from lobar.tuning import Interval, Scored

PICTURED = 32
PICTURED_POSITIVE = 20


@dataclass(frozen=True)
class Picture:
    """One image of the report: grey levels (size, size) uint8, its exam and the boxes found in it."""

    levels: np.ndarray
    exam: Exam
    found: list[Box]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found: each image's score and the metric of each system, and pictures to look at.

    The systems are `tuned` (each image scored at a point tuned without it), `notebook` (the notebook's
    point), `heuristic` (no network) and `empty` (no box ever). `point` is tuned on all images. `empty_mask`
    holds the notebook's own metrics, accuracy and mean_iou, of a mask without any pixel.
    """

    images: list[Scored]
    scores: dict[str, list[float | None]]
    systems: dict[str, Interval]
    point: detect.OperatingPoint
    empty_mask: dict[str, float]
    refused: dict[str, str]
    pictures: list[Picture]


@dataclass(frozen=True)
class _Image:
    """What is kept of one validation image while the model is scored."""

    scored: Scored
    heuristic: list[Box]
    levels: np.ndarray | None


def inputs_of(model: Model, data: Dataset) -> dict[str, Any]:
    """What an evaluation is made from. Raises InputError where the model or the dataset is not complete."""
    training = artifacts.read_record(model.training, "train")
    return {
        # not model.keras: Keras writes the time into it, and a second pod's would be another
        "training": artifacts.digest([training["inputs"], training["files"]["openvino.bin"]]),
        "dataset": data.url,
        "index": artifacts.read_record(data.manifest, "label-index")["index"],
        "lobar": code_version(),
    }


def score(model: Model, data: Dataset) -> Evaluation:
    """Predict every validation image and score the model, its tuned point, and what it must beat.

    Raises InputError where the dataset has no validation image that can be decoded, or the model was trained
    on one of its people.
    """
    training = artifacts.read_record(model.training, "train")
    exams = dataset.read_index(data, "valid")
    _check_apart(training, exams)
    refused: dict[str, str] = {}
    images = list(_images(model, training, exams, refused))
    if not images:
        example = next(iter(refused.items()))
        raise InputError(
            f"{data.url}: none of {len(exams)} validation images can be read: {': '.join(example)}"
        )
    exams = [image.scored.exam for image in images]
    tuned = tuning.tune([image.scored for image in images])
    scores = {
        "tuned": tuned.scores,
        "notebook": tuning.scores(exams, lambda i: images[i].scored.boxes(detect.NOTEBOOK)),
        "heuristic": tuning.scores(exams, lambda i: images[i].heuristic),
        "empty": tuning.scores(exams, lambda i: []),
    }
    return Evaluation(
        images=[image.scored for image in images],
        scores=scores,
        systems={name: tuning.interval(exams, values) for name, values in scores.items()},
        point=tuned.point,
        empty_mask=_empty_mask(exams, training["inputs"]["options"]["image_size"]),
        refused=refused,
        pictures=[
            Picture(image.levels, image.scored.exam, image.scored.boxes(tuned.point))
            for image in images
            if image.levels is not None
        ],
    )


def verdict(systems: dict[str, Interval]) -> str:
    """What the intervals say of the model, in one line."""
    tuned, heuristic, positives = systems["tuned"], systems["heuristic"], systems["empty"].counted
    if not positives:
        return "cannot be judged: no validation image has a box"
    if (tuned.low or 0) > (heuristic.high or 0):
        return "better than a detector without a network"
    return "not shown to be better than a detector without a network"


def release(model: Model, data: Dataset, found: Evaluation) -> dict[str, Any]:
    """Put scores, operating points and evaluation, then the release that makes the model usable by others.

    Returns the evaluation's record.
    """
    training = artifacts.read_record(model.training, "train")
    inputs = inputs_of(model, data)
    points = {"tuned": asdict(found.point), "notebook": asdict(detect.NOTEBOOK)}
    artifacts.write_json(model.operating_point, points)
    record = artifacts.commit(
        model.evaluation,
        inputs,
        scores=artifacts.write_table(model.scores(data), _score_table(found)),
        images=len(found.images),
        positive=sum(image.exam.target for image in found.images),
        systems={name: asdict(value) for name, value in found.systems.items()},
        operating_point=points["tuned"],
        empty_mask=found.empty_mask,
        refused=found.refused,
    )
    artifacts.commit(
        model.release,
        inputs,
        files=training["files"],
        options=training["inputs"]["options"],
        operating_points=points,
        engine="openvino",
        precision="float32",
        cpu_features=[],
    )
    return record


def scores_on(model: Model, data: Dataset, exams: list[Exam]) -> dict[str, float | None]:
    """A released model's challenge score of each of `exams` that can be read, by patient_id.

    On the dataset that its operating point was tuned on these are the cross-validated scores of its
    evaluation, so that nothing is tuned on itself; on another one the network runs, at the released point.
    """
    release = artifacts.read_record(model.release, "evaluate")
    if _evaluated_on(release, data):
        return _column(model, data, "score_tuned")
    options, point = release["options"], detect.OperatingPoint(**release["operating_points"]["tuned"])
    engine = OpenVino(model, release["files"])
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
    training = artifacts.read_record(model.training, "train")
    return {exam.group for exam in dataset.read_index(Dataset(training["inputs"]["dataset"]), "train")}


def _evaluated_on(release: dict[str, Any], data: Dataset) -> bool:
    index = artifacts.read_record(data.manifest, "label-index")["index"]
    return bool(release["inputs"]["dataset"] == data.url and release["inputs"]["index"] == index)


def _column(model: Model, data: Dataset, name: str) -> dict[str, float | None]:
    record = artifacts.read_record(model.evaluation, "evaluate")
    table = artifacts.read_table(model.scores(data), record["scores"])
    return dict(zip(table["patient_id"].to_pylist(), table[name].to_pylist(), strict=True))


def _images(
    model: Model, training: dict[str, Any], exams: list[Exam], refused: dict[str, str]
) -> Iterator[_Image]:
    options = training["inputs"]["options"]
    sampling, pictured = Sampling(options["sampling"]), _pictured(exams)

    def examine(each: tuple[tuple[Exam, Header], np.ndarray, np.ndarray]) -> _Image:
        (exam, _), levels, probabilities = each
        grey = levels if sampling is Sampling.AREA else (levels // 4).astype(np.uint8)
        across, down = exam.columns / grey.shape[1], exam.rows / grey.shape[0]
        guessed = [box.scaled(across, down) for box in heuristic.detect(grey)]
        kept = grey if exam.patient_id in pictured else None
        return _Image(tuning.score_map(exam, probabilities), guessed, kept)

    engine = OpenVino(model, training["files"])
    maps = engine.maps(stream.batches(exams, int(options["image_size"]), sampling, engine.batch, refused))
    found = (each for keys, *arrays in maps for each in zip(keys, *arrays, strict=True))
    examined = ordered_map(examine, found, workers=cpus(), ahead=4 * cpus())
    yield from console.progress(examined, len(exams), "validation images")


def _check_apart(training: dict[str, Any], exams: list[Exam]) -> None:
    trained = dataset.read_index(Dataset(training["inputs"]["dataset"]), "train")
    groups, ids = {exam.group for exam in trained}, {exam.patient_id for exam in trained}
    if known := [exam.patient_id for exam in exams if exam.group in groups or exam.patient_id in ids]:
        raise InputError(
            f"the model was trained on {len(known)} of the {len(exams)} validation images, or on other "
            f"images of these people, {known[0]} for one; evaluate on the dataset it was trained with"
        )


def _pictured(exams: list[Exam]) -> set[str]:
    """The ids that the report shows: more positives than a random batch would have, then negatives."""
    positive = [exam.patient_id for exam in exams if exam.target][:PICTURED_POSITIVE]
    negative = [exam.patient_id for exam in exams if not exam.target][: PICTURED - len(positive)]
    return {*positive, *negative}


def _empty_mask(exams: list[Exam], size: int) -> dict[str, float]:
    areas = np.array([draw_mask(exam.boxes, exam.rows, exam.columns, size).sum() for exam in exams])
    return {"accuracy": float(1 - areas.mean() / size**2), "mean_iou": float((1 / (areas + 1)).mean())}


def _score_table(found: Evaluation) -> pa.Table:
    exams = [image.exam for image in found.images]
    columns: dict[str, list[Any]] = {
        "patient_id": [exam.patient_id for exam in exams],
        "group": [exam.group for exam in exams],
        "view": [exam.view for exam in exams],
        "target": [exam.target for exam in exams],
        "image_score": [image.image_score for image in found.images],
    }
    return pa.table(columns | {f"score_{name}": values for name, values in found.scores.items()})
