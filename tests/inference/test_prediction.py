"""plan and predict: what they reject, and what a finished shard costs."""

import json
import shutil
from pathlib import Path

import pytest

from lobar.storage import objects, records
from lobar.storage.layout import Model
from tests.conftest import Run, World


@pytest.fixture
def planned(world: World, run: Run, tmp_path: Path) -> Path:
    """A plan of the test images without the broken one, in two shards."""
    shutil.copytree(world.root / "data/test_images", tmp_path / "images")
    (tmp_path / "images/broken.dcm").unlink()
    assert plan(world, run, tmp_path)[0] == 0
    return tmp_path / "p"


def plan(world: World, run: Run, tmp_path: Path, *options: object) -> tuple[int, str, str]:
    model = world.place("models")
    return run(
        "plan",
        "--model",
        model,
        "--images",
        tmp_path / "images",
        "--shards",
        2,
        "--out",
        tmp_path / "p",
        *options,
    )


def test_planning_again_keeps_the_plan_and_another_plan_is_rejected(
    world: World, run: Run, tmp_path: Path, planned: Path
) -> None:
    before = (planned / "plan.json").read_bytes()
    assert plan(world, run, tmp_path)[0] == 0
    assert (planned / "plan.json").read_bytes() == before
    status, _, error = plan(world, run, tmp_path, "--operating-point", "notebook")
    assert status == 2
    assert "plan.json: made from other inputs (operating_point was" in error


def test_a_finished_shard_is_not_computed_again(run: Run, planned: Path) -> None:
    options = ["predict", "--prediction", planned, "--shard", 0]
    assert run(*options)[0] == 0
    record = (planned / "shards/0000.json").read_bytes()
    status, out, said = run(*options)
    assert (status, said) == (0, "shard 0 is finished already")
    assert "shard 0: 10 rows" in out
    assert (planned / "shards/0000.json").read_bytes() == record


def test_an_unreadable_image_ends_with_2_and_leaves_nothing(
    world: World, run: Run, tmp_path: Path, planned: Path
) -> None:
    shutil.rmtree(planned)
    (tmp_path / "images/t0.dcm").write_bytes(b"no image")
    assert plan(world, run, tmp_path)[0] == 0
    found = [run("predict", "--prediction", planned, "--shard", shard) for shard in (0, 1)]
    assert sorted(status for status, _, _ in found) == [0, 2]
    error = next(error for status, _, error in found if status == 2)
    assert "1 of 10 images of shard" in error
    assert "more than --max-rejected 0 allows" in error
    assert "t0: not a DICOM file" in error
    assert len(list((planned / "shards").glob("*.json"))) == 1


def test_an_image_that_changed_since_the_plan_ends_with_2(run: Run, tmp_path: Path, planned: Path) -> None:
    for path in (tmp_path / "images").iterdir():
        data = bytearray(path.read_bytes())
        data[-50] ^= 1
        path.write_bytes(data)
    status, _, error = run("predict", "--prediction", planned, "--shard", 0)
    assert status == 2
    assert "its content is not the one that was listed (" in error.splitlines()[-1]
    assert not (planned / "shards").exists()


def test_an_image_that_is_gone_ends_with_2(run: Run, tmp_path: Path, planned: Path) -> None:
    shutil.rmtree(tmp_path / "images")
    status, _, error = run("predict", "--prediction", planned, "--shard", 0)
    assert status == 2
    assert error.endswith(".dcm: there is no such object")


def test_a_plan_of_other_code_is_rejected(run: Run, planned: Path) -> None:
    record = json.loads((planned / "plan.json").read_text())
    record["inputs"]["lobar"] = "0.0.1+other"
    (planned / "plan.json").write_text(json.dumps(record))
    status, _, error = run("predict", "--prediction", planned, "--shard", 0)
    assert status == 2
    assert "planned by lobar 0.0.1+other, this is" in error


def test_an_altered_model_or_slice_is_rejected(world: World, run: Run, planned: Path, tmp_path: Path) -> None:
    table = planned / "plan/0000.parquet"
    table.write_bytes(table.read_bytes()[:-1] + b"x")
    status, _, error = run("predict", "--prediction", planned, "--shard", 0)
    assert status == 2
    assert "plan/0000.parquet: its content is not the one recorded" in error
    shutil.copytree(world.place("models"), tmp_path / "m")
    record = json.loads((planned / "plan.json").read_text())
    record["inputs"]["model"] = objects.absolute(str(tmp_path / "m"))
    (planned / "plan.json").write_text(json.dumps(record))
    with (tmp_path / "m/openvino.bin").open("ab") as weights:
        weights.write(b"x")
    status, _, error = run("predict", "--prediction", planned, "--shard", 1)
    assert status == 2
    assert "openvino.bin: its content is not the one recorded" in error


