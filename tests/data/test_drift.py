import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lobar.core.boxes import Box
from lobar.core.errors import AbsentError, InputError, OutsideError
from lobar.data import drift
from lobar.data.index import Exam
from lobar.data.record import Shift
from tests.conftest import Run, World, make_dicom, smooth_noise


def exams(count: int, seed: int, positive: float = 0.3, view: str = "PA", width: int = 300) -> list[Exam]:
    rng = np.random.default_rng(seed)
    boxes = [
        (Box(0, 0, *map(int, rng.normal(width, 40, 2))),) if rng.random() < positive else ()
        for _ in range(count)
    ]
    views = [view if rng.random() < 0.8 else "" for _ in range(count)]
    return [
        Exam(
            f"p{i}", "u", "", int(rng.normal(140_000, 9_000)), 1024, 1024, views[i], boxes[i], 0, "g", "train"
        )
        for i in range(count)
    ]


def drifted(new: list[Exam], trained: list[Exam]) -> set[str]:
    return {shift.name for shift in drift.between(new, trained) if shift.drifted}


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 400), st.integers(1, 400))
def test_images_of_the_same_population_do_not_drift_in_any_number(seed: int, new: int, trained: int) -> None:
    assert not drifted(exams(new, seed), exams(trained, seed + 1))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"positive": 0.7}, "labels"),
        ({"view": "AP"}, "views"),
        ({"width": 150}, "box area, share of the image"),
    ],
)
def test_drift_names_the_changed_feature(changes: dict, name: str) -> None:
    assert drifted(exams(300, 0, **changes), exams(1000, 1)) == {name}


def test_drift_reports_the_old_and_new_median_file_size() -> None:
    trained = exams(500, 0)
    new = [replace(exam, bytes=2 * exam.bytes) for exam in exams(200, 1)]
    (file_size,) = [shift for shift in drift.between(new, trained) if shift.drifted]
    assert file_size.name == "bytes of an image"
    assert file_size.was.startswith("median 1")
    assert file_size.now.startswith("median 2")


def test_label_index_compares_new_labels_with_the_champions(world: World, run: Run, tmp_path: Path) -> None:
    data, registry = world.root / "data", f"--registry={tmp_path}/registry"
    promotion = [f"--challenger={world.place('models')}", f"--dataset={world.place('datasets')}"]
    header, *rows = (data / "train_labels.csv").read_text().splitlines()
    healthy = [header, *(row.split(",")[0] + ",,,,,0" for row in rows)]
    (tmp_path / "labels.csv").write_text("\n".join(healthy))
    options = ["label-index", f"--images={data}/train_images", "--valid-fraction=0.3", registry]
    first = run(*options, f"--labels={data}/train_labels.csv", f"--out={tmp_path}/first")
    assert run("promote", *promotion, registry)[0] == 0
    same = run(*options, f"--labels={data}/train_labels.csv", f"--out={tmp_path}/same")
    other = run(*options, f"--labels={tmp_path}/labels.csv", f"--out={tmp_path}/other")
    assert [status for status, _, _ in (first, same, other)] == [0, 0, 0]
    assert "drift" not in first[2] + same[2]  # there was no champion before the first
    assert "drift: labels: 0% positive, but 5" in other[2]
    manifest = json.loads((tmp_path / "other/manifest.json").read_text())
    assert manifest["drift"][0]["name"] == "labels"


