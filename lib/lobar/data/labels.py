"""The label and group tables: text -> the truth of each patient, and the rows that were rejected."""

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lobar.core.boxes import Box
from lobar.core.errors import InputError
from lobar.storage import objects

LABEL_COLUMNS = ("patientId", "x", "y", "width", "height", "Target")
GROUP_COLUMNS = ("patientId", "group")


@dataclass(frozen=True, slots=True)
class Rejection:
    """A patient (RSNA's patientId, an exam) that was left out, where it was found, and why."""

    patient_id: str
    where: str
    reason: str
    found: str = ""

    def __str__(self) -> str:
        return f"{self.patient_id} ({self.where}): {self.reason}" + (f": {self.found}" if self.found else "")


def read_labels(table: bytes, url: str) -> tuple[dict[str, list[Box]], list[Rejection]]:
    """Truth of each patient: its boxes, an empty list for a negative; and the rejected rows.

    A patient's rows are its boxes, as in RSNA's table; coordinates become int(float(text)) as in the
    notebook. One bad row rejects its patient whole. Raises InputError where the table or a column is missing.
    """
    truth: dict[str, list[Box]] = {}
    rejected: dict[str, Rejection] = {}
    for row, (patient, *position, target) in _rows(table, url, LABEL_COLUMNS):
        reason, found = _judge_row(position, target)
        boxes = truth.get(patient)
        if not reason and boxes is not None and bool(boxes) != (target == "1"):
            reason, found = "rows of both Targets", ""
        if reason:
            rejected.setdefault(patient, Rejection(patient, f"{objects.name(url)} row {row}", reason, found))
            continue
        boxes = truth.setdefault(patient, [])
        if target == "1":
            box = Box(*(int(float(value)) for value in position))
            if box not in boxes:
                boxes.append(box)
    kept = {patient: boxes for patient, boxes in truth.items() if patient not in rejected}
    return kept, list(rejected.values())


def _judge_row(position: list[str], target: str) -> tuple[str, str]:
    """Why a row is rejected and what was found, or two empty texts."""
    if target not in ("0", "1"):
        return "Target is neither 0 nor 1", repr(target)
    given = [value for value in position if value]
    if target == "0":
        return ("Target 0 with a box", " ".join(given)) if given else ("", "")
    if len(given) < 4:
        return "Target 1 without a whole box", " ".join(repr(value) for value in position)
    try:
        x, y, width, height = (int(float(value)) for value in position)
    except (ValueError, OverflowError):
        return "text where a number belongs", " ".join(repr(value) for value in position)
    if width <= 0 or height <= 0:
        return "a box without area", f"{width} x {height}"
    if x < 0 or y < 0:
        return "a box outside the image", f"x {x}, y {y}"
    return "", ""


def read_groups(table: bytes, url: str) -> dict[str, str]:
    """The group (the person) of each patient id that has one. Raises InputError where an id has two."""
    groups: dict[str, str] = {}
    for row, (patient, group) in _rows(table, url, GROUP_COLUMNS):
        if group and groups.setdefault(patient, group) != group:
            raise InputError(
                f"{url} row {row}: {patient} is in group {groups[patient]} and in {group}; keep one"
            )
    return groups


def _rows(table: bytes, url: str, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Row number (the header is row 1) and the wanted columns' texts of each row of a CSV."""
    line = 0
    try:
        packed = io.BytesIO(table)
        body = io.BufferedReader(gzip.GzipFile(fileobj=packed) if url.endswith(".gz") else packed)
        marked = body.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        text = io.TextIOWrapper(body, "utf-16" if marked else "utf-8-sig", newline="")
        # strict: a stray quote would otherwise swallow the rows up to the next one
        reader = csv.reader(text, strict=True)
        for line, row in _wanted(reader, url, columns):
            yield line, row
    except csv.Error as error:
        raise InputError(f"{url} row {line + 1}: not CSV ({error}); look for a stray quote") from error
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise InputError(f"{url}: not a table in UTF-8, or UTF-16 with its mark ({error})") from error


def _wanted(reader: Any, url: str, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    names: list[str] = next(reader, [])
    missing = [column for column in columns if column not in names]
    if missing:
        raise InputError(
            f"{url}: no column {', '.join(missing)}; it has {', '.join(names) or 'none'}, "
            f"it needs {', '.join(columns)}"
        )
    at = [names.index(column) for column in columns]
    for row in reader:
        if row:
            padded = row + [""] * (len(names) - len(row))
            yield reader.line_num, [padded[i].strip() for i in at]
