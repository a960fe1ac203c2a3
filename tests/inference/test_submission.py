import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobar.core.boxes import Box
from lobar.core.errors import InputError
from lobar.core.rejections import Rejection
from lobar.data.listing import Image
from lobar.inference import slices, submission
from lobar.inference.record import Plan, PlanInputs, Shard, ShardInputs, Submission, SubmissionInputs
from lobar.inference.release import NOTEBOOK
from lobar.inference.rows import (
    COLUMNS,
    Row,
    from_csv,
    parse_prediction_string,
    prediction_string,
    to_csv,
)
from lobar.storage import objects, records
from lobar.storage.layout import Prediction
from lobar.storage.objects import Object, absolute
from lobar.training import recipe
from lobar.training.record import ModelFiles

boxes = st.builds(Box, *[st.integers(0, 3000)] * 4, st.floats(0, 1))


@given(st.lists(boxes, max_size=4))
def test_prediction_strings_read_back_to_six_digits(found: list[Box]) -> None:
    again = parse_prediction_string(prediction_string(found))
    assert [(b.x, b.y, b.width, b.height) for b in again] == [(b.x, b.y, b.width, b.height) for b in found]
    assert [b.confidence for b in again] == pytest.approx([b.confidence for b in found], abs=5e-7)


def test_the_format_is_exactly_that_of_the_notebook() -> None:
    assert (
        prediction_string([Box(1, 2, 3, 4, 0.5), Box(5, 6, 7, 8, 1.0)])
        == "0.500000 1 2 3 4 1.000000 5 6 7 8 "
    )
    assert prediction_string([]) == ""


def test_a_string_that_does_not_hold_boxes_is_an_error() -> None:
    with pytest.raises(ValueError, match="4 numbers; each box has five"):
        parse_prediction_string("0.5 1 2 3")


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])),
            st.sampled_from(["", "0.5 1 2 3 4 "]),
        )
    )
)
def test_tables_keep_every_text_and_empty_strings(rows: list[tuple[str, str]]) -> None:
    table = to_csv(Row(*row) for row in rows)
    read = list(csv.reader(io.StringIO(table.decode(), newline="")))
    assert COLUMNS == ("patientId", "PredictionString")
    assert read == [list(COLUMNS), *map(list, rows)]
    assert from_csv(table.removeprefix(to_csv([]))) == [Row(*row) for row in rows]


