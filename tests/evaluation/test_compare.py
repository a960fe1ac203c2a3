"""Challenger and champion are scored in the same way: no image at a point that it helped to choose."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lobar.core.boxes import Box
from lobar.data import index
from lobar.data.index import Exam
from lobar.data.record import IndexInputs
from lobar.evaluation import compare, operating_point
from lobar.evaluation.bootstrap import gain
from lobar.evaluation.operating_point import Tuned, score_map
from lobar.evaluation.record import Evaluation, MaskMetrics
from lobar.imaging.dicom import Header
from lobar.imaging.loader import Decoded, Rejected
from lobar.inference import maps
from lobar.inference.release import NOTEBOOK, EvaluationInputs, Offer, OperatingPoint, Release
from lobar.storage import records, tables
from lobar.storage.layout import Dataset, Model
from lobar.training import recipe
from lobar.training.recipe import Recipe
from lobar.training.record import ModelFiles

PEAKS = (0.25, 0.35, 0.45, 0.55, 0.65)  # each between two thresholds
TRUTH = (Box(16, 16, 64, 64),)
EXAMS = [Exam(f"p{i}", f"u/{i}", "", 1, 128, 128, "PA", TRUTH, 1, f"g{i}", "valid") for i in range(40)]
TRAINED = Exam("t", "u/t", "", 1, 128, 128, "PA", TRUTH, 1, "t", "train")


def network(exam: Exam) -> np.ndarray:
    """A map that gives the true box at one threshold only, in each fold at another one."""
    peak = PEAKS[operating_point._fold(exam.group)]
    probabilities = np.full((64, 64), peak - 0.1, np.float32)
    probabilities[8:40, 8:40] = peak
    return probabilities


def predict(
    _: Mapping[str, None], exams: Sequence[Exam], recipe: Recipe
) -> Iterator[tuple[Decoded[Exam], dict[str, np.ndarray]] | Rejected[Exam]]:
    for exam in exams:
        yield Decoded(exam, np.empty(0), Header(128, 128, "PA")), {"float32": network(exam)}


@pytest.fixture
def today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """A dataset whose validation images are EXAMS. All models have the same network; its maps are made up."""
    dataset = Dataset(f"{tmp_path}/today")
    inputs = IndexInputs("", "", "", 0.5, 0, "", "", "", "")
    index.write(dataset, index.Index([*EXAMS, TRAINED], [], 41, [], inputs), [])
    monkeypatch.setattr(compare, "known_to", lambda model: [])
    monkeypatch.setattr(compare, "OpenVino", lambda *_: None)
    monkeypatch.setattr(maps, "predict", predict)
    return dataset


@cache
def tuned() -> Tuned:
    return operating_point.tune([score_map(exam, network(exam)) for exam in EXAMS])


def release(model: Model, inputs: EvaluationInputs, point: OperatingPoint) -> None:
    files, offers = ModelFiles("", "", "", "", ""), {"float32": Offer(point, NOTEBOOK, [])}
    released = Release(inputs=inputs, files=files, recipe=recipe.load("demo"), precisions=offers)
    records.create(model.release, released)


@pytest.fixture
def champion(tmp_path: Path) -> Model:
    """Evaluated yesterday, on the same images, and released at the point that is best on them."""
    model = Model(f"{tmp_path}/champion")
    release(model, EvaluationInputs("", "yesterday", "", ""), tuned().point)
    return model


@pytest.fixture
def challenger(tmp_path: Path, today: Dataset) -> Model:
    """Evaluated today."""
    model, result = Model(f"{tmp_path}/challenger"), tuned()
    table = pa.table({"patient_id": [exam.patient_id for exam in EXAMS], "score_tuned": result.scores})
    inputs = EvaluationInputs("", today.url, records.read(today.manifest, index.Manifest).index, "")
    evaluation = Evaluation(
        inputs=inputs, scores=records.put(model.scores, tables.encode(table)), report="", images=40,
        positive=40, systems={}, precisions={}, cpu_features=[], roc_area=None, by_iou={}, subsets={},
        empty_mask=MaskMetrics(0, 0), rejected=[],
    )  # fmt: skip
    records.create(model.evaluation, evaluation)
    release(model, inputs, result.point)
    return model


def test_a_champion_that_is_overfitted_to_its_point_has_no_advantage(
    today: Dataset, champion: Model, challenger: Model
) -> None:
    """At its released point it would score 0.3 more than the same network, cross-validated."""
    gain = compare.compare(challenger, champion, today).gain
    assert (gain.metric, gain.low, gain.high, gain.counted) == (0, 0, 0, 40)


def test_images_that_are_not_compared_choose_no_point(
    today: Dataset, champion: Model, challenger: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the largest fold, which the champion knows, another threshold is the best for both."""
    fold = [operating_point._fold(exam.group) for exam in EXAMS]
    largest = max(fold, key=fold.count)
    known = [exam for exam, number in zip(EXAMS, fold, strict=True) if number == largest]
    monkeypatch.setattr(compare, "known_to", lambda model: known if model == champion else [])
    points: list[OperatingPoint] = []
    tune = operating_point.tune

    def noted(images: Sequence[operating_point.Scored]) -> Tuned:
        result = tune(images)
        points.append(result.point)
        return result

    monkeypatch.setattr(operating_point, "tune", noted)
    comparison = compare.compare(challenger, champion, today)
    assert (comparison.gain.metric, comparison.left_out) == (0, len(known))
    assert len(points) == 2  # the challenger's evaluation was tuned on all images
    assert points[0] == points[1] != tuned().point


def test_a_champion_that_can_read_no_image_is_not_compared(
    today: Dataset, champion: Model, challenger: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        maps, "predict", lambda _, exams, recipe: (Rejected(exam, "cut off") for exam in exams)
    )
    comparison = compare.compare(challenger, champion, today)
    assert (comparison.gain.metric, comparison.left_out) == (None, 40)


def test_the_gain_is_the_difference_of_the_metrics() -> None:
    """An image without truth counts only for the system that finds something on it."""
    ours: list[float | None] = [1.0, 0.5, None, 0.0]
    theirs: list[float | None] = [0.5, 0.5, 0.0, None]
    found = gain(EXAMS[:4], ours, theirs)
    assert found.metric == pytest.approx(0.5 - 1 / 3)
    assert found.counted == 4
    assert found.low <= found.metric <= found.high
    same = gain(EXAMS[:4], ours, ours)
    assert (same.metric, same.low, same.high) == (0, 0, 0)
    assert gain(EXAMS[:1], [None], [0.5]).metric is None
