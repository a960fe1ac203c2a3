import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lobar.data.index import read_index
from lobar.evaluation.bootstrap import Interval
from lobar.evaluation.evaluate import Trial, verdict
from lobar.inference.release import NOTEBOOK
from lobar.storage import objects, records
from lobar.storage.layout import Dataset, Model
from tests.conftest import Run, World


@pytest.fixture
def record(world: World) -> dict:
    model = Model(objects.absolute(str(world.place("models"))))
    return records.read_record(model.evaluation, "evaluate")


def test_the_network_stands_beside_what_it_must_beat(record: dict) -> None:
    systems = record["systems"]
    assert {*systems} == {"tuned", "notebook", "heuristic", "empty"}
    assert systems["empty"]["metric"] == 0
    assert systems["tuned"]["metric"] > 0.5
    assert systems["tuned"]["low"] <= systems["tuned"]["metric"] <= systems["tuned"]["high"]


@pytest.mark.parametrize(
    ("low", "high", "positives", "said"),
    [
        (0.3, 0.1, 9, "better than a detector without a network"),
        (0.1, 0.1, 9, "not shown to be better than a detector without a network"),
        (0.0, None, 9, "not shown to be better than a detector without a network"),
        (0.0, None, 0, "cannot be judged: no validation image has a box"),
    ],
)
def test_the_verdict_follows_the_intervals(low: float, high: float | None, positives: int, said: str) -> None:
    systems = {
        "tuned": Interval(low, low, low, 9),
        "heuristic": Interval(high, high, high, 9),
        "empty": Interval(None, None, None, positives),
    }
    assert verdict(systems) == said


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
def test_a_precision_is_offered_where_it_costs_nothing(
    gain: float | None, low: float | None, offered: bool
) -> None:
    found = Interval(gain, low, gain, 100)
    assert Trial(NOTEBOOK, found, found).offered == offered


def test_what_was_tried_and_offered_is_recorded(record: dict) -> None:
    tried = record["precisions"]
    assert {"float32", "int8"} <= {*tried}
    assert tried["float32"]["gain"]["metric"] == 0
    assert tried["float32"]["metric"] == record["systems"]["tuned"]


def test_the_notebooks_metrics_of_an_empty_mask_are_shown(record: dict) -> None:
    assert 0.9 < record["empty_mask"]["accuracy"] < 1
    assert 0.4 < record["empty_mask"]["mean_iou"] < 0.7  # half of the images are negative


def test_every_validation_image_has_its_scores(world: World, record: dict) -> None:
    data = Dataset(objects.absolute(str(world.place("datasets"))))
    exams = read_index(data, "valid")
    (table,) = (world.place("models") / "scores").iterdir()
    rows = pq.read_table(table).to_pylist()
    assert [row["patient_id"] for row in rows] == [exam.patient_id for exam in exams]
    assert record["images"] == len(exams)
    for row, exam in zip(rows, exams, strict=True):
        assert (row["score_empty"] is None) == (not exam.boxes)
        assert 0 <= row["image_score"] <= 1


def test_the_released_point_is_the_evaluations(world: World, record: dict) -> None:
    model = Model(objects.absolute(str(world.place("models"))))
    points = json.loads((world.place("models") / "operating_point.json").read_text())
    release = records.read_record(model.release, "evaluate")
    assert {"float32"} <= {*release["precisions"]} <= {*points} == {*record["precisions"]}
    for name, offer in release["precisions"].items():
        assert offer["operating_points"] == points[name]


def split_anew(world: World, run: Run, out: Path) -> None:
    """Put a dataset of the same images with another split."""
    options = ["--labels", world.root / "data/train_labels.csv", "--images", world.root / "data/train_images"]
    assert run("label-index", *options, "--out", out, "--valid-fraction", 0.5, "--seed", 1)[0] == 0


def test_a_released_model_is_not_evaluated_again_nor_on_other_data(
    world: World, run: Run, tmp_path: Path
) -> None:
    model = world.place("models")
    before = (model / "release.json").read_bytes()
    assert run("evaluate", "--model", model, "--dataset", world.place("datasets"))[0] == 0
    assert (model / "release.json").read_bytes() == before
    split_anew(world, run, tmp_path / "d")
    status, _, error = run("evaluate", "--model", model, "--dataset", tmp_path / "d")
    assert status == 2
    assert "train another one for other data" in error


def test_a_model_is_not_scored_on_people_it_was_trained_on(world: World, run: Run, tmp_path: Path) -> None:
    split_anew(world, run, tmp_path / "d")
    shutil.copytree(world.place("models"), tmp_path / "m")
    (tmp_path / "m/release.json").unlink()
    status, _, error = run("evaluate", "--model", tmp_path / "m", "--dataset", tmp_path / "d")
    assert status == 2
    assert "the model was trained on" in error
    assert not (tmp_path / "m/release.json").exists()


def test_a_model_that_is_not_trained_is_named(world: World, run: Run, tmp_path: Path) -> None:
    status, _, error = run("evaluate", "--model", tmp_path, "--dataset", world.place("datasets"))
    assert status == 2
    assert "training.json: not there; run train first, or check the URL" in error
