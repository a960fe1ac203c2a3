"""From a row of a submission back to what it was made of, and the same row computed again."""

import bisect
import csv
import io
from dataclasses import dataclass
from typing import Any

from lobar.core.errors import InputError
from lobar.data.listing import Image, order_key
from lobar.inference import plan as plans
from lobar.inference import shard as shards
from lobar.inference.plan import Plan
from lobar.storage import objects, records
from lobar.storage.layout import Dataset, Model, Prediction


@dataclass(frozen=True)
class Lineage:
    """Where a row came from.

    `row` is its PredictionString, `rejected` the reason why an empty one is no finding. The records are those
    of the plan, the shard, the model's training and evaluation, and the dataset.
    """

    plan: Plan
    shard: int
    image: Image
    row: str
    rejected: str | None
    record: dict[str, Any]
    training: dict[str, Any]
    evaluation: dict[str, Any]
    dataset: dict[str, Any]


def trace(place: Prediction, patient_id: str) -> Lineage:
    """Find a patient's row. Raises InputError where no such image was planned, or its shard is not done."""
    made = plans.read(place)
    shard, image = _find(made, patient_id)
    record = records.read_record(place.shard_record(shard), "predict")
    url = place.shard_table(record["table"])
    table = records.read_checked(url, record["table"]).decode()
    rows = {
        row["patientId"]: row["PredictionString"] for row in csv.DictReader(io.StringIO(table, newline=""))
    }
    if patient_id not in rows:
        raise InputError(f"{url}: no row of {patient_id}; remove the record of shard {shard}, run predict")
    model = Model(made.inputs["model"])
    training = records.read_record(model.training, "train")
    return Lineage(
        plan=made,
        shard=shard,
        image=image,
        row=rows[patient_id],
        rejected=dict(record["rejected"]).get(patient_id),
        record=record,
        training=training,
        evaluation=records.read_record(model.evaluation, "evaluate"),
        dataset=records.read_record(Dataset(training["inputs"]["dataset"]).manifest, "label-index"),
    )


def image_sha256(found: Lineage) -> str:
    """The digest of the image's bytes. Raises InputError where they are not the planned ones."""
    ((_, body),) = objects.read_many([found.image.object])
    if isinstance(body, Exception):
        raise body
    return records.sha256(body)


def replay(found: Lineage) -> tuple[str, str | None]:
    """The row computed again from the image and the model, and the reason where the image is rejected.

    Raises InputError where the image, the model or the kind of CPU is not the planned one.
    """
    rejected: dict[str, str] = {}
    rows = shards.rows(found.plan, [found.image], rejected, "replay")
    patient_id = found.image.patient_id
    return rows.get(patient_id, ""), rejected.get(patient_id)


def _find(made: Plan, patient_id: str) -> tuple[int, Image]:
    """The shard and the image of a patient; shards are slices of one order, so that few tables are read."""
    parts = plans.cut(made.inputs["count"], made.inputs["shards"])
    filled = [shard for shard, part in enumerate(parts) if part]
    wanted = order_key(patient_id)
    after = bisect.bisect_right(filled, wanted, key=lambda k: order_key(made.images(k)[0].patient_id))
    for shard in filled[max(after - 1, 0) : after]:
        for image in made.images(shard):
            if image.patient_id == patient_id:
                return shard, image
    raise InputError(f"{made.place.plan}: no image of {patient_id} was planned; check --patient-id")
