"""Label table x images (x groups) -> index with its split, and the list of what was rejected."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from lobar.core import console
from lobar.core.boxes import Box
from lobar.core.concurrency import ordered_map
from lobar.core.errors import InputError, LobarError
from lobar.data.labels import Rejection
from lobar.data.listing import Image
from lobar.imaging import dicom
from lobar.storage import objects, records
from lobar.storage.layout import Dataset

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Exam:
    """One image of the index: where it lies, its size in pixels, its truth, its group and its side."""

    patient_id: str
    url: str
    etag: str
    bytes: int
    rows: int
    columns: int
    view: str
    boxes: tuple[Box, ...]
    target: int
    group: str
    split: str

    @property
    def object(self) -> objects.Object:
        return objects.Object(self.url, self.bytes, self.etag)


def split_of(group: str, valid_fraction: float, seed: int) -> str:
    """`valid` or `train`, from the group alone, so that nobody changes side as the data grow."""
    point = int.from_bytes(hashlib.sha256(f"{seed}:{group}".encode()).digest()[:8]) / 2**64
    return "valid" if point < valid_fraction else "train"


@dataclass(frozen=True)
class Index:
    """The exams that can be used, in order, and what was left out of `patients` ids in all."""

    exams: list[Exam]
    rejected: list[Rejection]
    patients: int


def build(
    labels: tuple[dict[str, list[Box]], list[Rejection]],
    images: list[Image],
    groups: dict[str, str] | None,
    valid_fraction: float,
    seed: int,
) -> Index:
    """Join truth (from read_labels), images and groups into an index; headers are read from the store."""
    truth, rejected = labels[0], list(labels[1])
    bad_rows = {rejection.patient_id for rejection in rejected}
    usable, unmatched = _match(truth, [i for i in images if i.patient_id not in bad_rows], groups)
    rejected += unmatched
    exams = []
    starts = objects.read_many((image.object for image in usable), first=dicom.HEADER_BYTES)
    pairs = zip(usable, starts, strict=True)
    read = ordered_map(lambda pair: _header(pair[0], pair[1][1]), pairs, objects.READERS, 2 * objects.READERS)
    for image, found in console.progress(zip(usable, read, strict=True), len(usable), "headers"):
        if isinstance(found, Rejection):
            rejected.append(found)
            continue
        item, size = found
        boxes = truth[image.patient_id]
        if leaving := next((box for box in boxes if not box.inside(size.rows, size.columns)), None):
            where = (
                f"{leaving.x} {leaving.y} {leaving.width} {leaving.height} in {size.columns} x {size.rows}"
            )
            rejected.append(Rejection(image.patient_id, item.url, "a box outside the image", where))
            continue
        group = groups[image.patient_id] if groups is not None else image.patient_id
        exams.append(
            Exam(
                image.patient_id, item.url, item.etag, item.bytes, size.rows, size.columns, size.view,
                tuple(boxes), int(bool(boxes)), group, split_of(group, valid_fraction, seed),
            )
        )  # fmt: skip
    return Index(exams, rejected, len({*truth, *bad_rows, *(image.patient_id for image in images)}))


def _header(image: Image, start: bytes | LobarError) -> tuple[objects.Object, dicom.Header] | Rejection:
    if isinstance(start, LobarError):
        raise start
    url = image.object.url
    if not start:
        return Rejection(image.patient_id, url, "unreadable image", "an empty file")
    if image.object.bytes > dicom.LARGEST_FILE:
        return Rejection(image.patient_id, url, "unreadable image", dicom.TOO_LARGE)
    try:
        try:
            found = dicom.header(start)
        except dicom.RejectedImage:
            # the header may only be longer; what all bytes say decides
            found = dicom.header(objects.read(url))
    except dicom.RejectedImage as error:
        return Rejection(image.patient_id, url, "unreadable image", str(error))
    return objects.with_etag(image.object), found


def _match(
    truth: dict[str, list[Box]], images: list[Image], groups: dict[str, str] | None
) -> tuple[list[Image], list[Rejection]]:
    """The images with a label and a group, and a rejection for each patient that lacks one of the three."""
    by_id: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        by_id[image.patient_id].append(image)
    kept, rejected = [], []
    for patient, found in by_id.items():
        url = found[0].object.url
        if len(found) > 1:
            rejected.append(Rejection(patient, url, "two images of one name", found[1].object.url))
        elif patient not in truth:
            rejected.append(Rejection(patient, url, "image without label"))
        elif groups is not None and patient not in groups:
            rejected.append(Rejection(patient, url, "not in the groups table"))
        else:
            kept.append(found[0])
    absent = (patient for patient in truth if patient not in by_id)
    rejected += [Rejection(patient, "label table", "label without image") for patient in absent]
    return kept, rejected


def counts(rejected: Iterable[Rejection]) -> dict[str, int]:
    """How many patients were rejected for each reason, the most frequent first."""
    return dict(Counter(rejection.reason for rejection in rejected).most_common())


def check_share(rejected: list[Rejection], patients: int, max_rejected: float) -> None:
    """Raise InputError, with counts and examples, where more than the share `max_rejected` was rejected."""
    if len(rejected) > max_rejected * patients:
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts(rejected).items())
        examples = "; ".join(str(rejection) for rejection in rejected[:3])
        raise InputError(
            f"{len(rejected)} of {patients} patients rejected ({reasons}), more than --max-rejected "
            f"{max_rejected:g} allows; fix them or raise it. For example {examples}"
        )


def write(
    dataset: Dataset,
    index: Index,
    inputs: dict[str, Any],
    other_objects: list[str],
    drift: list[dict[str, Any]],
) -> dict[str, Any]:
    """Put index and summary, commit the manifest, and return the summary's counts.

    drift is put into the summary: how the images lie to those that the champion was trained on.

    Raises InputError where one side of the split has no image.
    """
    summary = {
        "patients": index.patients,
        "rejected": counts(index.rejected),
        "other_objects": len(other_objects),
        "drift": drift,
    }
    for split in ("train", "valid"):
        side = [exam for exam in index.exams if exam.split == split]
        if not side:
            raise InputError(
                f"no image in the {split} split: {len(index.exams)} images at --valid-fraction "
                f"{inputs['valid_fraction']:g} and --seed {inputs['seed']}; change one of them"
            )
        summary[split] = {
            "images": len(side),
            "positive": sum(exam.target for exam in side),
            "boxes": sum(len(exam.boxes) for exam in side),
            "groups": len({exam.group for exam in side}),
            "views": dict(sorted(Counter(exam.view or "unknown" for exam in side).items())),
        }
    written = records.write_table(dataset.index, _to_table(index.exams))
    lists = {
        "rejected_patients": [asdict(rejection) for rejection in index.rejected],
        "others": other_objects,
    }
    records.write_json(dataset.summary, {**summary, **lists})
    records.commit(dataset.manifest, inputs, index=written)
    return summary


def _to_table(exams: list[Exam]) -> "pa.Table":
    import pyarrow as pa

    box = pa.struct([(side, pa.int32()) for side in ("x", "y", "width", "height")])
    types = {
        "bytes": pa.int64(),
        "rows": pa.int32(),
        "columns": pa.int32(),
        "boxes": pa.list_(box),
        "target": pa.int8(),
    }
    schema = pa.schema([(field.name, types.get(field.name, pa.string())) for field in fields(Exam)])
    return pa.Table.from_pylist([asdict(exam) for exam in exams], schema)


def read_index(dataset: Dataset, split: str | None = None) -> list[Exam]:
    """The exams of a committed dataset in their fixed order, or those of one side.

    Raises InputError where the dataset is not complete, was altered, or has no image on that side.
    """
    manifest = records.read_record(dataset.manifest, "label-index")
    table = records.read_table(dataset.index, manifest["index"])
    exams = [
        Exam(**{**row, "boxes": tuple(Box(**box) for box in row["boxes"])})
        for row in table.to_pylist()
        if split in (None, row["split"])
    ]
    if not exams:
        raise InputError(
            f"{dataset.url}: no image in the {split} split; make the dataset with another --valid-fraction"
        )
    return exams
