"""explain: trace a row of a submission to what made it, or compute it again."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lobar.core.rejections import Rejection
    from lobar.inference.lineage import Lineage
    from lobar.inference.rows import Row


def main(
    prediction: Annotated[str, typer.Option(help="folder of the prediction")],
    patient_id: Annotated[str, typer.Option(help="patientId of the row")],
    replay: Annotated[bool, typer.Option("--replay", help="compute the row again and compare")] = False,
) -> None:
    from lobar.core.errors import InputError
    from lobar.core.version import code_version
    from lobar.inference import lineage
    from lobar.storage.layout import Prediction

    place = Prediction(prediction)
    origin = lineage.trace(place, patient_id)
    planned = origin.rejection or origin.row
    print(f"{patient_id}: {_text(planned)}")
    image = origin.image.object
    print(f"  image: {image.url}, {image.bytes} bytes, etag {image.etag}")
    try:
        print(f"    unchanged since the plan, SHA-256 {lineage.image_sha256(origin)}")
    except InputError as error:
        print(f"    not the planned one: {error}")
    _print_origin(origin, place.url)
    if replay:
        result = lineage.replay(origin)
        same = result == planned
        print(f"replayed by lobar {code_version()}: {'the same row' if same else _text(result)}")
        if not same:
            on_gpu = origin.plan.inputs.device == "gpu"
            raise InputError(
                f"{patient_id}: the row differs, it was {_text(planned)}; compare code and model"
                + (", and the kind of GPU and its driver: others round in another way" if on_gpu else "")
            )


def _print_origin(origin: "Lineage", prediction: str) -> None:
    from lobar.evaluation.record import Evaluation
    from lobar.storage import records
    from lobar.storage.layout import Model

    plan, training, dataset = origin.plan.inputs, origin.training.inputs, origin.dataset.inputs
    print(f"  shard {origin.number} of {plan.shards}: {prediction}")
    first: Lineage | None = origin
    while first and first.reused_from:
        reused_from, first = first.reused_from, first.source
        where = f"shard {first.number} of {first.plan.inputs.shards}" if first else "removed since"
        print(f"    the row was taken from {reused_from}, {where}")
    when = f"{first.shard.created} " if first else ""
    print(f"    predicted {when}by lobar {plan.lobar}, in {plan.precision} on the {plan.device}")
    tuned_for = "; tuned for float32 on a CPU" if plan.device == "gpu" else ""
    print(f"  operating point: {_fields(plan.operating_point)}{tuned_for}")
    print(f"  model: {plan.model}, trained {origin.training.created} by lobar {training.lobar}")
    print(f"    {_fields(training.recipe)}, seed {training.seed}")
    evaluation = records.read(Model(plan.model).evaluation, Evaluation)
    print(f"    challenge metric {evaluation.systems['tuned']} on {evaluation.images} validation images")
    print(f"  dataset: {training.dataset}, index SHA-256 {training.index}")
    print(f"    labels: {dataset.labels}, SHA-256 {dataset.labels_sha256}")
    print(f"    images: {dataset.images}")


def _text(row: "Row | Rejection") -> str:
    from lobar.core.rejections import Rejection

    if isinstance(row, Rejection):
        return f"rejected: {row.reason}"
    return row.prediction_string.strip() or "no box"


def _fields(value: object) -> str:
    return ", ".join(f"{name} {field}" for name, field in asdict(value).items())  # type: ignore[call-overload]
