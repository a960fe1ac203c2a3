"""label-index: join label table, images and groups into a dataset with its split."""

from typing import Annotated

import typer


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
    seed: Annotated[int, typer.Option(min=0, help="random seed of the split")] = 0,
    any_body_part: Annotated[
        bool,
        typer.Option(
            "--any-body-part/--only-chests",
            help="read radiographs of any body part and modality in their headers, or only chests",
        ),
    ] = False,
    registry: Annotated[
        str,
        typer.Option(help="registry; warn if the images differ from those that its champion was trained on"),
    ] = "",
) -> None:
    from lobar.core import rejections
    from lobar.data import index
    from lobar.data.record import Manifest, Source
    from lobar.evaluation.registry import drift_from_champion
    from lobar.storage import records
    from lobar.storage.layout import Dataset, Registry
    from lobar.storage.objects import absolute

    tables = absolute(labels), absolute(images), absolute(groups) if groups else ""
    source = Source(*tables, valid_fraction, seed, any_body_part=any_body_part)
    dataset = Dataset(out)
    built = index.build(source, max_rejected)
    if records.find(dataset.manifest, Manifest, built.inputs):
        print(f"dataset is complete already: {dataset.url}")
        return
    shifts = drift_from_champion(Registry(registry), built.exams) if registry else []
    manifest = index.write(dataset, built, shifts)
    print(f"dataset: {dataset.url}")
    for name, split in (("train", manifest.train), ("valid", manifest.valid)):
        counts = f"{split.images} images, {split.positive} positive, {split.boxes} boxes"
        print(f"  {name}: {counts}, {split.groups} groups")
    reasons = ", ".join(f"{reason} {n}" for reason, n in rejections.counts(manifest.rejected).items())
    print(f"  rejected: {reasons or 'nothing'}; other objects: {len(manifest.other_objects)}")
