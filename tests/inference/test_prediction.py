"""plan and predict: what they reject, and what they do when their record is there already."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lobar.core.errors import InputError
from lobar.core.rejections import Rejection
from lobar.data.listing import Image
from lobar.inference import plan as plans
from lobar.inference import shard as shards
from lobar.inference import slices
from lobar.inference.plan import Request
from lobar.inference.record import Plan, Shard, ShardInputs
from lobar.inference.rows import Row
from lobar.storage import objects, records
from lobar.storage.layout import Model, Prediction
from tests.conftest import Run, World


@pytest.fixture
def planned(world: World, run: Run, tmp_path: Path) -> Path:
    """A plan of the test images without the broken one, in two shards."""
    shutil.copytree(world.root / "data/test_images", tmp_path / "images")
    (tmp_path / "images/broken.dcm").unlink()
    assert plan(world, run, tmp_path)[0] == 0
    return tmp_path / "p"


def plan(world: World, run: Run, tmp_path: Path, *options: object) -> tuple[int, str, str]:
    images, out = tmp_path / "images", tmp_path / "p"
    model = world.place("models")
    return run("plan", "--model", model, "--images", images, "--shards", 2, "--out", out, *options)


def test_planning_again_keeps_the_plan_and_another_plan_is_rejected(
    world: World, run: Run, tmp_path: Path, planned: Path
) -> None:
    before = (planned / "plan.json").read_bytes()
    assert plan(world, run, tmp_path)[0] == 0
    assert (planned / "plan.json").read_bytes() == before
    status, _, error = plan(world, run, tmp_path, "--operating-point", "notebook")
    assert status == 2
    assert "plan.json: made from other inputs (operating_point was" in error
    assert (planned / "plan.json").read_bytes() == before


@pytest.mark.parametrize("change", ["", "http://elsewhere/model"])
def test_of_two_jobs_that_plan_at_once_the_first_record_stays(
    world: World, planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """The record of another writer appears while this one plans; its inputs are equal or not."""
    model, place = (
        Model(objects.absolute(str(world.place("models")))),
        Prediction(tmp_path.as_uri() + "/other"),
    )
    first = records.read(Prediction(planned.as_uri()).plan, Plan)
    first = replace(first, created="2020-01-01T00:00:00+00:00")
    if change:
        first = replace(first, inputs=replace(first.inputs, images=change))
    monkeypatch.setattr(plans, "_drift", lambda *_: records.create(place.plan, first).drift)
    request = Request(4000, 2, "cpu", "auto", "tuned")
    if change:
        with pytest.raises(InputError, match=r"plan\.json: made from other inputs \(images was 'http://else"):
            plans.make(str(tmp_path / "images"), model, place, request)
    else:
        assert plans.make(str(tmp_path / "images"), model, place, request) == first
    assert objects.read(place.plan) == records.encode(first)


def test_a_finished_shard_is_not_computed_again(run: Run, planned: Path) -> None:
    options = ["predict", "--prediction", planned, "--shard", 0]
    assert run(*options)[0] == 0
    record = (planned / "shards/0000.json").read_bytes()
    status, out, log = run(*options)
    assert (status, log) == (0, "shard 0 is finished already")
    assert "shard 0: 10 rows" in out
    assert (planned / "shards/0000.json").read_bytes() == record


def test_a_shard_of_another_plan_is_rejected(run: Run, planned: Path) -> None:
    place = Prediction(planned.as_uri())
    other = Shard(inputs=ShardInputs("another", 0), table="", rows=0, with_boxes=0, rejected=[])
    records.create(place.shard_record(0), other)
    status, _, error = run("predict", "--prediction", planned, "--shard", 0)
    assert status == 2
    assert "0000.json: made from other inputs (plan was 'another', now " in error
    assert objects.read(place.shard_record(0)) == records.encode(other)
    assert [path.name for path in (planned / "shards").iterdir()] == ["0000.json"]


@pytest.mark.parametrize("same", [True, False])
def test_of_two_pods_of_a_shard_the_first_record_stays(
    planned: Path, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    """The record of another writer appears while this one predicts; its inputs are equal or not."""
    place = Prediction(planned.as_uri())
    plan = records.read(place.plan, Plan)
    inputs = ShardInputs(plan.digest if same else "another", 1)
    first = Shard(inputs=inputs, table="", rows=10, with_boxes=0, rejected=[])
    first = replace(first, created="2020-01-01T00:00:00+00:00")

    def predict(plan: Plan, images: list[Image]) -> Iterator[Row]:
        records.create(place.shard_record(1), first)
        return (Row.of(image.patient_id, []) for image in images)

    monkeypatch.setattr(shards, "predict", predict)
    if same:
        assert shards.run(place, 1, 0) == first
    else:
        with pytest.raises(
            InputError, match=r"0001\.json: made from other inputs \(plan was 'another', now "
        ):
            shards.run(place, 1, 0)
    assert objects.read(place.shard_record(1)) == records.encode(first)


def test_a_finished_shard_is_still_held_to_the_allowed_share(run: Run, tmp_path: Path, planned: Path) -> None:
    options = ["predict", "--prediction", planned, "--shard", 0]
    place = Prediction(planned.as_uri())
    plan = records.read(place.plan, Plan)
    rejected = [Rejection(slices.read(place, plan, 0)[0].image.patient_id, "x.dcm", "no pixel data")]
    inputs = ShardInputs(plan.digest, 0)
    records.create(
        place.shard_record(0), Shard(inputs=inputs, table="", rows=10, with_boxes=0, rejected=rejected)
    )
    status, _, error = run(*options)
    assert status == 2
    assert "1 of 10 images of shard 0 rejected (no pixel data 1); the allowed share is 0; " in error
    assert run(*options, "--max-rejected", 0.1)[0] == 0


def test_an_unreadable_image_ends_with_2_and_leaves_nothing(
    world: World, run: Run, tmp_path: Path, planned: Path
) -> None:
    shutil.rmtree(planned)
    (tmp_path / "images/t0.dcm").write_bytes(b"no image")
    assert plan(world, run, tmp_path)[0] == 0
    ended = [run("predict", "--prediction", planned, "--shard", shard) for shard in (0, 1)]
    assert sorted(status for status, _, _ in ended) == [0, 2]
    error = next(error for status, _, error in ended if status == 2)
    assert "1 of 10 images of shard" in error
    assert " 1); the allowed share is 0; fix them or allow more. For example t0 (" in error
    assert f"t0 ({(tmp_path / 'images/t0.dcm').as_uri()}): not a DICOM file" in error
    assert len(list((planned / "shards").glob("*.json"))) == 1


def test_an_image_that_changed_since_the_plan_ends_with_2(run: Run, tmp_path: Path, planned: Path) -> None:
    for path in (tmp_path / "images").iterdir():
        data = bytearray(path.read_bytes())
        data[-50] ^= 1
        path.write_bytes(data)
    status, _, error = run("predict", "--prediction", planned, "--shard", 0)
    assert status == 2
    assert "its content has changed since it was listed (" in error.splitlines()[-1]
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
    record = json.loads((planned / "plan.json").read_text())
    table = planned / f"plan/{record['slices'][0]}.parquet"
    table.write_bytes(table.read_bytes()[:-1] + b"x")
    status, _, error = run("predict", "--prediction", planned, "--shard", 0)
    assert status == 2
    assert f"plan/{table.name}: its content is not the one recorded" in error
    shutil.copytree(world.place("models"), tmp_path / "m")
    record["inputs"]["model"] = objects.absolute(str(tmp_path / "m"))
    (planned / "plan.json").write_text(json.dumps(record))
    files = record["inputs"]["files"]
    kind = "int8" if record["inputs"]["precision"] == "int8" else "float32"
    weights = tmp_path / f"m/openvino-{files[f'{kind}_weights']}.bin"
    weights.write_bytes(weights.read_bytes() + b"x")
    status, _, error = run("predict", "--prediction", planned, "--shard", 1)
    assert status == 2
    assert f"{weights.name}: its content is not the one recorded" in error


@pytest.mark.parametrize(
    ("job", "options", "message"),
    [
        ("predict", ["--shard", 2], "shard 2: the plan has shards 0 to 1"),
        ("predict", ["--prediction", "nowhere"], "plan.json: not there; run plan first, or check the URL"),
        ("merge-submission", [], "2 of 2 shards are missing: 0, 1; run predict for them"),
        (
            "plan",
            ["--precision", "int4"],
            "precision int4: not offered by this model; choose auto or float32",
        ),
        (
            "plan",
            ["--model", "nowhere"],
            "neither a released model nor a registry; run evaluate or promote, or check",
        ),
        ("plan", ["--images", "nowhere"], "nowhere: no images there"),
        ("plan", ["--shards", -1], "Invalid value for '--shards'"),
        ("plan", ["--images-per-shard", 0], "Invalid value for '--images-per-shard'"),
    ],
)
def test_wrong_options_end_with_2_and_say_what_to_do(
    world: World, run: Run, planned: Path, job: str, options: list[object], message: str
) -> None:
    given: dict[str, list[object]] = {
        "predict": ["--prediction", planned, "--shard", 0],
        "merge-submission": ["--prediction", planned],
        "plan": ["--model", world.place("models"), "--images", planned.parent / "images", "--shards", 2,
                 "--out", planned.parent / "other"],
    }  # fmt: skip
    status, _, error = run(job, *given[job], *options)
    assert status == 2
    assert message in error.splitlines()[-1]


def test_two_images_of_one_name_cannot_be_planned(
    world: World, run: Run, tmp_path: Path, planned: Path
) -> None:
    (tmp_path / "images/again").mkdir()
    shutil.copy(tmp_path / "images/t0.dcm", tmp_path / "images/again/t0.dcm")
    status, _, error = plan(world, run, tmp_path, "--out", tmp_path / "other")
    assert status == 2
    assert "has the same name; keep one" in error


def test_the_number_of_shards_follows_from_the_images_per_shard(
    world: World, run: Run, tmp_path: Path, planned: Path
) -> None:
    options = ["--shards", 0, "--images-per-shard", 8, "--figures", tmp_path / "figures"]
    assert plan(world, run, tmp_path, *options, "--out", tmp_path / "other")[0] == 0
    made = records.read(Prediction((tmp_path / "other").as_uri()).plan, Plan)
    assert (made.inputs.count, made.inputs.shards, len(made.slices)) == (20, 3, 3)
    assert (tmp_path / "figures/shards").read_text() == "3"


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