@pytest.mark.parametrize(
    ("job", "options", "said"),
    [
        ("predict", ["--shard", 2], "--shard 2: the plan has shards 0 to 1"),
        ("predict", ["--prediction", "nowhere"], "plan.json: not there; run plan first, or check the URL"),
        ("merge-submission", [], "2 of 2 shards are missing: 0, 1; run predict for them"),
        (
            "plan",
            ["--precision", "int4"],
            "--precision int4: not offered by this model; choose auto or float32",
        ),
        (
            "plan",
            ["--model", "nowhere"],
            "neither a released model nor a registry; run evaluate or promote, or check",
        ),
        ("plan", ["--images", "nowhere"], "nowhere: no images there"),
        ("plan", ["--shards", 0], "Invalid value for '--shards'"),
    ],
)
def test_wrong_options_end_with_2_and_say_what_to_do(
    world: World, run: Run, planned: Path, job: str, options: list[object], said: str
) -> None:
    given: dict[str, list[object]] = {
        "predict": ["--prediction", planned, "--shard", 0],
        "merge-submission": ["--prediction", planned],
        "plan": ["--model", world.place("models"), "--images", planned.parent / "images", "--shards", 2,
                 "--out", planned.parent / "other"],
    }  # fmt: skip
    status, _, error = run(job, *given[job], *options)
    assert status == 2
    assert said in error.splitlines()[-1]


def test_two_images_of_one_name_cannot_be_planned(
    world: World, run: Run, tmp_path: Path, planned: Path
) -> None:
    (tmp_path / "images/again").mkdir()
    shutil.copy(tmp_path / "images/t0.dcm", tmp_path / "images/again/t0.dcm")
    status, _, error = plan(world, run, tmp_path, "--out", tmp_path / "other")
    assert status == 2
    assert "has the same name; keep one" in error


def test_more_shards_than_images_leaves_some_empty(
    world: World, run: Run, tmp_path: Path, planned: Path
) -> None:
    for path in sorted((tmp_path / "images").iterdir())[2:]:
        path.unlink()
    assert plan(world, run, tmp_path, "--shards", 5, "--out", tmp_path / "few")[0] == 0
    for shard in range(5):
        assert run("predict", "--prediction", tmp_path / "few", "--shard", shard)[0] == 0
    assert run("merge-submission", "--prediction", tmp_path / "few")[0] == 0
    assert len((tmp_path / "few/submission.csv").read_text().splitlines()) == 3


def test_a_release_names_what_others_need(world: World) -> None:
    model = Model(objects.absolute(str(world.place("models"))))
    release = records.read_record(model.release, "evaluate")
    assert {*release["files"]} == {
        "model.keras", "openvino.xml", "openvino.bin", "openvino-int8.xml", "openvino-int8.bin"
    }  # fmt: skip
    assert release["engine"] == "openvino"
    exact = release["precisions"]["float32"]
    assert exact["operating_points"]["notebook"]["threshold"] == 0.5
    assert exact["cpu_features"] == []
    assert release["options"]["sampling"] == "area"


def test_tensorflow_finds_what_openvino_finds(world: World, run: Run, tmp_path: Path) -> None:
    """The engine of the GPU pool, on the CPU here."""
    rows = {}
    for device in ("cpu", "gpu"):
        out = f"--out={tmp_path}/{device}"
        plan = ["plan", f"--images={world.root}/data/test_images", f"--model={world.place('models')}", out]
        assert run(*plan, "--shards=1", f"--device={device}", "--precision=float32")[0] == 0
        prediction = f"--prediction={tmp_path}/{device}"
        assert run("predict", prediction, "--shard=0", "--max-rejected=0.2")[0] == 0
        assert run("merge-submission", prediction, f"--figures={tmp_path}/figures")[0] == 0
        rows[device] = (tmp_path / device / "submission.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows["cpu"]] == [row.split(",")[0] for row in rows["gpu"]]
    numbers = [[float(n) for row in rows[device] for n in row.split(",")[1].split()] for device in rows]
    assert len(numbers[0]) > 0
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-3)
    figures = {path.name: path.read_text() for path in (tmp_path / "figures").iterdir()}
    assert (figures["rows"], figures["rejected"]) == ("21", "1")
