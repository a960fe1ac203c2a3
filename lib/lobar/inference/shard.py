"""One shard of a plan: images -> boxes -> a table of rows, committed by one record."""

import logging
from dataclasses import dataclass
from typing import Any

from lobar.core import console
from lobar.core.errors import InputError
from lobar.core.version import code_version
from lobar.data.listing import Image
from lobar.imaging import loader
from lobar.imaging.sampling import Sampling
from lobar.inference.engines import ENGINE_OF_DEVICE, Engine, check_cpu
from lobar.inference.plan import Plan, read
from lobar.inference.postprocess import detect
from lobar.inference.release import OperatingPoint
from lobar.inference.submission import HEADER, prediction_string, to_csv
from lobar.storage import objects, records
from lobar.storage.layout import Model, Prediction

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """What a shard's record says: its rows, those with a box, and the rejected ones with their reasons."""

    rows: int
    with_boxes: int
    rejected: list[list[str]]


def run(place: Prediction, shard: int, max_rejected: float) -> Done:
    """Predict one shard and commit it; a shard that this plan has finished already is left as it is.

    Raises InputError where the plan was made by other code, or more images than the share `max_rejected`
    cannot be read; then nothing is committed.
    """
    plan = read(place)
    if plan.inputs["lobar"] != code_version():
        raise InputError(
            f"{place.plan}: planned by lobar {plan.inputs['lobar']}, this is {code_version()}; "
            "use the image that planned, or plan again with another --out"
        )
    images = plan.images(shard)
    inputs = {"plan": plan.digest, "shard": shard}
    record = records.already(place.shard_record(shard), inputs, "predict")
    if record is None:
        record = _predict(plan, shard, images, inputs, max_rejected)
    else:
        _check_share(dict(record["rejected"]), len(images), shard, max_rejected)
        log.info("shard %d is finished already", shard)
    return Done(record["rows"], record["with_boxes"], record["rejected"])


def _predict(
    plan: Plan, shard: int, images: list[Image], inputs: dict[str, Any], max_rejected: float
) -> dict[str, Any]:
    rejected: dict[str, str] = {}
    found = rows(plan, images, rejected, f"shard {shard}") if images else {}
    _check_share(rejected, len(images), shard, max_rejected)
    # the format wants a row for a rejected image too; the record says which are no finding but a rejection
    ordered = [(image.patient_id, found.get(image.patient_id, "")) for image in images]
    table = to_csv(HEADER, ordered)
    written = records.sha256(table)
    objects.publish(plan.place.shard_table(written), table)
    return records.commit(
        plan.place.shard_record(shard),
        inputs,
        table=written,
        rows=len(ordered),
        with_boxes=sum(bool(text) for _, text in ordered),
        rejected=[[patient_id, reason] for patient_id, reason in rejected.items()],
    )


def rows(plan: Plan, images: list[Image], rejected: dict[str, str], what: str) -> dict[str, str]:
    """The PredictionString of each image that can be read; the others are entered in `rejected`.

    Raises InputError where the model's files or the kind of CPU are not the planned ones.
    """
    point = OperatingPoint(**plan.inputs["operating_point"])
    opened = ENGINE_OF_DEVICE[plan.inputs["device"]]
    check_cpu(plan.inputs["precision"], plan.inputs["cpu_features"])
    engine: Engine = opened(Model(plan.inputs["model"]), plan.inputs["files"], plan.inputs["precision"])
    size, sampling = int(plan.options["image_size"]), Sampling(plan.options["sampling"])
    maps = engine.maps(loader.batches(images, size, sampling, engine.batch, rejected))
    pairs = (pair for keys, _, batch in maps for pair in zip(keys, batch, strict=True))
    return {
        image.patient_id: prediction_string(detect(probabilities, header.rows, header.columns, point))
        for (image, header), probabilities in console.progress(pairs, len(images), what)
    }


def _check_share(rejected: dict[str, str], images: int, shard: int, max_rejected: float) -> None:
    advice = f"more than --max-rejected {max_rejected:g} allows; fix them or raise it"
    loader.check_rejected(rejected, images, max_rejected, f"images of shard {shard}", advice)
