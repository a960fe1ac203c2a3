"""Score a trained model on a dataset's validation images, release it, and gather what the report shows."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lobar.core import console
from lobar.core.boxes import Box, draw_mask
from lobar.core.concurrency import cpus, ordered_map
from lobar.core.errors import InputError
from lobar.core.version import code_version
from lobar.data.index import Exam, read_index
from lobar.evaluation import analysis as analysis_module
from lobar.evaluation import baseline, bootstrap, compare, gallery, operating_point
from lobar.evaluation.bootstrap import Interval, interval
from lobar.evaluation.operating_point import Scored
from lobar.imaging import loader
from lobar.imaging.dicom import Header
from lobar.imaging.sampling import Sampling
from lobar.inference import engines
from lobar.inference.engines import OpenVino
from lobar.inference.release import NOTEBOOK, OperatingPoint
from lobar.storage import records
from lobar.storage.layout import Dataset, Model

# What a precision below float32 may cost in the challenge metric, and what it must surely not
MAY_COST = 0.002
SURELY_LESS = 0.02


@dataclass(frozen=True)
class Trial:
    """A precision of the network's arithmetic: its own operating point, tuned on all images, and its worth.

    `metric` is cross-validated like that of `tuned`; `gain` is its paired difference from float32's.
    """

    point: OperatingPoint
    metric: Interval
    gain: Interval

    @property
    def offered(self) -> bool:
        """Whether it costs at most MAY_COST here, and surely less than SURELY_LESS."""
        metric, low = self.gain.metric, self.gain.low
        return metric is not None and low is not None and metric >= -MAY_COST and low > -SURELY_LESS


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found: each image's score and the metric of each system, and pictures to look at.

    The systems are `tuned` (each image scored at a point tuned without it), `notebook` (the notebook's
    point), `heuristic` (no network) and `empty` (no box ever), with the network in float32; `precisions`
    holds float32 and what else this CPU computes in. `analysis` and `pictures` show what `tuned` finds.
    `empty_mask` holds the notebook's own metrics, accuracy and mean_iou, of a mask without any pixel.
    """

    images: list[Scored]
    scores: dict[str, list[float | None]]
    systems: dict[str, Interval]
    precisions: dict[str, Trial]
    analysis: analysis_module.Analysis
    pictures: dict[str, list[gallery.Picture]]
    empty_mask: dict[str, float]
    rejected: dict[str, str]


@dataclass(frozen=True)
class _Image:
    """What is kept of one validation image while the model is scored, by precision where it depends on it."""

    scored: dict[str, Scored]
    heuristic: list[Box]


# Exams, their levels (n, size, size), and the probabilities of the same shape by precision
_Batch = tuple[list[Exam], np.ndarray, dict[str, np.ndarray]]


def inputs_of(model: Model, data: Dataset) -> dict[str, Any]:
    """What an evaluation is made from. Raises InputError where the model or the dataset is not complete."""
    training = records.read_record(model.training, "train")
    return {
        # not model.keras: Keras writes the time into it, and a second pod's would be another
        "training": records.digest([training["inputs"], training["files"]["openvino.bin"]]),
        "dataset": data.url,
        "index": records.read_record(data.manifest, "label-index")["index"],
        "lobar": code_version(),
    }


