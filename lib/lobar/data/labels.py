"""The label and group tables: CSV to the boxes of each patient, and the patients that were rejected."""

import codecs
import csv
import gzip
import io
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd

from lobar.core.boxes import Box
from lobar.core.errors import InputError
from lobar.core.rejections import Rejection
from lobar.data.listing import SUFFIXES, without_suffix
from lobar.storage import objects

BOX_COLUMNS = ["x", "y", "width", "height"]
SMALLEST_BOX = [0, 0, 1, 1]
LABEL_COLUMNS = ["patientId", *BOX_COLUMNS, "Target"]
GROUP_COLUMNS = ["patientId", "group"]
BAD = -1  # in place of a row's Target
CHUNK_ROWS = 250_000
SEPARATORS = ",;\t"
# how pandas, R, spreadsheets and databases write an empty field, in any case
EMPTY = frozenset({"", "nan", "-nan", "na", "n/a", "#n/a", "<na>", "null", "none", r"\n"})
# before exactly three digits a comma may separate thousands
DECIMAL_COMMA = re.compile(r"[+-]?\d*,(\d{1,2}|\d{4,})")


@dataclass(frozen=True, eq=False)
class Labels(Mapping[str, tuple[Box, ...]]):
    """The boxes of each patient, an empty tuple for a negative, by patient id in order of first appearance.

    Box objects are built on access: the boxes of patient id p, whose number is n = numbers[p], are rows
    starts[n]:starts[n + 1] of `pixels`, with columns x, y, width and height.
    """

    numbers: dict[str, int]
    starts: np.ndarray
    pixels: np.ndarray
    rejected: list[Rejection]

    def __getitem__(self, patient_id: str) -> tuple[Box, ...]:
        number = self.numbers[patient_id]
        rows = self.pixels[self.starts[number] : self.starts[number + 1]].tolist()
        return tuple(dict.fromkeys(Box(*map(int, row)) for row in rows))  # a repeated row is one box

    def __contains__(self, patient_id: object) -> bool:
        return patient_id in self.numbers

    def __iter__(self) -> Iterator[str]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)


def read_labels(table: bytes, url: str) -> Labels:
    """The label table in RSNA's format: one row per box, or one row without a box for a negative patient.

    Coordinates become int(float(text)) pixels, as in the notebook. One bad row rejects its whole patient.
    Raises InputError if the table cannot be read or a column is missing.
    """
    numbers: dict[str, int] = {}
    reasons: dict[int, tuple[str, str]] = {}
    parts, boxes = [], []
    for rows in _read_chunks(table, url, LABEL_COLUMNS):
        target, pixels = _judge(rows)
        for line, *row in rows.loc[target == BAD, [*BOX_COLUMNS, "Target"]].itertuples(name=None):
            reasons[line] = _explain(*row)
        patient = [numbers.setdefault(patient_id, len(numbers)) for patient_id in rows["patientId"].tolist()]
        parts.append(pd.DataFrame({"patient": patient, "target": target}, rows.index, dtype=np.int32))
        boxes.append(pixels[target == 1])
    judged, pixels = pd.concat(parts), np.concatenate(boxes)
    del parts, boxes
    ids = list(numbers)
    rejected = []
    for line, number in _first_wrong_rows(judged, len(ids)).items():
        reason = reasons.get(line, ("rows with both Targets",))
        rejected.append(Rejection(ids[number], f"{objects.name(url)} row {line}", *reason))
        del numbers[ids[number]]
    owner = judged["patient"].to_numpy()[judged["target"] == 1]
    starts = np.bincount(owner + 1, minlength=len(ids) + 1).cumsum()
    return Labels(numbers, starts, pixels[owner.argsort(kind="stable")], rejected)


def _first_wrong_rows(judged: pd.DataFrame, patients: int) -> pd.Series:
    """Line number to patient number, for the first row of each patient that is bad or changes its Target."""
    patient, target = judged["patient"].to_numpy(), judged["target"].to_numpy()
    good = target != BAD
    first = np.full(patients, BAD - 1, np.int8)  # BAD - 1 stays for a patient without a good row
    # the last of several assignments holds, so in reverse order it is that of the first row
    first[patient[good][::-1]] = target[good][::-1]
    return judged["patient"][target != first[patient]].drop_duplicates()