@given(st.integers(0, 500), st.integers(1, 60))
def test_slices_cover_all_images_once_and_evenly(count: int, shards: int) -> None:
    parts = slices.cut(count, shards)
    assert [i for part in parts for i in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


IDS = [f"id{i}" for i in range(7)]
REJECTION = Rejection("id3", "file:///x/id3.dcm", "no pixel data")
STRINGS = ["" if i % 2 else f"0.500000 {i} 2 3 4 " for i in range(7)]


@pytest.fixture
def finished(tmp_path: Path) -> Prediction:
    """A plan of seven images in three shards, all predicted; image 3 was rejected."""
    place = Prediction(absolute(str(tmp_path / "p")))
    images = [Image(patient, Object(f"file:///x/{patient}.dcm", 1, "e")) for patient in IDS]
    inputs = PlanInputs(
        images="file:///x", images_digest="", count=7, shards=3, model="m",
        files=ModelFiles("", "", "", "", ""), recipe=recipe.load("demo"), operating_point=NOTEBOOK,
        device="cpu", precision="float32", cpu_features=[], lobar="",
    )  # fmt: skip
    parts = slices.cut(7, 3)
    tables = [slices.put(place, [slices.Planned(images[i]) for i in part]) for part in parts]
    records.create(place.plan, Plan(inputs=inputs, slices=tables, other_objects=[], drift=[]))
    for number, part in enumerate(parts):
        rows = [(IDS[i], STRINGS[i]) for i in part]
        commit_shard(place, number, rows, [REJECTION] if 3 in part else [])
    return place


def commit_shard(
    place: Prediction, number: int, rows: Sequence[tuple[str, str]], rejected: Sequence[Rejection] = ()
) -> None:
    """Put a shard's table and its record; a record that is there is removed."""
    objects.remove(place.shard_record(number))
    shard = Shard(
        inputs=ShardInputs(records.read(place.plan, Plan).digest, number),
        table=records.put(place.shard_table, to_csv(Row(*row) for row in rows)),
        rows=len(rows),
        with_boxes=sum(bool(text) for _, text in rows),
        rejected=list(rejected),
    )
    records.create(place.shard_record(number), shard)


def test_merge_keeps_order_empty_rows_and_names_the_rejected(finished: Prediction, tmp_path: Path) -> None:
    merged = submission.merge(finished, str(tmp_path / "copy.csv"))
    expected = "patientId,PredictionString\n" + "".join(
        f"id{i}," + ("" if i % 2 else f"0.500000 {i} 2 3 4 ") + "\n" for i in range(7)
    )
    assert (tmp_path / "p/submission.csv").read_text() == expected
    assert (tmp_path / "copy.csv").read_text() == expected
    assert (tmp_path / "p/rejected.csv").read_text() == "patientId,reason\nid3,no pixel data\n"
    assert (merged.rows, merged.with_boxes, merged.rejected) == (7, 4, [REJECTION])
    record = records.read(finished.submission_record, Submission)
    assert record == merged
    assert record.rejected == [REJECTION]
    assert record.submission == records.sha256(expected.encode())


def test_merging_again_keeps_the_record_and_the_submission(finished: Prediction, tmp_path: Path) -> None:
    first = replace(submission.merge(finished, None), created="2020-01-01T00:00:00+00:00")
    objects.publish(finished.submission_record, records.encode(first))
    before = {path.name: path.read_bytes() for path in (tmp_path / "p").glob("*.*")}
    assert submission.merge(finished, str(tmp_path / "copy.csv")) == first
    assert {path.name: path.read_bytes() for path in (tmp_path / "p").glob("*.*")} == before
    assert (tmp_path / "copy.csv").read_bytes() == before["submission.csv"]


def test_a_submission_of_other_shards_is_kept(finished: Prediction, tmp_path: Path) -> None:
    submission.merge(finished, None)
    before = {path.name: path.read_bytes() for path in (tmp_path / "p").glob("*.*")}
    commit_shard(finished, 1, [("id2", ""), ("id3", "")])
    with pytest.raises(InputError, match=r"submission\.json: made from other inputs \(tables was"):
        submission.merge(finished, str(tmp_path / "copy.csv"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "p").glob("*.*")} == before
    assert not (tmp_path / "copy.csv").exists()


@pytest.mark.parametrize("same", [True, False])
def test_of_two_merges_at_once_the_first_record_stays(
    finished: Prediction, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    """The record of another writer appears while this one merges; its inputs are equal or not."""
    first = submission.merge(finished, None)
    objects.remove(finished.submission_record)
    first = replace(first, created="2020-01-01T00:00:00+00:00")
    if not same:
        first = replace(first, inputs=SubmissionInputs("another", first.inputs.tables))
    publish = objects.publish

    def publish_late(url: str, data: bytes) -> None:
        publish(url, data)
        records.create(finished.submission_record, first)

    monkeypatch.setattr(objects, "publish", publish_late)
    if same:
        assert submission.merge(finished, None) == first
    else:
        with pytest.raises(
            InputError, match=r"submission\.json: made from other inputs \(plan was 'another'"
        ):
            submission.merge(finished, None)
    assert objects.read(finished.submission_record) == records.encode(first)


def drop_records(place: Prediction, folder: Path) -> None:
    (folder / "shards/0000.json").unlink()
    (folder / "shards/0002.json").unlink()


def add_record(place: Prediction, folder: Path) -> None:
    (folder / "shards/0003.json").write_bytes((folder / "shards/0002.json").read_bytes())


def swap_records(place: Prediction, folder: Path) -> None:
    (folder / "shards/0001.json").write_bytes((folder / "shards/0002.json").read_bytes())


def other_plan(place: Prediction, folder: Path) -> None:
    shard = records.read(place.shard_record(1), Shard)
    other = replace(shard, inputs=ShardInputs("x", 1))
    objects.publish(place.shard_record(1), records.encode(other))


def alter_table(place: Prediction, folder: Path) -> None:
    shard = records.read(place.shard_record(1), Shard)
    table = folder / f"shards/{shard.table}.csv"
    table.write_text(table.read_text().replace(" 2 3 4", " 2 3 5"))


def repeat_row(place: Prediction, folder: Path) -> None:
    commit_shard(place, 1, [("id2", ""), ("id3", ""), ("id3", "")])


def unknown_row(place: Prediction, folder: Path) -> None:
    commit_shard(place, 1, [("id2", ""), ("other", "")])


def missing_row(place: Prediction, folder: Path) -> None:
    commit_shard(place, 1, [("id2", "")])


def reordered(place: Prediction, folder: Path) -> None:
    commit_shard(place, 1, [("id3", ""), ("id2", "")])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_records, "2 of 3 shards are missing: 0, 2; run predict for them"),
        (add_record, "records of shards that this plan does not have: 0003.json; remove them"),
        (swap_records, "0001.json: made for another plan or shard"),
        (other_plan, "0001.json: made for another plan or shard"),
        (alter_table, "it was altered"),
        (repeat_row, "repeated rows id3"),
        (unknown_row, "unknown rows other, missing rows id3"),
        (missing_row, "missing rows id3"),
        (reordered, "its rows are in another order"),
    ],
)
def test_merge_rejects_by_name_and_publishes_nothing(
    finished: Prediction, tmp_path: Path, damage: Callable[[Prediction, Path], None], message: str
) -> None:
    damage(finished, tmp_path / "p")
    with pytest.raises(InputError, match=message):
        submission.merge(finished, None)
    assert not (tmp_path / "p/submission.csv").exists()
