"""label-index: join label table, images and groups into a dataset with its split."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from jobs.options import AnyBodyPart

if TYPE_CHECKING:
    from lobar.data.record import Manifest


def main(
    labels: Annotated[str, typer.Option(help="label CSV: patientId, x, y, width, height, Target")],
    images: Annotated[str, typer.Option(help="folder of DICOM images named ID.dcm")],
    out: Annotated[str, typer.Option(help="folder of the new dataset")],
    groups: Annotated[
        str, typer.Option(help="CSV: patientId, group (the patient); empty: each id is its own group")
    ] = "",
    valid_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="share of the groups in the validation split")
    ] = 0.1,
    max_rejected: Annotated[
        float, typer.Option(min=0, max=1, help="share of patients that may be rejected")
    ] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="random seed of the split and of the training")] = 0,
    any_body_part: AnyBodyPart = False,
    registry: Annotated[
        str,
        typer.Option(help="registry; warn if the images differ from those that its champion was trained on"),
    ] = "",
    recipe: Annotated[
        str, typer.Option(help="recipe of the training that follows: says whether it would be a repetition")
    ] = "",
    changes: Annotated[
        str, typer.Option("--set", help="fields of the recipe to change: key=value,key=value")
    ] = "",
    training: Annotated[
        Literal["if-changed", "always"],
        typer.Option(
            help="if-changed: not needed if it would repeat that of the registry's newest challenger"
        ),
    ] = "if-changed",
    figures: Annotated[
        str, typer.Option(help="folder for a file that contains only 1 (training needed) or 0")
    ] = "",
) -> None:
    from jobs import figures as outputs
    from lobar.data import index
    from lobar.data.record import Manifest, Source
    from lobar.evaluation.registry import drift_from_champion, skip_unchanged
    from lobar.storage import records
    from lobar.storage.layout import Dataset, Registry
    from lobar.storage.objects import absolute
    from lobar.training import recipe as recipes
    from lobar.training.record import inputs_of

    chosen = recipes.load(recipe, changes) if recipe else None  # a wrong recipe ends here, without a GPU
    tables = absolute(labels), absolute(images), absolute(groups) if groups else ""
    source = Source(*tables, valid_fraction, seed, any_body_part=any_body_part)
    dataset = Dataset(out)
    built = index.build(source, max_rejected)
    manifest = records.find(dataset.manifest, Manifest, built.inputs)
    if manifest:
        print(f"dataset is complete already: {dataset.url}")
    else:
        shifts = drift_from_champion(Registry(registry), built.exams) if registry else []
        manifest = index.write(dataset, built, shifts)
        print(f"dataset: {dataset.url}")
    _print(manifest)
    skipped = None
    if registry and chosen and training == "if-changed":
        skipped = skip_unchanged(Registry(registry), inputs_of(dataset, chosen, seed))
    if skipped:
        print(f"{skipped.reason}\nrecord: {Registry(registry).record(skipped.number)}")
    outputs.write(figures, {"training-needed": int(skipped is None)})


def _print(manifest: "Manifest") -> None:
    from lobar.core import rejections

    for name, split in (("train", manifest.train), ("valid", manifest.valid)):
        counts = f"{split.images} images, {split.positive} positive, {split.boxes} boxes"
        print(f"  {name}: {counts}, {split.groups} groups")
    reasons = ", ".join(f"{reason} {n}" for reason, n in rejections.counts(manifest.rejected).items())
    others = manifest.other_objects
    named = f" ({', '.join(others[:3])})" if others else ""
    print(f"  rejected: {reasons or 'nothing'}; other objects: {len(others)}{named}")
