import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lobar.core.boxes import Box
from lobar.data import drift
from lobar.data.index import Exam
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
