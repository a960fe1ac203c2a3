"""One shard of a plan: images -> boxes -> a table of rows, committed by one record."""

import logging
from dataclasses import dataclass
from typing import Any

from lobar import artifacts, code_version, console, storage, stream
from lobar.artifacts import Model, Prediction
from lobar.detect import OperatingPoint, detect
from lobar.dicom import Sampling
from lobar.engines import ENGINE_OF_DEVICE, Engine, check_cpu
from lobar.errors import InputError
from lobar.listing import Image
from lobar.plan import Plan, read
from lobar.submission import HEADER, prediction_string, to_csv

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Done:
    """What a shard's record says: its rows, those with a box, and the refused ones with their reasons."""

    rows: int
    with_boxes: int
    refused: list[list[str]]


def run(place: Prediction, shard: int, max_refused: float) -> Done:
    """Predict one shard and commit it; a shard that this plan has finished already is left as it is.

    Raises InputError where the plan was made by other code, or more images than the share `max_refused`
    cannot be read; then nothing is committed.
    """
    plan = read(place)
    if plan.inputs["lobar"] != code_version():
        raise InputError(
            f"{place.plan}: planned by lobar {plan.inputs['lobar']}, this is {code_version()}; "
            "use the image that planned, or plan anew with another --out"
        )
    images = plan.images(shard)
    inputs = {"plan": plan.digest, "shard": shard}
    record = artifacts.already(place.shard_record(shard), inputs, "predict")
    if record is None:
        record = _predict(plan, shard, images, inputs, max_refused)
    else:
        _check_share(dict(record["refused"]), len(images), shard, max_refused)
        log.info("shard %d is finished already", shard)
    return Done(record["rows"], record["with_boxes"], record["refused"])


def _predict(
    plan: Plan, shard: int, images: list[Image], inputs: dict[str, Any], max_refused: float
) -> dict[str, Any]:
    refused: dict[str, str] = {}
    found = rows(plan, images, refused, f"shard {shard}") if images else {}
    _check_share(refused, len(images), shard, max_refused)
    # the format wants a row for a refused image too; the record says which are no finding but a refusal
    ordered = [(image.patient_id, found.get(image.patient_id, "")) for image in images]
    table = to_csv(HEADER, ordered)
    written = artifacts.sha256(table)
    storage.publish(plan.place.shard_table(written), table)
    return artifacts.commit(
        plan.place.shard_record(shard),
        inputs,
        table=written,
        rows=len(ordered),
        with_boxes=sum(bool(text) for _, text in ordered),
        refused=[[patient_id, reason] for patient_id, reason in refused.items()],
    )


def rows(plan: Plan, images: list[Image], refused: dict[str, str], what: str) -> dict[str, str]:
    """The PredictionString of each image that can be read; the others are entered in `refused`.

    Raises InputError where the model's files or the kind of CPU are not the planned ones.
    """
    point = OperatingPoint(**plan.inputs["operating_point"])
    opened = ENGINE_OF_DEVICE[plan.inputs["device"]]
    check_cpu(plan.inputs["precision"], plan.inputs["cpu_features"])
    engine: Engine = opened(Model(plan.inputs["model"]), plan.inputs["files"], plan.inputs["precision"])
    size, sampling = int(plan.options["image_size"]), Sampling(plan.options["sampling"])
    maps = engine.maps(stream.batches(images, size, sampling, engine.batch, refused))
    pairs = (pair for keys, _, batch in maps for pair in zip(keys, batch, strict=True))
    return {
        image.patient_id: prediction_string(detect(probabilities, header.rows, header.columns, point))
        for (image, header), probabilities in console.progress(pairs, len(images), what)
    }


def _check_share(refused: dict[str, str], images: int, shard: int, max_refused: float) -> None:
    advice = f"more than --max-refused {max_refused:g} allows; mend them or raise it"
    stream.check_refused(refused, images, max_refused, f"images of shard {shard}", advice)