def test_plan_compares_new_images_with_the_models(world: World, run: Run, tmp_path: Path) -> None:
    plan = ["plan", f"--model={world.place('models')}", "--shards=1"]
    status, _, stderr = run(*plan, f"--images={world.root}/data/test_images", f"--out={tmp_path}/same")
    assert (status, "drift" in stderr) == (0, False)
    (tmp_path / "inverted").mkdir()
    for i in range(60):  # inverted, as when MONOCHROME1 is ignored
        (tmp_path / f"inverted/t{i}.dcm").write_bytes(make_dicom(255 - smooth_noise(128, 96, i) // 4))
    status, _, stderr = run(*plan, f"--images={tmp_path}/inverted", f"--out={tmp_path}/other")
    assert status == 0
    assert "drift: mean grey: median 0.8" in stderr
    assert {"name", "psi", "limit", "was", "now"} == {
        *json.loads((tmp_path / "other/plan.json").read_text())["drift"][0]
    }


def test_plan_compares_what_the_profile_of_an_older_model_has(world: World, run: Run, tmp_path: Path) -> None:
    """A property had another name, or did not exist, when the model was trained."""
    shutil.copytree(world.place("models"), tmp_path / "m")
    record = json.loads((tmp_path / "m/training.json").read_text())
    record["profile"]["grey_mean"] = record["profile"].pop("mean_grey")
    (tmp_path / "m/training.json").write_text(json.dumps(record))
    plan = ["plan", f"--model={tmp_path}/m", "--shards=1", f"--images={world.root}/data/test_images"]
    status, _, stderr = run(*plan, f"--out={tmp_path}/p")
    assert status == 0
    assert "drift: not compared: mean grey; the model's profile lacks it, or no image can be read" in stderr
    compared = [shift["name"] for shift in json.loads((tmp_path / "p/plan.json").read_text())["drift"]]
    assert compared == ["bytes of an image", "spread of greys"]
    (tmp_path / "m/training.json").write_text(json.dumps(record | {"profile": 7}))
    status, _, stderr = run(*plan, f"--out={tmp_path}/q")
    assert status == 0
    assert "drift: not compared: " in stderr
    assert "training.json: not a record of train" in stderr


def test_label_index_goes_on_where_the_champions_dataset_is_gone(
    world: World, run: Run, tmp_path: Path
) -> None:
    data, registry = world.root / "data", f"--registry={tmp_path}/registry"
    shutil.copytree(world.place("models"), tmp_path / "m")
    promotion = [f"--challenger={tmp_path}/m", f"--dataset={world.place('datasets')}"]
    assert run("promote", *promotion, registry)[0] == 0
    record = json.loads((tmp_path / "m/training.json").read_text())
    record["inputs"]["dataset"] = f"{tmp_path}/gone"
    (tmp_path / "m/training.json").write_text(json.dumps(record))
    options = ["label-index", f"--images={data}/train_images", "--valid-fraction=0.3", registry]
    status, _, stderr = run(*options, f"--labels={data}/train_labels.csv", f"--out={tmp_path}/d")
    assert status == 0
    assert "drift: not compared: " in stderr
    assert "gone/manifest.json: not there; run label-index first" in stderr
    assert json.loads((tmp_path / "d/manifest.json").read_text())["drift"] == []
    (tmp_path / "registry/notes.txt").write_text("mine")
    status, _, stderr = run(*options, f"--labels={data}/train_labels.csv", f"--out={tmp_path}/e")
    assert (status, "drift: not compared: " in stderr) == (0, True)


@pytest.mark.parametrize("error", [InputError, AbsentError])
def test_no_wrong_input_of_a_comparison_stops_its_job(
    error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    @drift.advice
    def compare() -> list[Shift]:
        raise error("s3://b/training.json: what went wrong")

    assert compare() == []
    assert caplog.messages == ["drift: not compared: s3://b/training.json: what went wrong"]


def test_an_outage_during_a_comparison_ends_the_job_so_that_its_record_is_always_the_same() -> None:
    @drift.advice
    def compare() -> list[Shift]:
        raise OutsideError("s3://b/training.json: the store does not respond")

    with pytest.raises(OutsideError):
        compare()


@pytest.mark.parametrize(
    ("drifted", "unexplained"),
    [
        ({"mean grey"}, True),
        ({"mean grey", "spread of greys"}, True),
        (set(), False),
        ({"mean grey", "bytes of an image"}, False),
        ({"bytes of an image"}, False),
    ],
)
def test_a_shift_of_grey_levels_alone_is_called_unexplained(
    drifted: set[str], unexplained: bool, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("bytes of an image", "mean grey", "spread of greys")
    with caplog.at_level(logging.WARNING):
        drift.warn([Shift(name, float(name in drifted), 0.3, "was", "now") for name in names], "m")
    assert any("nothing else explains it" in message for message in caplog.messages) == unexplained
    assert len(caplog.messages) == len(drifted) + unexplained