def _judge(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The Target of each row, BAD for a bad row, and its box in pixels, (rows, 4), NaN for non-numbers."""
    numbers = np.stack([_of_each(rows[column], _to_number) for column in BOX_COLUMNS], axis=1)
    # as int() does; adding 0 makes -0 to 0
    pixels = np.where(np.isfinite(numbers), np.trunc(numbers) + 0, np.nan)
    has_box = (pixels >= SMALLEST_BOX).all(axis=1)  # a comparison with NaN is False
    is_empty = np.stack([_of_each(rows[column], _is_empty) for column in BOX_COLUMNS], axis=1)
    has_no_box = ((is_empty == 1) | (numbers == 0)).all(axis=1)
    target = _of_each(rows["Target"], _to_number)
    return np.select([(target == 1) & has_box, (target == 0) & has_no_box], [1, 0], BAD), pixels


def _of_each(texts: pd.Series, value: Callable[[str], float]) -> np.ndarray:
    """The value of each text; a column repeats few texts, and each of them is converted once."""
    codes, distinct = texts.factorize()
    return np.array([value(text) for text in distinct], np.float64)[codes]


def _to_number(text: str) -> float:
    """The number that a text is, which may have a decimal comma; NaN if it is none."""
    decimal_comma = DECIMAL_COMMA.fullmatch(text)
    try:
        return float(text.replace(",", ".") if decimal_comma else text)
    except ValueError:
        return math.nan


def _is_empty(text: str) -> bool:
    return text.casefold() in EMPTY


def _explain(x: str, y: str, width: str, height: str, target: str) -> tuple[str, str]:
    """Why a bad row is rejected, and the content at fault."""
    texts = (x, y, width, height)
    quoted = " ".join(map(repr, texts))
    if _to_number(target) not in (0, 1):
        return "Target is neither 0 nor 1", repr(target)
    if _to_number(target) == 0:
        return "Target 0 with a box", " ".join(filter(None, texts))
    if not all(texts):
        return "Target 1 without a complete box", quoted
    numbers = [_to_number(text) for text in texts]
    if not all(map(math.isfinite, numbers)):
        return "text where a number is expected", quoted
    left, top, across, down = map(int, numbers)
    if across <= 0 or down <= 0:
        return "a box without area", f"{across} x {down}"
    return "a box outside the image", f"x {left}, y {top}"


def read_groups(table: bytes, url: str) -> dict[str, str]:
    """The group of each patient id that has one. Raises InputError if an id has two."""
    groups: dict[str, str] = {}
    for rows in _read_chunks(table, url, GROUP_COLUMNS):
        grouped = rows[_of_each(rows["group"], _is_empty) == 0]
        items = zip(grouped.index, grouped["patientId"].tolist(), grouped["group"].tolist(), strict=True)
        for line, patient, group in items:
            if groups.setdefault(patient, group) != group:
                raise InputError(
                    f"{url} row {line}: {patient} is in group {groups[patient]} and in {group}; keep one"
                )
    return groups


def _read_chunks(table: bytes, url: str, columns: list[str]) -> Iterator[pd.DataFrame]:
    """The given columns as stripped text, some rows at a time, indexed by line number; without blank rows.

    The header is line 1; a row with a line break in a quoted field has the number of its last line. The
    suffix of a file name in patientId is removed.
    """
    try:
        body = gzip.decompress(table) if url.endswith(".gz") else table
        has_mark = body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = io.TextIOWrapper(io.BytesIO(body), "utf-16" if has_mark else "utf-8-sig", newline="")
        first = text.readline()
        separator = max(SEPARATORS, key=first.count)
        text.seek(0)
        rows = _csv_rows(text, url, separator)
        positions = _find_columns(next(rows, (1, []))[1], columns, url)
        # pandas is several times as fast, but accepts stray quotes, cuts fields at NUL and keeps blank lines
        if any(mark in body for mark in (b'"', b"\0", b"\n\n", b"\n\r", b"\r\r")):
            chunks = _chunk(rows, positions, columns)
        else:
            text.seek(0)
            chunks = pd.read_csv(
                text, sep=separator, usecols=positions, index_col=False, dtype=str, na_filter=False,
                chunksize=CHUNK_ROWS, quoting=csv.QUOTE_NONE, skip_blank_lines=False,
            )  # fmt: skip
            in_table = sorted(columns, key=dict(zip(columns, positions, strict=True)).__getitem__)
            chunks = (chunk.set_axis(in_table, axis=1).set_axis(chunk.index + 2) for chunk in chunks)
        for chunk in chunks:
            stripped = chunk.apply(lambda column: column.str.strip())
            ids = stripped["patientId"]
            files = ids.str.lower().str.endswith(SUFFIXES)
            stripped.loc[files, "patientId"] = ids[files].map(without_suffix)
            without_id = stripped[ids == ""]
            yield stripped.drop(index=without_id.index[(without_id == "").all(axis=1)])
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise InputError(f"{url}: not a table in UTF-8, or UTF-16 with a BOM ({error})") from error


def _find_columns(header: list[str], columns: list[str], url: str) -> list[int]:
    """The position of each column; its name may be in another case if only one column has it then."""
    names = [name.strip("\ufeff \t\r\n") for name in header]
    lower = [name.casefold() for name in names]

    def find(column: str) -> int | None:
        if column in names:
            return names.index(column)
        return lower.index(column.casefold()) if lower.count(column.casefold()) == 1 else None

    positions = {column: at for column in columns if (at := find(column)) is not None}
    if missing := [column for column in columns if column not in positions]:
        raise InputError(
            f"{url}: no column {', '.join(missing)}; it has {', '.join(names) or 'none'}, "
            f"it needs {', '.join(columns)}, separated by commas, semicolons or tabs"
        )
    return list(positions.values())


def _csv_rows(text: io.TextIOWrapper, url: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each row that is not blank. Raises InputError at a stray quote."""
    # strict: a stray quote would otherwise swallow the rows up to the next one
    reader, line = csv.reader(text, delimiter=separator, skipinitialspace=True, strict=True), 0
    try:
        for row in reader:
            line = reader.line_num
            if row or line == 1:
                yield line, row
    except csv.Error as error:
        raise InputError(f"{url} row {line + 1}: not CSV ({error}); look for a stray quote") from error


def _chunk(
    rows: Iterator[tuple[int, list[str]]], positions: list[int], columns: list[str]
) -> Iterator[pd.DataFrame]:
    """The given columns of the rows, CHUNK_ROWS at a time; at least one chunk, which may be empty."""
    while True:
        batch = list(islice(rows, CHUNK_ROWS))
        texts = {
            column: [row[at] if at < len(row) else "" for _, row in batch]
            for column, at in zip(columns, positions, strict=True)
        }
        yield pd.DataFrame(texts, [line for line, _ in batch], dtype=str)
        if len(batch) < CHUNK_ROWS:
            return
