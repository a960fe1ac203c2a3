import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lobar.core.errors import InputError
from lobar.data.index import read_index
from lobar.evaluation import evaluate, scoring
from lobar.evaluation.bootstrap import Interval
from lobar.evaluation.record import SYSTEMS, Evaluation, Trial, verdict
from lobar.evaluation.scoring import Result
from lobar.inference import engines
from lobar.inference.release import NOTEBOOK, Release
from lobar.storage import objects, records, tables
from lobar.storage.layout import Dataset, Model
from lobar.training.record import Training
from tests.conftest import Run, World


@pytest.fixture
def model(world: World) -> Model:
    return Model(objects.absolute(str(world.place("models"))))


@pytest.fixture
def record(model: Model) -> Evaluation:
    return records.read(model.evaluation, Evaluation)


def test_the_network_is_compared_with_what_it_must_beat(record: Evaluation) -> None:
    systems = record.systems
    assert {*systems} == {*SYSTEMS} == {"tuned", "notebook", "baseline", "empty"}
    assert systems["empty"].metric == 0
    tuned = systems["tuned"]
    assert tuned.metric is not None
    assert tuned.metric > 0.5
    assert tuned.low <= tuned.metric <= tuned.high  # type: ignore[operator]


@pytest.mark.parametrize(
    ("low", "high", "positives", "message"),
    [
        (0.3, 0.1, 9, "better than a detector without a network"),
        (0.1, 0.1, 9, "not shown to be better than a detector without a network"),
        (0.0, None, 9, "not shown to be better than a detector without a network"),
        (0.0, None, 0, "cannot be judged: no validation image has a box"),
    ],
)
def test_the_verdict_follows_from_the_intervals(
    low: float, high: float | None, positives: int, message: str
) -> None:
    systems = {
        "tuned": Interval(low, low, low, 9),
        "baseline": Interval(high, high, high, 9),
        "empty": Interval(None, None, None, positives),
    }
    assert verdict(systems) == message


@pytest.mark.parametrize(
    ("gain", "low", "offered"),
    [
        (0.0, 0.0, True),
        (-0.0019, -0.019, True),
        (-0.0021, -0.003, False),
        (0.01, -0.021, False),  # too few images to tell
        (None, None, False),
    ],
)
def test_a_precision_is_offered_if_it_costs_next_to_nothing(
    gain: float | None, low: float | None, offered: bool
) -> None:
    found = Interval(gain, low, gain, 100)
    assert Trial(NOTEBOOK, found, found).offered == offered


@pytest.mark.parametrize(
    ("value", "shown", "signed"),
    [
        (Interval(0.5, 0.25, 0.75, 9), "0.500 (0.250 to 0.750)", "+0.5000 (+0.2500 to +0.7500)"),
        (Interval(-0.01, -0.02, 0.0, 9), "-0.010 (-0.020 to 0.000)", "-0.0100 (-0.0200 to +0.0000)"),
        (Interval(None, None, None, 0), "no image counts", "no image counts"),
    ],
)
def test_an_interval_in_words(value: Interval, shown: str, signed: str) -> None:
    assert (str(value), value.signed) == (shown, signed)


def test_what_was_tried_and_offered_is_recorded(record: Evaluation) -> None:
    tried = record.precisions
    assert {"float32", "int8"} <= {*tried}
    assert tried["float32"].gain.metric == 0
    assert tried["float32"].metric == record.systems["tuned"]


def test_the_notebooks_metrics_of_an_empty_mask_are_recorded(record: Evaluation) -> None:
    assert 0.9 < record.empty_mask.accuracy < 1
    assert 0.4 < record.empty_mask.mean_iou < 0.7  # half of the images are negative


def test_every_validation_image_has_its_scores(world: World, model: Model, record: Evaluation) -> None:
    data = Dataset(objects.absolute(str(world.place("datasets"))))
    exams = read_index(data, "valid")
    (table,) = world.place("models").glob("scores*")
    assert table.name == f"scores-{record.scores}.parquet"
    rows = tables.decode(records.get(model.scores, record.scores)).to_pylist()
    assert [row["patient_id"] for row in rows] == [exam.patient_id for exam in exams]
    assert record.images == len(exams)
    for row, exam in zip(rows, exams, strict=True):
        assert (row["score_empty"] is None) == (not exam.boxes)
        assert 0 <= row["image_score"] <= 1


