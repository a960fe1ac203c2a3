"""One shard of a plan: images to boxes to a table of rows, committed by one record."""

import logging
from collections.abc import Iterator, Sequence

from lobar.core import console
from lobar.core.errors import InputError
from lobar.core.rejections import Rejection, check_share
from lobar.core.version import code_version
from lobar.data.listing import Image
from lobar.imaging.loader import Rejected
from lobar.inference import maps, slices
from lobar.inference.engines import ENGINE_OF_DEVICE, check_cpu
from lobar.inference.postprocess import detect
from lobar.inference.record import Plan, Shard, ShardInputs
from lobar.inference.rows import Row, to_csv
from lobar.inference.slices import Planned
from lobar.storage import records
from lobar.storage.layout import Model, Prediction

log = logging.getLogger(__name__)


def run(place: Prediction, number: int, max_rejected: float) -> Shard:
    """Predict one shard and commit it; a shard that is finished already is left as it is.

    Raises InputError if the plan was made by other code, or more than the share `max_rejected` of the images
    cannot be read; then nothing is committed.
    """
    plan = records.read(place.plan, Plan)
    if plan.inputs.lobar != code_version():
        raise InputError(
            f"{place.plan}: planned by lobar {plan.inputs.lobar}, this is {code_version()}; "
            "use the container image that planned, or plan again in another place"
        )
    planned = slices.read(place, plan, number)
    inputs = ShardInputs(plan.digest, number)
    url, what = place.shard_record(number), f"images of shard {number}"
    if shard := records.find(url, Shard, inputs):
        check_share(shard.rejected, len(planned), max_rejected, what)
        log.info("shard %d is finished already", number)
        return shard
    # the format requires a row for a rejected image too; the record says which empty rows are rejections
    rows, rejected = [], []
    for result in console.progress(_results(plan, planned), len(planned), f"shard {number}"):
        if isinstance(result, Rejection):
            rejected.append(result)
            rows.append(Row.of(result.patient_id, []))
        else:
            rows.append(result)
    check_share(rejected, len(planned), max_rejected, what)
    shard = Shard(
        inputs=inputs,
        table=records.put(place.shard_table, to_csv(rows)),
        rows=len(rows),
        with_boxes=sum(bool(row.prediction_string) for row in rows),
        rejected=rejected,
    )
    return records.create(url, shard)


def _results(plan: Plan, planned: Sequence[Planned]) -> Iterator[Row | Rejection]:
    """The row of each image, reused or predicted, or why it cannot be read."""
    predicted = predict(plan, [item.image for item in planned if item.reused is None])
    for item in planned:
        if item.reused is None:
            yield next(predicted)
        else:
            yield Row(item.image.patient_id, item.reused)


def predict(plan: Plan, images: Sequence[Image]) -> Iterator[Row | Rejection]:
    """The row of each image, or why it cannot be read.

    Raises InputError if the model's files or the kind of CPU are not those of the plan.
    """
    inputs = plan.inputs
    check_cpu(inputs.precision, inputs.cpu_features)
    if not images:
        return
    engine = ENGINE_OF_DEVICE[inputs.device](Model(inputs.model), inputs.files, inputs.precision)
    for image in maps.predict({inputs.precision: engine}, images, inputs.recipe, inputs.any_body_part):
        if isinstance(image, Rejected):
            yield image.rejection
            continue
        decoded, predicted = image
        header = decoded.header
        boxes = detect(predicted[inputs.precision], header.rows, header.columns, inputs.operating_point)
        yield Row.of(decoded.item.patient_id, boxes)
