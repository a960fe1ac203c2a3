"""explain: where a row of a submission comes from, and whether it can be computed again."""

import csv
import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from tests.conftest import Run, World


@pytest.fixture
def rows(world: World) -> dict[str, str]:
    with (world.place("predictions") / "submission.csv").open(newline="") as file:
        return {row["patientId"]: row["PredictionString"] for row in csv.DictReader(file)}


def test_every_row_is_found_and_one_is_computed_again(world: World, run: Run, rows: dict[str, str]) -> None:
    place = f"--prediction={world.place('predictions')}"
    for patient_id, row in rows.items():
        status, out, _ = run("explain", place, f"--patient-id={patient_id}")
        assert status == 0
        first = "rejected: " if patient_id == "broken" else row.strip() or "no box"
        assert out.startswith(f"{patient_id}: {first}")
    status, out, _ = run("explain", place, "--patient-id=t1", "--replay")
    assert status == 0
    assert rows["t1"]
    assert out.endswith(": the same row\n")
    image = (world.root / "data/test_images/t1.dcm").read_bytes()
    labels = (world.root / "data/train_labels.csv").read_bytes()
    for part in (sha256(image).hexdigest(), sha256(labels).hexdigest(), "threshold", "channels 4"):
        assert part in out


def test_a_rejected_image_is_rejected_again(world: World, run: Run) -> None:
    place = f"--prediction={world.place('predictions')}"
    status, out, _ = run("explain", place, "--patient-id=broken", "--replay")
    assert status == 0
    assert out.startswith("broken: rejected: it contains no image, or the file is truncated\n")
    assert out.endswith(": the same row\n")


def test_a_patient_that_was_not_planned_ends_with_2(world: World, run: Run) -> None:
    place = f"--prediction={world.place('predictions')}"
    status, _, error = run("explain", place, "--patient-id=nobody")
    assert status == 2
    assert "plan.json: no image of nobody was planned" in error


def test_a_row_that_is_not_computed_again_ends_with_2(
    world: World, run: Run, rows: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(world.place("predictions"), tmp_path / "p")
    for path in (tmp_path / "p/shards").glob("*.json"):
        record = json.loads(path.read_text())
        table = (tmp_path / f"p/shards/{record['table']}.csv").read_text()
        forged = table.replace(rows["t1"], "0.5 1 2 3 4 ").encode()
        record["table"] = sha256(forged).hexdigest()
        (tmp_path / f"p/shards/{record['table']}.csv").write_bytes(forged)
        path.write_text(json.dumps(record))
    status, out, error = run("explain", f"--prediction={tmp_path}/p", "--patient-id=t1", "--replay")
    assert status == 2
    assert out.startswith("t1: 0.5 1 2 3 4\n")
    assert rows["t1"].strip() in out
    assert "t1: the row differs, it was 0.5 1 2 3 4; compare code and model" in error


def test_an_image_that_was_replaced_is_reported(world: World, run: Run, tmp_path: Path) -> None:
    shutil.copytree(world.root / "data/test_images", tmp_path / "images")
    (tmp_path / "images/broken.dcm").unlink()
    model, place = f"--model={world.place('models')}", f"{tmp_path}/p"
    assert run("plan", model, f"--images={tmp_path}/images", f"--out={place}", "--shards=1")[0] == 0
    assert run("predict", f"--prediction={place}", "--shard=0")[0] == 0
    shutil.copy(tmp_path / "images/t2.dcm", tmp_path / "images/t1.dcm")
    status, out, _ = run("explain", f"--prediction={place}", "--patient-id=t1")
    assert status == 0
    assert "not the planned one: " in out
    assert run("explain", f"--prediction={place}", "--patient-id=t1", "--replay")[0] == 2
