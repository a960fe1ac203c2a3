"""PredictionString, the tables of shards, and their merge into one submission."""

import csv
import hashlib
import io
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lobar.core import console
from lobar.core.boxes import Box
from lobar.core.concurrency import ordered_map
from lobar.core.errors import InputError
from lobar.storage import objects, records

if TYPE_CHECKING:
    from lobar.inference.plan import Plan

HEADER = ("patientId", "PredictionString")
REJECTED_HEADER = ("patientId", "reason")
NAMED = 5


def prediction_string(boxes: Sequence[Box]) -> str:
    """`confidence x y width height ` for each box, as the notebook wrote it; an empty text for none."""
    return "".join(f"{b.confidence:.6f} {b.x} {b.y} {b.width} {b.height} " for b in boxes)


def parse_prediction_string(text: str) -> list[Box]:
    """The boxes of a PredictionString. Raises ValueError where it is not five numbers a box."""
    values = text.split()
    if len(values) % 5:
        raise ValueError(f"{len(values)} numbers, where each box has five: {text!r}")
    return [_box(*values[i : i + 5]) for i in range(0, len(values), 5)]


def _box(confidence: str, x: str, y: str, width: str, height: str) -> Box:
    return Box(int(x), int(y), int(width), int(height), float(confidence))


def to_csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """A CSV with a header; texts that need it are quoted, an empty text stays empty."""
    body = io.StringIO()
    writer = csv.writer(body, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return body.getvalue().encode()


@dataclass(frozen=True)
class Merged:
    """What the merge made: rows in all, rows with a box, and the ids that were rejected."""

    rows: int
    with_boxes: int
    rejected: list[list[str]]


def merge(plan: "Plan", copy_to: str | None) -> Merged:
    """Join the finished shards of a plan in order, publish the submission, and return its counts.

    Two shards' tables are in memory at a time. Raises InputError naming every shard that is missing or
    of another plan, and the table or row that is altered, repeated, foreign or missing.
    """
    finished = _finished(plan)
    rejected = [pair for record in finished for pair in record["rejected"]]
    rows = with_boxes = 0
    with tempfile.TemporaryDirectory() as scratch:
        joined = Path(scratch) / "submission.csv"
        with joined.open("wb") as out:
            out.write(to_csv(HEADER, []))
            tables = ordered_map(lambda k: _checked_table(plan, k, finished[k]), range(len(finished)), 2, 2)
            for table, found in console.progress(tables, len(finished), "shards"):
                out.write(table)
                rows += len(found)
                with_boxes += sum(bool(text) for text in found)
        with joined.open("rb") as done:
            digest = hashlib.file_digest(done, "sha256")
        for url in filter(None, (plan.place.submission, copy_to)):
            objects.publish_file(url, joined)
    objects.publish(plan.place.rejected, to_csv(REJECTED_HEADER, rejected))
    records.commit(
        plan.place.lineage,
        {"plan": plan.digest, "tables": [record["table"] for record in finished]},
        submission=digest.hexdigest(),
        rows=rows,
        with_boxes=with_boxes,
        rejected=rejected,
        model=plan.inputs["model"],
        options=plan.inputs,
    )
    return Merged(rows, with_boxes, rejected)


def _finished(plan: "Plan") -> list[dict[str, Any]]:
    """The record of every shard, in order; raises InputError unless all are there and of this plan."""
    there = {objects.name(item.url) for item in objects.list_objects(plan.place.shards)}
    shards = range(len(plan.slices))
    names = [objects.name(plan.place.shard_record(shard)) for shard in shards]
    if missing := [str(shard) for shard, name in zip(shards, names, strict=True) if name not in there]:
        raise InputError(
            f"{plan.place.shards}: {len(missing)} of {len(names)} shards are missing: {_some(missing)}; "
            "run predict for them"
        )
    if foreign := sorted(name for name in there if name.endswith(".json") and name not in names):
        raise InputError(f"{plan.place.shards}: {_some(foreign)} of no shard of this plan; remove them")
    finished = list(
        ordered_map(lambda k: records.read_record(plan.place.shard_record(k), "predict"), shards, 8, 32)
    )
    for shard, record in zip(shards, finished, strict=True):
        if record["inputs"] != {"plan": plan.digest, "shard": shard}:
            raise InputError(
                f"{plan.place.shard_record(shard)}: made for another plan or shard; remove it and run predict"
            )
    return finished


def _checked_table(plan: "Plan", shard: int, record: dict[str, Any]) -> tuple[bytes, list[str]]:
    """A shard's table without its header, and its PredictionStrings, once its rows are the planned ones."""
    url = plan.place.shard_table(record["table"])
    data = records.read_checked(url, record["table"])
    header = to_csv(HEADER, [])
    rows = list(csv.reader(io.StringIO(data.removeprefix(header).decode(), newline="")))
    wanted = [image.patient_id for image in plan.images(shard)]
    found = [row[0] for row in rows]
    if not data.startswith(header) or found != wanted:
        raise InputError(
            f"{url}: {_difference(found, wanted)}; remove the record of shard {shard}, run predict"
        )
    return data.removeprefix(header), [row[1] for row in rows]


def _difference(found: list[str], wanted: list[str]) -> str:
    repeated = [patient for patient, count in Counter(found).items() if count > 1]
    foreign = sorted({*found} - {*wanted})
    missing = sorted({*wanted} - {*found})
    named = [("repeated", repeated), ("foreign", foreign), ("missing", missing)]
    said = [f"{kind} rows {_some(patients)}" for kind, patients in named if patients]
    return ", ".join(said) or "its rows are in another order or under another header"


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
