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
    max_refused: Annotated[
        float, typer.Option(min=0, max=1, help="share of patients that may be refused")
    ] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="of the split")] = 0,
    registry: Annotated[
        str, typer.Option(help="warn where the images are unlike those its champion was trained on")
    ] = "",
) -> None:
    from dataclasses import asdict

    from lobar import artifacts, code_version, comparison, dataset, drift, listing, storage
    from lobar import labels as tables
    from lobar import registry as champions

    place = artifacts.Dataset(storage.absolute(out))
    label_table = storage.read(labels)
    group_table = storage.read(groups) if groups else None
    truth = tables.read_labels(label_table, labels)
    people = tables.read_groups(group_table, groups) if group_table is not None else None
    found, others = listing.list_images(images)
    inputs = {
        "labels": storage.absolute(labels),
        "labels_sha256": artifacts.sha256(label_table),
        "images": storage.absolute(images),
        "groups": storage.absolute(groups) if groups else "",
        "groups_sha256": artifacts.sha256(group_table) if group_table is not None else "",
        "valid_fraction": valid_fraction,
        "seed": seed,
        "lobar": code_version(),
    }
    index = dataset.build(truth, found, people, valid_fraction, seed)
    dataset.check_share(index.refused, index.patients, max_refused)
    used = [(exam.url, exam.bytes, exam.etag) for exam in index.exams]
    inputs["images_digest"] = artifacts.digest([used, [str(refusal) for refusal in index.refused], others])
    if artifacts.already(place.manifest, inputs, "label-index"):
        print(f"dataset is complete already: {place.url}")
        return
    shifts: list[drift.Shift] = []
    champion = artifacts.Registry(storage.absolute(registry))
    if registry and champions.has_champion(champion):
        model = champions.champion(champion)
        shifts = drift.between(index.exams, comparison.exams_of(model))
        drift.warn(shifts, model.url)
    summary = dataset.write(place, index, inputs, others, [asdict(shift) for shift in shifts])
    print(f"dataset: {place.url}")
    for split in ("train", "valid"):
        side = summary[split]
        print(f"  {split}: {side['images']} images, {side['positive']} positive, {side['boxes']} boxes,"
              f" {side['groups']} groups")  # fmt: skip
    reasons = ", ".join(f"{reason} {count}" for reason, count in summary["refused"].items())
    print(f"  refused: {reasons or 'nothing'}; other objects: {summary['other_objects']}")
