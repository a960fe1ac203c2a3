"""plan --reuse: rows of an earlier prediction instead of predicting the same images again."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lobar.core.rejections import Rejection
from lobar.data.listing import Image
from lobar.inference import shard as shards
from lobar.inference.record import Plan
from lobar.inference.rows import Row
from lobar.storage import records
from lobar.storage.layout import Prediction
from tests.conftest import Run, World


@dataclass(frozen=True)
class Folder:
    """A folder of images, and the places of its predictions."""

    root: Path
    model: Path
    run: Run

    @property
    def images(self) -> Path:
        return self.root / "images"

    def plan(self, name: str, *options: object) -> tuple[int, str, str]:
        place = ["--images", self.images, "--out", self.root / name]
        return self.run("plan", "--model", self.model, *place, "--images-per-shard", 8, *options)

    def record(self, name: str) -> Plan:
        return records.read(Prediction(str(self.root / name)).plan, Plan)

    def finish(self, name: str) -> bytes:
        """Predict all shards and merge them."""
        place = self.root / name
        for shard in range(self.record(name).inputs.shards):
            assert self.run("predict", "--prediction", place, "--shard", shard, "--max-rejected", 1)[0] == 0
        assert self.run("merge-submission", "--prediction", place)[0] == 0
        return (place / "submission.csv").read_bytes()


@pytest.fixture
def folder(world: World, run: Run, tmp_path: Path) -> Folder:
    """20 images, without the broken one, with a finished prediction `old`."""
    shutil.copytree(world.root / "data/test_images", tmp_path / "images")
    (tmp_path / "images/broken.dcm").unlink()
    made = Folder(tmp_path, world.place("models"), run)
    assert made.plan("old")[0] == 0
    made.finish("old")
    return made


def test_only_new_and_changed_images_are_predicted_and_the_bytes_are_those_of_a_fresh_prediction(
    world: World, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = folder.images
    shutil.copy(images / "t1.dcm", images / "new.dcm")
    shutil.copy(images / "t2.dcm", images / "t3.dcm")
    (images / "t4.dcm").unlink()
    shutil.copy(world.root / "data/test_images/broken.dcm", images)
    status, out, _ = folder.plan("grown", "--reuse", folder.root / "old")
    assert status == 0
    assert f"  18 rows are those of file://{folder.root}/old\n" in out
    assert folder.record("grown").inputs.shards == 1  # of three images, not of 21
    predict = shards.predict
    predicted: list[str] = []

    def count(plan: Plan, images: Sequence[Image]) -> Iterator[Row | Rejection]:
        predicted.extend(image.patient_id for image in images)
        return predict(plan, images)

    monkeypatch.setattr(shards, "predict", count)
    grown = folder.finish("grown")
    assert sorted(predicted) == ["broken", "new", "t3"]
    assert folder.plan("fresh")[0] == 0
    assert folder.record("fresh").inputs.shards == 3
    assert grown == folder.finish("fresh")
    # a rejected image may have been repaired by other means: it is read again
    assert "  20 rows are those of" in folder.plan("again", "--reuse", folder.root / "grown")[1]
    assert folder.finish("again") == grown


def test_no_row_is_reused_if_the_boxes_could_differ(folder: Folder) -> None:
    options = ["--reuse", folder.root / "old", "--operating-point", "notebook"]
    status, out, err = folder.plan("other", *options)
    assert status == 0
    assert "no row can be reused, because the plans differ in: operating_point" in err
    assert "  0 rows are those of" in out
    assert folder.record("other").inputs.shards == 3


def test_an_unfinished_or_altered_prediction_is_not_reused(folder: Folder) -> None:
    assert folder.plan("unfinished")[0] == 0
    status, _, err = folder.plan("next", "--reuse", folder.root / "unfinished")
    assert status == 2
    assert "unfinished/submission.json: not there; run merge-submission first" in err
    (table, *_) = (folder.root / "old/shards").glob("*.csv")
    table.write_bytes(table.read_bytes() + b"x")
    status, _, err = folder.plan("next", "--reuse", folder.root / "old")
    assert status == 2
    assert "it was altered" in err
    assert not (folder.root / "next").exists()


def test_the_first_plan_of_the_same_inputs_stays(folder: Folder) -> None:
    assert folder.plan("again", "--reuse", folder.root / "old")[0] == 0
    first = folder.record("again")
    assert folder.plan("again", "--reuse", folder.root / "old")[0] == 0
    assert folder.record("again") == first
    assert replace(first.inputs, reuse="", shards=3) == folder.record("old").inputs


def test_explain_names_the_prediction_that_computed_a_row(folder: Folder) -> None:
    for earlier, later in (("old", "second"), ("second", "third")):
        assert folder.plan(later, "--reuse", folder.root / earlier)[0] == 0
        folder.finish(later)
    options = ["--prediction", folder.root / "third", "--patient-id", "t1", "--replay"]
    status, out, _ = folder.run("explain", *options)
    assert status == 0
    second, old = (f"file://{folder.root}/{name}" for name in ("second", "old"))
    assert (
        f"    the row was taken from {second}, shard 0 of 1\n    the row was taken from {old}, shard" in out
    )
    assert out.endswith(": the same row\n")
    shutil.rmtree(folder.root / "old")
    status, out, _ = folder.run("explain", *options)
    assert status == 0
    assert f"    the row was taken from {old}, removed since\n    predicted by lobar" in out
