import shutil
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from lobar.core.errors import InputError
from lobar.data.index import read_index
from lobar.evaluation import evaluate, scoring
from lobar.evaluation.bootstrap import Interval
from lobar.evaluation.record import MIN_HITS, SYSTEMS, Evaluation, Trial, verdict
from lobar.evaluation.scoring import Result
from lobar.inference import engines
from lobar.inference.release import NOTEBOOK, Release
from lobar.storage import objects, records, tables
from lobar.storage.layout import Dataset, Model
from lobar.training.record import Training
from tests.conftest import Run, World, make_dicom, smooth_noise
from tests.training.conftest import small


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
    ("gain", "low", "hits", "objection"),
    [
        (0.0, 0.0, 30, ""),
        (-0.0019, -0.019, 300, ""),
        (-0.0021, -0.003, 300, "it costs more than 0.002"),
        (0.01, -0.021, 300, "it may cost 0.02"),  # too few images to tell
        (0.0, 0.0, 29, "too little evidence: float32 hits opacities of 29 patients, 30 are needed"),
        (0.0, 0.0, 0, "too little evidence: float32 hits opacities of 0 patients, 30 are needed"),
        (None, None, 0, "too little evidence: float32 hits opacities of 0 patients, 30 are needed"),
    ],
)
def test_a_precision_is_offered_if_there_is_evidence_that_it_costs_next_to_nothing(
    gain: float | None, low: float | None, hits: int, objection: str
) -> None:
    found = Interval(gain, low, gain, 100)
    trial = Trial(NOTEBOOK, found, found, hits)
    assert (trial.offered, trial.objection) == (not objection, objection)


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


def test_what_was_tried_and_offered_is_recorded(model: Model, record: Evaluation) -> None:
    tried = record.precisions
    assert {"float32", "int8"} <= {*tried}
    assert tried["float32"].gain.metric == 0
    assert tried["float32"].metric == record.systems["tuned"]
    rows = tables.decode(records.get(model.scores, record.scores)).to_pylist()
    assert tried["int8"].hits == len({row["group"] for row in rows if row["score_tuned"]}) > 5


def test_the_report_says_why_a_precision_is_not_offered(model: Model, record: Evaluation) -> None:
    page = records.get(model.report, record.report).decode()
    for trial in record.precisions.values():
        assert trial.objection.endswith("patients, 30 are needed")
        assert f"not offered: {trial.objection}" in page
    assert "On a GPU, predictions compute in float32 at the operating point of" in page


def test_without_a_positive_image_every_job_warns_and_only_float32_is_offered(
    run: Run, tmp_path: Path
) -> None:
    rows = ["patientId,x,y,width,height,Target"]
    (tmp_path / "images").mkdir()
    for i in range(12):
        (tmp_path / f"images/p{i}.dcm").write_bytes(make_dicom(smooth_noise(64, 64, i)))
        rows.append(f"p{i},,,,,0")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    data, model = f"{tmp_path}/d", f"{tmp_path}/m"
    index = ["--labels", tmp_path / "labels.csv", "--images", tmp_path / "images", "--valid-fraction", 0.3]
    status, _, stderr = run("label-index", *index, "--out", data)
    assert status == 0
    assert "no image of the train split is positive: a network can only learn to find nothing" in stderr
    assert "no image of the valid split is positive: no model can be tuned or judged on it" in stderr
    status, _, stderr = run("train", "--dataset", data, "--out", model, *small("epochs=1"))
    assert status == 0
    assert "training images is positive: the network can only learn to find nothing" in stderr
    status, out, _ = run("evaluate", "--model", model, "--dataset", data)
    assert status == 0
    assert "int8: no image counts against float32, not offered: too little evidence" in out
    assert [*records.read(Model(model).release, Release).precisions] == ["float32"]


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
    trials = {name: replace(trial, gain=gain, hits=MIN_HITS) for name, trial in record.precisions.items()}
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


def test_a_release_names_what_others_need(model: Model) -> None:
    release = records.read(model.release, Release)
    files = release.files
    for sha256, url in {
        files.keras: model.keras,
        files.float32_network: model.network,
        files.float32_weights: model.weights,
        files.int8_network: model.network,
        files.int8_weights: model.weights,
    }.items():
        assert records.sha256(objects.read(url(sha256))) == sha256
    assert len({*astuple(files)}) == 5
    exact = release.precisions["float32"]
    assert exact.notebook.threshold == 0.5
    assert exact.cpu_features == []
    assert release.recipe.sampling == "area"
