"""Label table x images (x groups) to an index with its split, and the list of what was rejected."""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

import msgspec

from lobar.core import console
from lobar.core.boxes import Box
from lobar.core.concurrency import ordered_map
from lobar.core.errors import InputError, LobarError
from lobar.core.rejections import Rejection, check_share
from lobar.core.version import code_version
from lobar.data import listing
from lobar.data.listing import Image
from lobar.data.record import IndexInputs, Manifest, Shift, Source, SplitCounts
from lobar.imaging import dicom
from lobar.storage import objects, records, tables
from lobar.storage.layout import Dataset

if TYPE_CHECKING:
    import pyarrow as pa

    from lobar.data.labels import Labels

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Exam:
    """One image of the index: its object, its size in pixels, its truth, its group, and its split."""

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


@dataclass(frozen=True)
class Index:
    """The exams that can be used, in order, what was left out of `patients` ids in all, and its inputs."""

    exams: list[Exam]
    rejected: list[Rejection]
    patients: int
    other_objects: list[str]
    inputs: IndexInputs


def split_of(group: str, valid_fraction: float, seed: int) -> str:
    """`valid` or `train`, from the group alone, so that no patient changes its split as the data grow."""
    point = int.from_bytes(hashlib.sha256(f"{seed}:{group}".encode()).digest()[:8]) / 2**64
    return "valid" if point < valid_fraction else "train"


def build(source: Source, max_rejected: float) -> Index:
    """Join label table, images and groups into an index; of the images, only headers are read.

    Raises InputError if more than the share `max_rejected` of the patients is rejected.
    """
    from lobar.data import labels  # it needs pandas, which jobs that only read an index do without

    label_table = objects.read(source.labels)
    group_table = objects.read(source.groups) if source.groups else b""
    truth = labels.read_labels(label_table, source.labels)
    groups = labels.read_groups(group_table, source.groups) if source.groups else None
    images, other_objects = listing.list_images(source.images)
    bad_ids = {rejection.patient_id for rejection in truth.rejected}
    usable, rejected = _match(truth, [image for image in images if image.patient_id not in bad_ids], groups)
    rejected = [*truth.rejected, *rejected]
    exams = []
    for exam in _exams(usable, truth, groups, source):
        if isinstance(exam, Rejection):
            rejected.append(exam)
        else:
            exams.append(exam)
    patients = len({*truth, *bad_ids, *(image.patient_id for image in images)})
    check_share(rejected, patients, max_rejected, "patients")
    used = [(exam.url, exam.bytes, exam.etag) for exam in exams]
    inputs = IndexInputs(
        **asdict(source),
        labels_sha256=records.sha256(label_table),
        groups_sha256=records.sha256(group_table) if source.groups else "",
        images_digest=records.digest([used, [str(rejection) for rejection in rejected], other_objects]),
        lobar=code_version(),
    )
    return Index(exams, rejected, patients, other_objects, inputs)


def _match(
    truth: "Labels", images: list[Image], groups: dict[str, str] | None
) -> tuple[list[Image], list[Rejection]]:
    """The images with a label and a group, and a rejection for each patient that lacks one of the three."""
    by_id: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        by_id[image.patient_id].append(image)
    kept, rejected = [], []
    for patient_id, of_patient in by_id.items():
        url = of_patient[0].object.url
        if len(of_patient) > 1:
            rejected.append(Rejection(patient_id, url, "two images of one name", of_patient[1].object.url))
        elif patient_id not in truth:
            rejected.append(Rejection(patient_id, url, "image without label"))
        elif groups is not None and patient_id not in groups:
            rejected.append(Rejection(patient_id, url, "not in the groups table"))
        else:
            kept.append(of_patient[0])
    without_image = (patient_id for patient_id in truth if patient_id not in by_id)
    rejected += [Rejection(patient_id, "label table", "label without image") for patient_id in without_image]
    return kept, rejected


