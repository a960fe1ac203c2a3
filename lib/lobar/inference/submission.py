"""The merge of a plan's shards into one submission."""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lobar.core import console
from lobar.core.concurrency import ordered_map
from lobar.core.errors import InputError
from lobar.data.listing import Image
from lobar.inference import slices
from lobar.inference.record import Plan, Shard, ShardInputs, Submission, SubmissionInputs
from lobar.inference.rows import Row, from_csv, table, to_csv
from lobar.storage import objects, records
from lobar.storage.layout import Prediction

REJECTED_COLUMNS = ("patientId", "reason")
NAMED = 5


def merge(place: Prediction, copy_to: str | None) -> Submission:
    """Join the finished shards of a plan in order, publish the submission, and return its record.

    The tables of two shards at a time are in memory. Raises InputError naming every shard that is missing or
    of another plan, the table or row that is altered, repeated, unknown or missing, or what differs in a
    submission that is already there; then nothing is published.
    """
    plan = records.read(place.plan, Plan)
    shards = _finished(place, plan)
    inputs = SubmissionInputs(plan.digest, [shard.table for shard in shards])
    records.find(place.submission_record, Submission, inputs)  # a submission of other tables is not replaced
    rejected = [rejection for shard in shards for rejection in shard.rejected]
    with tempfile.TemporaryDirectory() as scratch:
        joined = Path(scratch) / "submission.csv"
        with joined.open("wb") as out:
            out.write(to_csv([]))
            tables = ordered_map(
                lambda k: _checked_table(place, plan, k, shards[k]), range(len(shards)), 2, 2
            )
            for shard_table in console.progress(tables, len(shards), "shards"):
                out.write(shard_table)
        with joined.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        for url in filter(None, (place.submission, copy_to)):
            objects.publish_file(url, joined)
    rejected_rows = ((rejection.patient_id, rejection.reason) for rejection in rejected)
    objects.publish(place.rejected, table(REJECTED_COLUMNS, rejected_rows))
    submission = Submission(
        inputs=inputs,
        submission=digest.hexdigest(),
        rows=sum(shard.rows for shard in shards),
        with_boxes=sum(shard.with_boxes for shard in shards),
        rejected=rejected,
        plan=plan.inputs,
    )
    return records.create(place.submission_record, submission)


def rows(place: Prediction, plan: Plan) -> Iterator[tuple[Image, str | None]]:
    """Each image of a plan, in order, with its PredictionString; None if it was rejected.

    Raises InputError as `merge` does.
    """
    for number, shard in enumerate(_finished(place, plan)):
        yield from _shard_rows(place, plan, number, shard)


def merged_rows(place: Prediction, number: int) -> list[tuple[Image, str | None]]:
    """`rows` of one shard of a merged submission.

    Raises InputError if there is no such shard, or its record and table are not those that were merged.
    """
    merged = records.read(place.submission_record, Submission)
    plan = records.read(place.plan, Plan)
    slices.read(place, plan, number)
    shard = records.read(place.shard_record(number), Shard)
    if merged.inputs.plan != plan.digest or merged.inputs.tables[number] != shard.table:
        raise InputError(
            f"{place.submission_record}: not merged from this plan and shard {number}; restore them, or "
            "predict again in another place"
        )
    return list(_shard_rows(place, plan, number, shard))


def _shard_rows(
    place: Prediction, plan: Plan, number: int, shard: Shard
) -> Iterator[tuple[Image, str | None]]:
    rejected = {rejection.patient_id for rejection in shard.rejected}
    found = from_csv(_checked_table(place, plan, number, shard))
    for item, row in zip(slices.read(place, plan, number), found, strict=True):
        yield item.image, None if row.patient_id in rejected else row.prediction_string


def _finished(place: Prediction, plan: Plan) -> list[Shard]:
    """The record of every shard, in order. Raises InputError unless all are there and of this plan."""
    listed = {objects.name(item.url) for item in objects.list_objects(place.shards)}
    urls = [place.shard_record(number) for number in range(len(plan.slices))]
    names = [objects.name(url) for url in urls]
    if missing := [str(number) for number, name in enumerate(names) if name not in listed]:
        raise InputError(
            f"{place.shards}: {len(missing)} of {len(names)} shards are missing: {_some(missing)}; "
            "run predict for them"
        )
    if unknown := sorted(name for name in listed if name.endswith(".json") and name not in names):
        raise InputError(
            f"{place.shards}: records of shards that this plan does not have: {_some(unknown)}; remove them"
        )
    shards = list(ordered_map(lambda url: records.read(url, Shard), urls, 8, 32))
    for number, (url, shard) in enumerate(zip(urls, shards, strict=True)):
        if shard.inputs != ShardInputs(plan.digest, number):
            raise InputError(f"{url}: made for another plan or shard; remove it and run predict")
    return shards


def _checked_table(place: Prediction, plan: Plan, number: int, shard: Shard) -> bytes:
    """A shard's table without its header, once it is checked that its rows are those of the plan."""
    data = records.get(place.shard_table, shard.table)
    header = to_csv([])
    body = data.removeprefix(header)
    rows = from_csv(body)
    planned = [item.image.patient_id for item in slices.read(place, plan, number)]
    if not data.startswith(header) or [row.patient_id for row in rows] != planned:
        raise InputError(
            f"{place.shard_table(shard.table)}: {_difference(rows, planned)}; "
            f"remove the record of shard {number}, run predict"
        )
    return body


def _difference(rows: list[Row], planned: list[str]) -> str:
    ids = [row.patient_id for row in rows]
    differences = {
        "repeated": [patient_id for patient_id, count in Counter(ids).items() if count > 1],
        "unknown": sorted({*ids} - {*planned}),
        "missing": sorted({*planned} - {*ids}),
    }
    differing = [f"{kind} rows {_some(items)}" for kind, items in differences.items() if items]
    return ", ".join(differing) or "its rows are in another order, or its header is another one"


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
