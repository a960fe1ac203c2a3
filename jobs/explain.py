"""explain: trace a row of a submission back to what made it, and compute it again."""

from typing import Annotated

import typer


def main(
    prediction: Annotated[str, typer.Option(help="the folder of the prediction")],
    patient_id: Annotated[str, typer.Option(help="whose row")],
    replay: Annotated[bool, typer.Option("--replay", help="compute the row again and compare")] = False,
) -> None:
    from lobar import artifacts, code_version, lineage, storage
    from lobar.errors import InputError

    found = lineage.trace(artifacts.Prediction(storage.absolute(prediction)), patient_id)
    made, image, training = found.plan.inputs, found.image.object, found.training["inputs"]
    print(f"{patient_id}: {_row(found.row, found.refused)}")
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
        row, refused = lineage.replay(found)
        same = (row, refused) == (found.row, found.refused)
        print(f"replayed by lobar {code_version()}: {'the same row' if same else _row(row, refused)}")
        if not same:
            was = _row(found.row, found.refused)
            raise InputError(f"{patient_id}: the row is another one, it was {was}; compare code and model")


def _row(row: str, refused: str | None) -> str:
    return f"refused: {refused}" if refused else row.strip() or "no box"


def _options(options: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items())
