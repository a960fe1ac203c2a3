"""explain: trace a row of a submission back to what made it, and compute it again."""

from typing import Annotated

import typer


def main(
    prediction: Annotated[str, typer.Option(help="the folder of the prediction")],
    patient_id: Annotated[str, typer.Option(help="whose row")],
    replay: Annotated[bool, typer.Option("--replay", help="compute the row again and compare")] = False,
) -> None:
    from lobar.core.errors import InputError
    from lobar.core.version import code_version
    from lobar.inference import lineage
    from lobar.storage import objects
    from lobar.storage.layout import Prediction

    found = lineage.trace(Prediction(objects.absolute(prediction)), patient_id)
    made, image, training = found.plan.inputs, found.image.object, found.training["inputs"]
    print(f"{patient_id}: {_row(found.row, found.rejected)}")
    print(f"  image: {image.url}, {image.bytes} bytes, etag {image.etag}")
    try:
        print(f"    unchanged since the plan, SHA-256 {lineage.image_sha256(found)}")
    except InputError as error:
        print(f"    not the planned one: {error}")
    print(f"  shard {found.shard} of {made['shards']}: {found.plan.place.url}")
    print(f"    predicted {found.record['created']} by lobar {made['lobar']},"
          f" in {made['precision']} on the {made['device']}")  # fmt: skip
    print(f"  operating point: {_options(made['operating_point'])}")
    print(f"  model: {made['model']}, trained {found.training['created']} by lobar {training['lobar']}")
    print(f"    {_options(training['options'])}")
    metric = found.evaluation["systems"]["tuned"]["metric"]
    print(f"    challenge metric {metric:.3f} on {found.evaluation['images']} validation images"
          if metric is not None else "    no validation image counted")  # fmt: skip
    print(f"  dataset: {training['dataset']}, index SHA-256 {training['index']}")
    print(
        f"    labels: {found.dataset['inputs']['labels']}, SHA-256 {found.dataset['inputs']['labels_sha256']}"
    )
    print(f"    images: {found.dataset['inputs']['images']}")
    if replay:
        row, rejected = lineage.replay(found)
        same = (row, rejected) == (found.row, found.rejected)
        print(f"replayed by lobar {code_version()}: {'the same row' if same else _row(row, rejected)}")
        if not same:
            was = _row(found.row, found.rejected)
            raise InputError(f"{patient_id}: the row is another one, it was {was}; compare code and model")


def _row(row: str, rejected: str | None) -> str:
    return f"rejected: {rejected}" if rejected else row.strip() or "no box"


def _options(options: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items())