def score(model: Model, data: Dataset) -> Evaluation:
    """Predict every validation image and score the model, its tuned point, and what it must beat.

    Raises InputError where the dataset has no validation image that can be decoded, or the model was trained
    on one of its people.
    """
    training = records.read_record(model.training, "train")
    exams = read_index(data, "valid")
    _check_apart(model, exams)
    rejected: dict[str, str] = {}
    images = list(_images(model, training, exams, rejected))
    if not images:
        example = next(iter(rejected.items()))
        raise InputError(
            f"{data.url}: none of {len(exams)} validation images can be read: {': '.join(example)}"
        )
    scored = [image.scored["float32"] for image in images]
    exams = [each.exam for each in scored]
    tuned = {
        name: operating_point.tune([image.scored[name] for image in images]) for name in images[0].scored
    }
    exact = tuned["float32"]
    boxes = [image.boxes(point) for image, point in zip(scored, exact.fair_points, strict=True)]
    shown = gallery.choose(exams, boxes, exact.scores)
    scores = {
        "tuned": exact.scores,
        "notebook": operating_point.scores(exams, lambda i: scored[i].boxes(NOTEBOOK)),
        "heuristic": operating_point.scores(exams, lambda i: images[i].heuristic),
        "empty": operating_point.scores(exams, lambda i: []),
    }
    return Evaluation(
        images=scored,
        scores=scores,
        systems={name: interval(exams, values) for name, values in scores.items()},
        precisions={
            name: Trial(
                each.point,
                interval(exams, each.scores),
                bootstrap.gain(exams, each.scores, exact.scores),
            )
            for name, each in tuned.items()
        },
        analysis=analysis_module.analyse(scored, exact, boxes),
        pictures=gallery.read(shown, exams, boxes, exact.scores),
        empty_mask=_empty_mask(exams, training["inputs"]["options"]["image_size"]),
        rejected=rejected,
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
    training = records.read_record(model.training, "train")
    inputs = inputs_of(model, data)
    points = {
        name: {"tuned": asdict(trial.point), "notebook": asdict(NOTEBOOK)}
        for name, trial in found.precisions.items()
    }
    records.write_json(model.operating_point, points)
    record = records.commit(
        model.evaluation,
        inputs,
        scores=records.write_table(model.scores(data), _score_table(found)),
        images=len(found.images),
        positive=sum(image.exam.target for image in found.images),
        systems={name: asdict(value) for name, value in found.systems.items()},
        precisions={
            name: {"metric": asdict(trial.metric), "gain": asdict(trial.gain), "offered": trial.offered}
            for name, trial in found.precisions.items()
        },
        roc_area=found.analysis.roc.area if found.analysis.roc else None,
        by_iou=found.analysis.by_iou,
        subsets={name: asdict(value) for name, value in found.analysis.subsets.items()},
        empty_mask=found.empty_mask,
        rejected=found.rejected,
    )
    records.commit(
        model.release,
        inputs,
        files=training["files"],
        options=training["inputs"]["options"],
        engine="openvino",
        precisions={
            name: {
                "operating_points": points[name],
                "cpu_features": [] if name == "float32" else engines.cpu_features(),
            }
            for name, trial in found.precisions.items()
            if name == "float32" or trial.offered
        },
    )
    return record


def _images(
    model: Model, training: dict[str, Any], exams: list[Exam], rejected: dict[str, str]
) -> Iterator[_Image]:
    options = training["inputs"]["options"]
    sampling = Sampling(options["sampling"])

    def examine(each: tuple[Exam, np.ndarray, dict[str, np.ndarray]]) -> _Image:
        exam, levels, maps = each
        grey = levels if sampling is Sampling.AREA else (levels // 4).astype(np.uint8)
        across, down = exam.columns / grey.shape[1], exam.rows / grey.shape[0]
        guessed = [box.scaled(across, down) for box in baseline.detect(grey)]
        scored = {precision: operating_point.score_map(exam, found) for precision, found in maps.items()}
        return _Image(scored, guessed)

    batches = loader.batches(exams, int(options["image_size"]), sampling, OpenVino.batch, rejected)
    each = _each(_in_all_precisions(model, training["files"], batches))
    examined = ordered_map(examine, each, workers=cpus(), ahead=4 * cpus())
    yield from console.progress(examined, len(exams), "validation images")


def _in_all_precisions(
    model: Model, files: dict[str, str], batches: Iterable[tuple[list[tuple[Exam, Header]], np.ndarray]]
) -> Iterator[_Batch]:
    """Each batch, decoded once, with its probabilities (n, size, size) in each precision of this CPU."""
    found: Iterator[_Batch] = (([exam for exam, _ in keys], levels, {}) for keys, levels in batches)
    for precision in engines.possible_precisions():
        found = _also(OpenVino(model, files, precision), precision, found)
    return found


def _also(engine: OpenVino, precision: str, batches: Iterator[_Batch]) -> Iterator[_Batch]:
    keyed = (((exams, maps), levels) for exams, levels, maps in batches)
    for (exams, maps), levels, probabilities in engine.maps(keyed):
        yield exams, levels, {**maps, precision: probabilities}


def _each(batches: Iterator[_Batch]) -> Iterator[tuple[Exam, np.ndarray, dict[str, np.ndarray]]]:
    for exams, levels, maps in batches:
        for i, exam in enumerate(exams):
            yield exam, levels[i], {precision: found[i] for precision, found in maps.items()}


def _check_apart(model: Model, exams: list[Exam]) -> None:
    trained = compare.known_to(model)
    groups, ids = {exam.group for exam in trained}, {exam.patient_id for exam in trained}
    if known := [exam.patient_id for exam in exams if exam.group in groups or exam.patient_id in ids]:
        raise InputError(
            f"the model was trained on {len(known)} of the {len(exams)} validation images, or on other "
            f"images of these people, {known[0]} for one; evaluate on the dataset it was trained with"
        )


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
