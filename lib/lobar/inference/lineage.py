"""From a row of a submission back to its records, image and model, and the same row computed again."""

import bisect
from dataclasses import dataclass

from lobar.core.errors import AbsentError, InputError
from lobar.core.rejections import Rejection
from lobar.data.listing import Image, order_key
from lobar.data.record import Manifest
from lobar.inference import shard as shards
from lobar.inference import slices
from lobar.inference.record import Plan, Shard
from lobar.inference.rows import Row, from_csv, to_csv
from lobar.inference.slices import Planned
from lobar.storage import objects, records
from lobar.storage.layout import Dataset, Model, Prediction
from lobar.training.record import Training


@dataclass(frozen=True)
class Lineage:
    """Where a row came from: the records of the plan, the shard, the training and the dataset.

    `reused_from` is the earlier prediction that the row was taken from, empty if it was predicted, and
    `source` the lineage of the row there, None if that prediction was removed.
    `rejection` is set if the image was rejected, so that its row is empty.
    """

    plan: Plan
    number: int
    shard: Shard
    image: Image
    row: Row
    reused_from: str
    source: "Lineage | None"
    rejection: Rejection | None
    training: Training
    dataset: Manifest


def trace(place: Prediction, patient_id: str) -> Lineage:
    """Find a patient's row. Raises InputError if no such image was planned, or its shard is not finished."""
    plan = records.read(place.plan, Plan)
    number, planned = _find(place, plan, patient_id)
    shard = records.read(place.shard_record(number), Shard)
    body = records.get(place.shard_table, shard.table).removeprefix(to_csv([]))
    rows = {row.patient_id: row for row in from_csv(body)}
    if patient_id not in rows:
        raise InputError(
            f"{place.shard_table(shard.table)}: no row of {patient_id}; remove the record of shard {number}, "
            "run predict"
        )
    training = records.read(Model(plan.inputs.model).training, Training)
    reused_from = "" if planned.reused is None else plan.inputs.reuse
    return Lineage(
        plan=plan,
        number=number,
        shard=shard,
        image=planned.image,
        row=rows[patient_id],
        reused_from=reused_from,
        source=_source(reused_from, patient_id),
        rejection=next((r for r in shard.rejected if r.patient_id == patient_id), None),
        training=training,
        dataset=records.read(Dataset(training.inputs.dataset).manifest, Manifest),
    )


def _source(reused_from: str, patient_id: str) -> Lineage | None:
    try:
        return trace(Prediction(reused_from), patient_id) if reused_from else None
    except AbsentError:
        return None


def image_sha256(lineage: Lineage) -> str:
    """The SHA-256 of the image's bytes. Raises InputError if they are not those of the plan."""
    ((_, body),) = objects.read_many([lineage.image.object])
    if isinstance(body, Exception):
        raise body
    return records.sha256(body)


def replay(lineage: Lineage) -> Row | Rejection:
    """The row computed again from the image and the model, or why the image is rejected.

    Of a plan for a GPU it may differ in a confidence's last digits or at a threshold, unless the GPU and its
    driver are the same.

    Raises InputError if the image, the model or the kind of CPU is not the planned one.
    """
    (result,) = shards.predict(lineage.plan, [lineage.image])
    return result


def _find(place: Prediction, plan: Plan, patient_id: str) -> tuple[int, Planned]:
    """The shard and the image of a patient; shards are slices of one order, so few tables are read."""
    parts = slices.cut(plan.inputs.count, plan.inputs.shards)
    filled = [number for number, part in enumerate(parts) if part]
    position = bisect.bisect_right(
        filled,
        order_key(patient_id),
        key=lambda number: order_key(slices.read(place, plan, number)[0].image.patient_id),
    )
    for number in filled[max(position - 1, 0) : position]:
        for item in slices.read(place, plan, number):
            if item.image.patient_id == patient_id:
                return number, item
    raise InputError(f"{place.plan}: no image of {patient_id} was planned", setting="patient_id")
