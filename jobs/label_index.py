"""label-index: label table x images (x groups) -> a dataset with its split."""

from typing import Annotated

import typer


def main(
    labels: Annotated[str, typer.Option(help="label CSV: patientId, x, y, width, height, Target")],
    images: Annotated[str, typer.Option(help="folder of DICOMs named ID.dcm")],
    out: Annotated[str, typer.Option(help="the dataset's folder")],
    groups: Annotated[
        str, typer.Option(help="CSV of patientId and group (the person); none: each id alone")
    ] = "",
    valid_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="share of the groups to validate on")
    ] = 0.1,
    max_rejected: Annotated[
        float, typer.Option(min=0, max=1, help="share of patients that may be rejected")
    ] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="of the split")] = 0,
    registry: Annotated[
        str, typer.Option(help="warn where the images are unlike those its champion was trained on")
    ] = "",
) -> None:
    from dataclasses import asdict

    from lobar.core.version import code_version
    from lobar.data import drift, listing
    from lobar.data import labels as tables
    from lobar.data.index import build, check_share, write
    from lobar.evaluation import compare
    from lobar.evaluation import registry as champions
    from lobar.storage import objects, records
    from lobar.storage.layout import Dataset, Registry

    place = Dataset(objects.absolute(out))
    label_table = objects.read(labels)
    group_table = objects.read(groups) if groups else None
    truth = tables.read_labels(label_table, labels)
    people = tables.read_groups(group_table, groups) if group_table is not None else None
    found, others = listing.list_images(images)
    inputs = {
        "labels": objects.absolute(labels),
        "labels_sha256": records.sha256(label_table),
        "images": objects.absolute(images),
        "groups": objects.absolute(groups) if groups else "",
        "groups_sha256": records.sha256(group_table) if group_table is not None else "",
        "valid_fraction": valid_fraction,
        "seed": seed,
        "lobar": code_version(),
    }
    index = build(truth, found, people, valid_fraction, seed)
    check_share(index.rejected, index.patients, max_rejected)
    used = [(exam.url, exam.bytes, exam.etag) for exam in index.exams]
    inputs["images_digest"] = records.digest([used, [str(rejection) for rejection in index.rejected], others])
    if records.already(place.manifest, inputs, "label-index"):
        print(f"dataset is complete already: {place.url}")
        return
    shifts: list[drift.Shift] = []
    champion = Registry(objects.absolute(registry))
    if registry and champions.has_champion(champion):
        model = champions.champion(champion)
        shifts = drift.between(index.exams, compare.exams_of(model))
        drift.warn(shifts, model.url)
    summary = write(place, index, inputs, others, [asdict(shift) for shift in shifts])
    print(f"dataset: {place.url}")
    for split in ("train", "valid"):
        side = summary[split]
        print(f"  {split}: {side['images']} images, {side['positive']} positive, {side['boxes']} boxes,"
              f" {side['groups']} groups")  # fmt: skip
    reasons = ", ".join(f"{reason} {count}" for reason, count in summary["rejected"].items())
    print(f"  rejected: {reasons or 'nothing'}; other objects: {summary['other_objects']}")
