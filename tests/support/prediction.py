"""A finished prediction over any images, with the rows that a test gives, and its export."""

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lobar.core.boxes import Box
from lobar.core.rejections import Rejection
from lobar.data import listing
from lobar.inference import slices, submission
from lobar.inference.record import Plan, PlanInputs, Shard, ShardInputs
from lobar.inference.release import NOTEBOOK
from lobar.inference.rows import Row, to_csv
from lobar.inference.writers import export
from lobar.storage import objects, records
from lobar.storage.layout import Prediction
from lobar.training import recipe
from lobar.training.record import ModelFiles
from tests.conftest import Run
from tests.support.radiographs import radiograph

INPUTS = PlanInputs(
    images="", images_digest="", count=0, shards=1, model="m",
    files=ModelFiles(*(letter * 64 for letter in "abcde")), recipe=recipe.load("demo"),
    operating_point=NOTEBOOK, device="cpu", precision="int8", cpu_features=[], lobar="0.1.0+0123456789ab",
)  # fmt: skip
FOUND: dict[str, list[Box] | None] = {
    "a": [Box(3, 4, 20, 30, 0.5)], "b": [], "c": [Box(1, 2, 30, 40, 0.75), Box(40, 50, 20, 40, 0.123456)],
    "d": None, "e": [], "f": [Box(0, 0, 64, 96, 1.0)], "g": [],
}  # fmt: skip
REPORTED = [name for name, boxes in FOUND.items() if boxes is not None]


def write_images(folder: Path, **images: bytes) -> Path:
    """The images of FOUND, some of them replaced."""
    folder.mkdir()
    for name in FOUND:
        (folder / f"{name}.dcm").write_bytes(images.get(name, radiograph(name)))
    return folder


def finish(
    images: Path, out: Path, found: Mapping[str, list[Box] | None], shards: int = 1, merge: bool = True
) -> Prediction:
    """Plan the images of a folder and commit their rows: boxes by id, None for a rejected image."""
    place = Prediction(str(out))
    listed = [
        listing.Image(image.patient_id, objects.with_etag(image.object))
        for image in listing.list_images(str(images))[0]
    ]
    assert {image.patient_id for image in listed} == {*found}
    inputs = replace(INPUTS, images=objects.absolute(str(images)), count=len(listed), shards=shards)
    parts = slices.cut(len(listed), shards)
    tables = [slices.put(place, [slices.Planned(listed[i]) for i in part]) for part in parts]
    plan = records.create(place.plan, Plan(inputs=inputs, slices=tables, other_objects=[], drift=[]))
    for number, part in enumerate(parts):
        ids = [listed[i].patient_id for i in part]
        rows = [Row.of(image_id, found[image_id] or []) for image_id in ids]
        shard = Shard(
            inputs=ShardInputs(plan.digest, number),
            table=records.put(place.shard_table, to_csv(rows)),
            rows=len(rows),
            with_boxes=sum(bool(row.prediction_string) for row in rows),
            rejected=[Rejection(image_id, "", "unreadable") for image_id in ids if found[image_id] is None],
        )
        records.create(place.shard_record(number), shard)
    if merge:
        submission.merge(place, None)
    return place


def run_all(run: Run, place: Prediction, to: object, shards: int = 2) -> list[tuple[int, str, str]]:
    return [run("export", "--prediction", place.url, "--to", to, "--shard", k) for k in range(shards)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def listed_reports(place: Prediction, to: str) -> list[list[str]]:
    """The lines of the lists of all reports that went to a destination."""
    files = [
        item.url for item in objects.list_objects(export.folder(place, to).url) if item.url.endswith(".csv")
    ]
    tables = [list(csv.reader(io.StringIO(objects.read(url).decode()))) for url in files]
    assert all(table[0] == [*export.COLUMNS] for table in tables)
    return sorted(line for table in tables for line in table[1:])