def test_the_released_points_are_those_of_the_evaluation(model: Model, record: Evaluation) -> None:
    release = records.read(model.release, Release)
    offered = {name for name, trial in record.precisions.items() if trial.offered}
    assert {"float32"} <= {*release.precisions} == offered | {"float32"} <= {*record.precisions}
    for name, offer in release.precisions.items():
        assert (offer.tuned, offer.notebook) == (record.precisions[name].point, NOTEBOOK)


def test_the_cpu_of_a_release_is_that_of_its_evaluation(
    world: World, record: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod that goes on after another one may run on another CPU."""
    assert record.cpu_features == engines.cpu_features()
    model, dataset = unreleased(world, tmp_path)
    gain = Interval(0.0, 0.0, 0.0, 30)
    trials = {name: replace(trial, gain=gain) for name, trial in record.precisions.items()}
    record = replace(record, precisions=trials, cpu_features=["avx999"])
    records.create(model.evaluation, record)
    monkeypatch.setattr(scoring, "score", None)  # it is not scored again
    assert evaluate.run(model, dataset) == record
    release = records.read(model.release, Release)
    assert {*release.precisions} == {*trials}
    assert {name: offer.cpu_features for name, offer in release.precisions.items()} == {
        name: [] if name == "float32" else ["avx999"] for name in trials
    }


def unreleased(world: World, folder: Path) -> tuple[Model, Dataset]:
    """A copy of the model in `folder`, trained but not evaluated, and its dataset."""
    shutil.copytree(world.place("models"), folder / "m")
    for name in ("evaluation.json", "release.json"):
        (folder / "m" / name).unlink()
    dataset = objects.absolute(str(world.place("datasets")))
    return Model(objects.absolute(str(folder / "m"))), Dataset(dataset)


@pytest.mark.parametrize("same", [True, False])
def test_of_two_evaluations_at_once_the_first_record_stays(
    world: World, record: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    """The record of another writer appears while this one scores; its inputs are equal or not."""
    model, dataset = unreleased(world, tmp_path)
    first = replace(record, created="2020-01-01T00:00:00+00:00")
    if not same:
        first = replace(first, inputs=replace(first.inputs, dataset="file:///another"))
    score = scoring.score

    def score_late(model: Model, training: Training, dataset: Dataset) -> Result:
        records.create(model.evaluation, first)
        return score(model, training, dataset)

    monkeypatch.setattr(scoring, "score", score_late)
    if same:
        assert evaluate.run(model, dataset) == first
        assert records.read(model.release, Release).inputs == first.inputs
    else:
        with pytest.raises(
            InputError, match=r"evaluation\.json: made from other inputs \(dataset was 'file:///an"
        ):
            evaluate.run(model, dataset)
        assert not objects.exists(model.release)
    assert objects.read(model.evaluation) == records.encode(first)


def make_another_split(world: World, run: Run, out: Path) -> None:
    """Put a dataset of the same images with another split."""
    options = ["--labels", world.root / "data/train_labels.csv", "--images", world.root / "data/train_images"]
    assert run("label-index", *options, "--out", out, "--valid-fraction", 0.5, "--seed", 1)[0] == 0


def test_a_released_model_is_not_evaluated_again_nor_on_other_data(
    world: World, run: Run, tmp_path: Path
) -> None:
    folder = world.place("models")
    before = {path.name: path.read_bytes() for path in folder.glob("*.*")}
    assert run("evaluate", "--model", folder, "--dataset", world.place("datasets"))[0] == 0
    assert {path.name: path.read_bytes() for path in folder.glob("*.*")} == before
    make_another_split(world, run, tmp_path / "d")
    status, _, error = run("evaluate", "--model", folder, "--dataset", tmp_path / "d")
    assert status == 2
    assert "release.json: made from other inputs (dataset was" in error
    assert "train another one for other data" in error
    assert {path.name: path.read_bytes() for path in folder.glob("*.*")} == before


def test_a_model_is_not_scored_on_patients_it_was_trained_on(world: World, run: Run, tmp_path: Path) -> None:
    make_another_split(world, run, tmp_path / "d")
    unreleased(world, tmp_path)
    status, _, error = run("evaluate", "--model", tmp_path / "m", "--dataset", tmp_path / "d")
    assert status == 2
    assert "the model was trained on" in error
    assert not (tmp_path / "m/release.json").exists()


def test_a_model_that_is_not_trained_is_named(world: World, run: Run, tmp_path: Path) -> None:
    status, _, error = run("evaluate", "--model", tmp_path, "--dataset", world.place("datasets"))
    assert status == 2
    assert "training.json: not there; run train first, or check the URL" in error
