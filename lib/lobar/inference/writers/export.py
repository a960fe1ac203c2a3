"""One shard of a merged prediction as DICOM structured reports, in a folder or on a DICOMweb server."""

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lobar.core import console
from lobar.core.concurrency import ordered_map
from lobar.core.errors import InputError, LobarError, OutsideError
from lobar.core.rejections import Rejection, check_share
from lobar.data.listing import Image
from lobar.imaging.elements import RejectedImage
from lobar.inference import submission
from lobar.inference.record import ExportedShard, ExportInputs, Submission
from lobar.inference.rows import parse_prediction_string, table
from lobar.inference.writers import dicomweb, source
from lobar.inference.writers.structured_report import Writer
from lobar.storage import objects, records
from lobar.storage.layout import Export, Prediction

WORKERS = 16
BATCH_BYTES = 1 << 20  # of one request to a server: about a hundred reports
COLUMNS = ("patientId", "SOPInstanceUID", "SHA256")
NAMED = 5
ELSEWHERE = "choose another destination, or restore the submission"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Written:
    """A report in a file, the image that it belongs to, and its number of boxes."""

    image_id: str
    uid: str
    file: Path
    bytes: int
    sha256: str
    boxes: int


def run(place: Prediction, to: str, number: int, max_rejected: float) -> ExportedShard:
    """Deliver the reports of one shard and commit it; a shard that is exported already is left as it is.

    Every report is made before the first one is delivered. Raises InputError if the prediction is not merged,
    two images are one instance, more than the share `max_rejected` of the images cannot be referred to, or
    a different object has the name of a report; OutsideError naming the reports that a server did not store.
    """
    merged = records.read(place.submission_record, Submission)
    target = destination(to)
    record = folder(place, to).shard_record(number)
    inputs = ExportInputs(merged.submission, number, target)
    what = f"images of shard {number}"
    if exported := records.find(record, ExportedShard, inputs, ELSEWHERE):
        check_share(exported.without_report, exported.rows, max_rejected, what)
        log.info("shard %d is exported already", number)
        return exported
    deliver = _delivery(target)
    rows = submission.merged_rows(place, number)
    predicted = [(image, text) for image, text in rows if text is not None]
    written: list[Written] = []
    without_report: list[Rejection] = []
    with tempfile.TemporaryDirectory() as scratch:
        made = _write(Writer(merged.plan), predicted, Path(scratch))
        for result in console.progress(made, len(predicted), f"reports of shard {number}"):
            if isinstance(result, Rejection):
                without_report.append(result)
            else:
                written.append(result)
        check_share(without_report, len(rows), max_rejected, what)
        deliver(written)
    lines = [(item.image_id, item.uid, item.sha256) for item in written]
    exported = ExportedShard(
        inputs=inputs,
        table=records.put(folder(place, to).reports, table(COLUMNS, lines)),
        rows=len(rows),
        reports=len(written),
        with_boxes=sum(item.boxes > 0 for item in written),
        rejected=len(rows) - len(predicted),
        without_report=without_report,
    )
    return records.create(record, exported, ELSEWHERE)


def destination(to: str) -> str:
    """The URL of a folder or of a DICOMweb server. Raises InputError for what can be neither."""
    if to.startswith(dicomweb.PREFIX):
        return to.rstrip("/")
    if to.startswith(("https://", "http://")):
        raise InputError(f"{to}: for a DICOMweb server, give {dicomweb.PREFIX}{to}", setting="to")
    if not to:
        raise InputError("the destination is empty; give a folder or a DICOMweb server", setting="to")
    return objects.absolute(to)


def folder(place: Prediction, to: str) -> Export:
    """The folder of a prediction with the records of what went to one destination."""
    return Export(place.export(records.sha256(destination(to).encode())[:16]))


@dataclass(frozen=True, slots=True)
class Progress:
    """The shards of a prediction that have not gone to a destination yet, of how many, and what went there.

    rows, reports: of the shards that are done, if none is missing.
    """

    missing: list[int]
    shards: int
    rows: int = 0
    reports: int = 0


