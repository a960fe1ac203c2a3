"""The whole workflow on a small dataset; the bytes of its results depend only on its inputs."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread

from lobar.core.boxes import Box
from lobar.data.index import read_index
from lobar.data.listing import order_key
from lobar.evaluation import rsna_metric
from lobar.inference.rows import parse_prediction_string
from lobar.storage import objects
from lobar.storage.layout import Dataset
from tests.conftest import SQUARE, Run, World, square_image
from tests.support.prediction import FOUND, write_images
from tests.support.radiographs import boxes_of


def submission_of(path: Path) -> dict[str, str]:
    with path.open(newline="") as rows:
        header, *body = csv.reader(rows)
    assert header == ["patientId", "PredictionString"]
    assert len({row[0] for row in body}) == len(body)
    return dict(body)


def test_every_test_image_has_one_row_in_hash_order(world: World) -> None:
    rows = submission_of(world.root / "submission.csv")
    assert sorted(rows) == sorted(["broken", *(f"t{i}" for i in range(20))])
    assert list(rows) == sorted(rows, key=order_key)


def test_boxes_match_the_squares_and_some_rows_are_empty(world: World) -> None:
    rows = submission_of(world.root / "submission.csv")
    scores = []
    for i in range(20):
        _, (x, y) = square_image(1000 + i, positive=i % 2 == 1)
        truth = [Box(x, y, SQUARE, SQUARE)] if i % 2 else []
        boxes = parse_prediction_string(rows[f"t{i}"])
        assert all(box.inside(128, 96) for box in boxes)
        scores.append(rsna_metric.image_score(truth, boxes))
    score = rsna_metric.metric(scores)
    assert score is not None
    assert score > 0.5
    assert "" in rows.values()


def test_a_rejected_image_has_an_empty_row_and_is_named_as_no_finding(world: World) -> None:
    assert submission_of(world.root / "submission.csv")["broken"] == ""
    rejected = (world.place("predictions") / "rejected.csv").read_text()
    assert rejected == 'patientId,reason\nbroken,"it contains no image, or the file is truncated"\n'
    assert "1 REJECTED, their empty rows are not findings: broken (it contains no image" in world.output


def test_the_run_prints_its_results_and_their_urls(world: World) -> None:
    assert f"submission: file://{world.root}/submission.csv" in world.output
    assert f"report: file://{world.root}/report.html" in world.output
    for system in ("tuned operating point", "the notebook's operating point", "no network", "always empty"):
        assert system in world.output
    report = (world.root / "report.html").read_text()
    assert report.count("data:image/jpeg;base64,") == report.count("<figure>") > 8
    assert report.count("<div><svg") == 7  # four figures of the analysis, three of the training
    assert "<script" not in report
    assert "http" not in report
    assert "Not for clinical use" in report


def test_a_repeated_run_computes_nothing_and_changes_no_object(world: World) -> None:
    before = {
        path: path.read_bytes() for path in world.root.rglob("*") if path.is_file() and path.suffix != ".json"
    }
    again = subprocess.run(world.command, capture_output=True, text=True, check=True)
    assert "is finished already" in again.stderr
    assert {path: path.read_bytes() for path in before} == before


def test_a_finished_shard_is_rejected_with_a_stricter_limit(world: World, run: Run) -> None:
    results = [run("predict", "--prediction", world.place("predictions"), "--shard", k) for k in range(3)]
    assert sorted(status for status, _, _ in results) == [0, 0, 2]


@pytest.mark.parametrize("shards", [1, 7])
def test_any_number_of_shards_gives_the_same_submission(
    world: World, run: Run, tmp_path: Path, shards: int
) -> None:
    options = ["--model", world.place("models"), "--images", world.root / "data/test_images"]
    assert run("plan", *options, "--shards", shards, "--out", tmp_path / "p")[0] == 0
    for shard in range(shards):
        assert run("predict", "--prediction", tmp_path / "p", "--shard", shard, "--max-rejected", 1)[0] == 0
    assert run("merge-submission", "--prediction", tmp_path / "p")[0] == 0
    assert (tmp_path / "p/submission.csv").read_bytes() == (world.root / "submission.csv").read_bytes()


def test_a_dataset_in_another_folder_has_the_same_split_and_boxes(
    world: World, run: Run, tmp_path: Path
) -> None:
    shutil.copytree(world.root / "data", tmp_path / "data")
    data = tmp_path / "data"
    options = ["--labels", data / "train_labels.csv", "--images", data / "train_images", "--groups",
               data / "train_groups.csv", "--valid-fraction", 0.3, "--out", tmp_path / "d"]  # fmt: skip
    assert run("label-index", *options)[0] == 0
    first, second = (
        read_index(Dataset(objects.absolute(str(folder))))
        for folder in (world.place("datasets"), tmp_path / "d")
    )
    assert [(e.patient_id, e.boxes, e.group, e.split, e.etag) for e in first] == [
        (e.patient_id, e.boxes, e.group, e.split, e.etag) for e in second
    ]


def test_the_workflow_writes_reports_to_a_parameter_s_folder(world: World, tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    given = {
        "root": tmp_path / "root", "artifacts": tmp_path, "model": world.place("models"), "shards": 2,
        "images": tmp_path / "images", "export": tmp_path / "reports",
    }  # fmt: skip
    # one at a time: of two shards that end together, either can be shown
    command = [sys.executable, "-m", "lobar.workflow", "workflows/predict.yaml", "--parallel", "1"]
    command += [word for name, value in given.items() for word in ("-p", f"{name}={value}")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = submission_of(tmp_path / "submission.csv")
    assert {*rows} == {*FOUND}
    found = {path.stem: boxes_of(dcmread(path)) for path in (tmp_path / "reports").iterdir()}
    assert found == {name: parse_prediction_string(row) for name, row in rows.items()}
    assert "all shards are exported: 7 rows, 7 reports, 0 without one" in done.stdout