def _exams(
    images: list[Image], truth: "Labels", groups: dict[str, str] | None, source: Source
) -> Iterator[Exam | Rejection]:
    """The exam of each image, or why it cannot be used; headers are read from the store, many at once."""
    starts = objects.read_many((image.object for image in images), first=dicom.HEADER_BYTES)
    headers = ordered_map(
        lambda pair: _header(pair[0], pair[1][1], source.any_body_part),
        zip(images, starts, strict=True),
        objects.READERS,
        2 * objects.READERS,
    )
    pairs = zip(images, headers, strict=True)
    for image, result in console.progress(pairs, len(images), "headers"):
        if isinstance(result, Rejection):
            yield result
            continue
        item, header = result
        boxes = truth[image.patient_id]
        outside = next((box for box in boxes if not box.inside(header.rows, header.columns)), None)
        if outside:
            box = f"{outside.x} {outside.y} {outside.width} {outside.height}"
            size = f"{header.columns} x {header.rows}"
            yield Rejection(image.patient_id, image.object.url, "a box outside the image", f"{box} in {size}")
            continue
        group = groups[image.patient_id] if groups is not None else image.patient_id
        yield Exam(
            image.patient_id, item.url, item.etag, item.bytes, header.rows, header.columns, header.view,
            boxes, int(bool(boxes)), group, split_of(group, source.valid_fraction, source.seed),
        )  # fmt: skip


def _header(
    image: Image, start: bytes | LobarError, any_body_part: bool
) -> tuple[objects.Object, dicom.Header] | Rejection:
    """The image's object with its etag, and its header, of which `start` is the beginning."""
    if isinstance(start, LobarError):
        raise start
    url = image.object.url
    if not start:
        return Rejection(image.patient_id, url, "unreadable image", "an empty file")
    if image.object.bytes > dicom.LARGEST_FILE:
        return Rejection(image.patient_id, url, "unreadable image", dicom.TOO_LARGE)
    try:
        try:
            header = dicom.header(start, any_body_part)
        except dicom.RejectedImage:
            # the header may be longer than `start`: read the whole file
            header = dicom.header(objects.read(url), any_body_part)
    except dicom.RejectedImage as error:
        return Rejection(image.patient_id, url, "unreadable image", str(error))
    return objects.with_etag(image.object), header


def write(dataset: Dataset, index: Index, drift: list[Shift]) -> Manifest:
    """Put an index, commit its manifest, and return that. `drift` compares its images with the champion's.

    Raises InputError if a split has no image.
    """
    table = tables.encode(_to_table(index.exams))
    manifest = Manifest(
        inputs=index.inputs,
        index=records.put(dataset.index, table),
        train=_counts(index, "train"),
        valid=_counts(index, "valid"),
        patients=index.patients,
        rejected=index.rejected,
        other_objects=index.other_objects,
        drift=drift,
    )
    if not manifest.train.positive:
        log.warning("no image of the train split is positive: a network can only learn to find nothing")
    if not manifest.valid.positive:
        log.warning("no image of the valid split is positive: no model can be tuned or judged on it")
    return records.create(dataset.manifest, manifest)


def _counts(index: Index, split: str) -> SplitCounts:
    exams = [exam for exam in index.exams if exam.split == split]
    if not exams:
        raise InputError(
            f"no image in the {split} split: {len(index.exams)} images with valid_fraction "
            f"{index.inputs.valid_fraction:g} and seed {index.inputs.seed}; change one of them",
            setting="valid_fraction",
        )
    return SplitCounts(
        images=len(exams),
        positive=sum(exam.target for exam in exams),
        boxes=sum(len(exam.boxes) for exam in exams),
        groups=len({exam.group for exam in exams}),
        views=dict(sorted(Counter(exam.view or "unknown" for exam in exams).items())),
    )


def _to_table(exams: list[Exam]) -> "pa.Table":
    import pyarrow as pa

    box = pa.struct([(name, pa.int32()) for name in ("x", "y", "width", "height")])
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
    """The exams of a committed dataset in their fixed order, or those of one split.

    Raises InputError if the dataset is not complete, was altered, or has no image in that split.
    """
    manifest = records.read(dataset.manifest, Manifest)
    table = tables.decode(records.get(dataset.index, manifest.index))
    rows = [row for row in table.to_pylist() if split in (None, row["split"])]
    exams = msgspec.convert(rows, list[Exam])
    if not exams:
        raise InputError(f"{dataset.url}: no image in the {split} split; make the dataset with another split")
    return exams