def progress(place: Prediction, to: str) -> Progress:
    """How far the export of a prediction is. Raises InputError if it is done and rows are missing."""
    merged = records.read(place.submission_record, Submission)
    urls = [folder(place, to).shard_record(number) for number in range(len(merged.inputs.tables))]
    there = {item.url for item in objects.list_objects(folder(place, to).url)}
    missing = [number for number, url in enumerate(urls) if url not in there]
    if missing:
        return Progress(missing, len(urls))
    done = list(ordered_map(lambda url: records.read(url, ExportedShard), urls, WORKERS, 2 * WORKERS))
    rows, reports = sum(shard.rows for shard in done), sum(shard.reports for shard in done)
    if rows != merged.rows:
        raise InputError(
            f"{folder(place, to).url}: {rows} rows are exported, the submission has {merged.rows}; remove "
            "its records and export all shards again"
        )
    return Progress([], len(urls), rows, reports)


def _write(writer: Writer, rows: Sequence[tuple[Image, str]], scratch: Path) -> Iterator[Written | Rejection]:
    """Write the report of each row to a file, or say why the image can have none."""
    seen: dict[str, str] = {}
    bodies = objects.read_many(image.object for image, _ in rows)
    for number, ((image, text), (_, body)) in enumerate(zip(rows, bodies, strict=True)):
        if isinstance(body, LobarError):
            raise body
        url = image.object.url
        boxes = parse_prediction_string(text)
        try:
            header = source.read(body)
            report = writer.report(image.patient_id, header, boxes)
        except RejectedImage as error:
            log.warning("%s: no report: %s", url, error)
            yield Rejection(image.patient_id, url, str(error))
            continue
        if header.unusable:
            log.warning("%s: left empty in its report: %s", url, ", ".join(header.unusable))
        if other := seen.get(header.elements.SOPInstanceUID):
            raise InputError(f"{url}: has the SOPInstanceUID of {other}; keep one of them and plan again")
        seen[header.elements.SOPInstanceUID] = url
        file = scratch / f"{number}.dcm"
        file.write_bytes(report.data)
        sha256 = records.sha256(report.data)
        yield Written(image.patient_id, report.uid, file, len(report.data), sha256, len(boxes))


def _delivery(target: str) -> Callable[[Sequence[Written]], None]:
    """How reports are delivered. Raises InputError for a destination that can take none."""
    if target.startswith(dicomweb.PREFIX):
        return partial(_send, dicomweb.Archive(target))
    objects.check_create(target)
    return partial(_put, target)


def _put(target: str, written: Sequence[Written]) -> None:
    created = ordered_map(partial(_create, target), written, WORKERS, 2 * WORKERS)
    for _ in console.progress(created, len(written), "reports delivered"):
        pass


def _create(target: str, item: Written) -> None:
    url = objects.join(target, f"{item.image_id}.dcm")
    if not objects.create(url, item.file.read_bytes()):
        raise InputError(f"{url}: another object is there; choose another folder", setting="to")


def _send(archive: dicomweb.Archive, written: Sequence[Written]) -> None:
    """Send all reports, also after some were not stored. Raises OutsideError that names those."""
    failed: dict[str, str] = {}
    batches = [*_batches(written)]
    for batch in console.progress(batches, len(batches), "requests with reports"):
        outcome = archive.store({item.uid: item.file.read_bytes() for item in batch})
        ids = {item.uid: item.image_id for item in batch}
        failed |= {ids[uid]: reason for uid, reason in outcome.failed.items()}
        for uid, reason in (outcome.failed | outcome.warnings).items():
            kind = "not stored" if uid in outcome.failed else "stored with a warning"
            log.warning("report of %s: %s: %s", ids[uid], kind, reason)
    if failed:
        named = "; ".join(f"{image_id} ({reason})" for image_id, reason in [*failed.items()][:NAMED])
        more = f"; and {len(failed) - NAMED} more, in the log" if len(failed) > NAMED else ""
        raise OutsideError(
            f"{archive.url}: {len(failed)} of {len(written)} reports were not stored: {named}{more}; see the "
            "server's log, then run the same command again"
        )


def _batches(written: Iterable[Written]) -> Iterator[list[Written]]:
    """Consecutive reports of BATCH_BYTES at most, or one larger one."""
    batch: list[Written] = []
    size = 0
    for item in written:
        if batch and size + item.bytes > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item.bytes
    if batch:
        yield batch
