import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobar.core.boxes import Box
from lobar.core.errors import InputError
from lobar.data.listing import Image
from lobar.inference import submission
from lobar.inference.plan import Plan, cut, slice_table
from lobar.inference.submission import HEADER, parse_prediction_string, prediction_string, to_csv
from lobar.storage import records
from lobar.storage.layout import Prediction
from lobar.storage.objects import Object, absolute

boxes = st.builds(Box, *[st.integers(0, 3000)] * 4, st.floats(0, 1))


@given(st.lists(boxes, max_size=4))
def test_prediction_strings_read_back_to_six_digits(found: list[Box]) -> None:
    again = parse_prediction_string(prediction_string(found))
    assert [(b.x, b.y, b.width, b.height) for b in again] == [(b.x, b.y, b.width, b.height) for b in found]
    assert [b.confidence for b in again] == pytest.approx([b.confidence for b in found], abs=5e-7)


def test_the_notebooks_format_to_the_letter() -> None:
    assert (
        prediction_string([Box(1, 2, 3, 4, 0.5), Box(5, 6, 7, 8, 1.0)])
        == "0.500000 1 2 3 4 1.000000 5 6 7 8 "
    )
    assert prediction_string([]) == ""


def test_a_string_that_is_no_boxes_is_an_error() -> None:
    with pytest.raises(ValueError, match="4 numbers, where each box has five"):
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
    read = list(csv.reader(io.StringIO(to_csv(HEADER, rows).decode(), newline="")))
    assert read == [list(HEADER), *map(list, rows)]


@given(st.integers(0, 500), st.integers(1, 60))
def test_slices_cover_all_images_once_and_evenly(count: int, shards: int) -> None:
    parts = cut(count, shards)
    assert [i for part in parts for i in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.fixture
def finished(tmp_path: Path) -> Plan:
    """A plan of seven images in three shards, all predicted; image 3 was rejected."""
    place = Prediction(absolute(str(tmp_path / "p")))
    ids = [f"id{i}" for i in range(7)]
    images = [Image(patient, Object(f"file:///x/{patient}.dcm", 1, "e")) for patient in ids]
    parts = cut(7, 3)
    slices = [
        records.write_table(place.slice(k), slice_table([images[i] for i in part]))
        for k, part in enumerate(parts)
    ]
    records.commit(place.plan, {"model": "m", "count": 7}, slices=slices)
    plan = Plan(place, {"model": "m", "count": 7}, slices)
    for k, part in enumerate(parts):
        rows = [(ids[i], "" if i % 2 else f"0.500000 {i} 2 3 4 ") for i in part]
        commit_shard(plan, k, rows, [["id3", "no pixel data"]] if 3 in part else [])
    return plan


def commit_shard(plan: Plan, shard: int, rows: list[tuple[str, str]], rejected: list[Any] = ()) -> None:
    table = to_csv(HEADER, rows)
    records.storage.publish(plan.place.shard_table(records.sha256(table)), table)
    records.commit(
        plan.place.shard_record(shard),
        {"plan": plan.digest, "shard": shard},
        table=records.sha256(table), rows=len(rows), with_boxes=0, rejected=list(rejected),
    )  # fmt: skip


def test_merge_keeps_order_empty_rows_and_names_the_rejected(finished: Plan, tmp_path: Path) -> None:
    merged = submission.merge(finished, str(tmp_path / "copy.csv"))
    expected = "patientId,PredictionString\n" + "".join(
        f"id{i}," + ("" if i % 2 else f"0.500000 {i} 2 3 4 ") + "\n" for i in range(7)
    )
    assert (tmp_path / "p/submission.csv").read_text() == expected
    assert (tmp_path / "copy.csv").read_text() == expected
    assert (tmp_path / "p/rejected.csv").read_text() == "patientId,reason\nid3,no pixel data\n"
    assert (merged.rows, merged.with_boxes, merged.rejected) == (7, 4, [["id3", "no pixel data"]])
    lineage = records.read_record(finished.place.lineage, "merge-submission")
    assert lineage["rejected"] == [["id3", "no pixel data"]]
    assert lineage["submission"] == records.sha256(expected.encode())


def drop_records(plan: Plan, folder: Path) -> None:
    (folder / "shards/0000.json").unlink()
    (folder / "shards/0002.json").unlink()


def add_record(plan: Plan, folder: Path) -> None:
    (folder / "shards/0003.json").write_bytes((folder / "shards/0002.json").read_bytes())


def swap_records(plan: Plan, folder: Path) -> None:
    (folder / "shards/0001.json").write_bytes((folder / "shards/0002.json").read_bytes())


def other_plan(plan: Plan, folder: Path) -> None:
    records.commit(plan.place.shard_record(1), {"plan": "x", "shard": 1}, table="t", rejected=[])


def alter_table(plan: Plan, folder: Path) -> None:
    record = records.read_record(plan.place.shard_record(1), "predict")
    table = folder / f"shards/{record['table']}.csv"
    table.write_text(table.read_text().replace(" 2 3 4", " 2 3 5"))


def repeat_row(plan: Plan, folder: Path) -> None:
    commit_shard(plan, 1, [("id2", ""), ("id3", ""), ("id3", "")])


def foreign_row(plan: Plan, folder: Path) -> None:
    commit_shard(plan, 1, [("id2", ""), ("other", "")])


def missing_row(plan: Plan, folder: Path) -> None:
    commit_shard(plan, 1, [("id2", "")])


def reordered(plan: Plan, folder: Path) -> None:
    commit_shard(plan, 1, [("id3", ""), ("id2", "")])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (drop_records, "2 of 3 shards are missing: 0, 2; run predict for them"),
        (add_record, "0003.json of no shard of this plan"),
        (swap_records, "0001.json: made for another plan or shard"),
        (other_plan, "0001.json: made for another plan or shard"),
        (alter_table, "it was altered"),
        (repeat_row, "repeated rows id3"),
        (foreign_row, "foreign rows other, missing rows id3"),
        (missing_row, "missing rows id3"),
        (reordered, "another order"),
    ],
)
def test_merge_rejects_by_name_and_publishes_nothing(
    finished: Plan, tmp_path: Path, damage: Callable[[Plan, Path], None], said: str
) -> None:
    damage(finished, tmp_path / "p")
    with pytest.raises(InputError, match=said):
        submission.merge(finished, None)
    assert not (tmp_path / "p/submission.csv").exists()
