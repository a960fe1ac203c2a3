"""Label tables of any content, compared with the rules row by row, and in both readers."""

import csv
import io
import math
from contextlib import suppress
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from lobar.core.boxes import Box
from lobar.data.labels import read_labels

HEADER = "patientId,x,y,width,height,Target\n"
SIDES = ("x", "y", "width", "height")


def number(text: str) -> float:
    try:
        return float(text.replace("7,5", "7.5"))
    except ValueError:
        return math.nan


def reference(table: str, separator: str) -> tuple[list[tuple[str, tuple[Box, ...]]], list[str]]:
    """The rules of the label table, one row at a time."""
    boxes: dict[str, list[Box]] = {}
    rejected: dict[str, str] = {}
    reader = csv.reader(io.StringIO(table, newline=""), delimiter=separator)
    names = next(reader)
    for fields in reader:
        padded = [text.strip() for text in fields] + [""] * len(names)
        patient, *texts, target = (padded[names.index(name)] for name in ("patientId", *SIDES, "Target"))
        if not any([patient, *texts, target]):
            continue
        patient = patient.removesuffix(".dcm")
        quoted, reason, sides = " ".join(map(repr, texts)), "", []
        with suppress(ValueError, OverflowError):
            sides = [int(number(text)) for text in texts]
        if number(target) not in (0, 1):
            reason = f"Target is neither 0 nor 1: {target!r}"
        elif number(target) == 0:
            with_box = [
                text for text in texts if number(text) != 0 and text not in ("", "nan", "NaN", "NULL")
            ]
            reason = f"Target 0 with a box: {' '.join(filter(None, texts))}" if with_box else ""
            sides = []
        elif not all(texts):
            reason = f"Target 1 without a complete box: {quoted}"
        elif not sides:
            reason = f"text where a number is expected: {quoted}"
        elif sides[2] <= 0 or sides[3] <= 0:
            reason = f"a box without area: {sides[2]} x {sides[3]}"
        elif sides[0] < 0 or sides[1] < 0:
            reason = f"a box outside the image: x {sides[0]}, y {sides[1]}"
        if not reason and bool(boxes.setdefault(patient, [Box(*sides)] if sides else [])) != bool(sides):
            reason = "rows with both Targets"
        if reason:
            rejected.setdefault(patient, f"{patient} (t.csv row {reader.line_num}): {reason}")
        elif sides and Box(*sides) not in boxes[patient]:
            boxes[patient].append(Box(*sides))
    kept = [(patient, tuple(its)) for patient, its in boxes.items() if patient not in rejected]
    return kept, list(rejected.values())


PATIENTS = ["a", "b", " a", "a.dcm", "", "NULL", "nan", "1e5", "=1", "\u00e9", "\u2028", "\x1cb", 'q"q']
PATIENTS += ["\0", '"a"', '"x\ny"', '"q""q"']
NUMBERS = ["", "0", "1", "2.7", " 4 ", "7,5", "1,024", "1e3", "1_0", "\u0663", "-0.5", "-1", "0x1"]
NUMBERS += ["nan", "NaN", "NULL", "inf", "1e300", "True"]
TARGETS = ["0", "1", " 1", "1.0", "0.0", "1.7", "yes", "True", ""]
good_texts = st.tuples(*[st.sampled_from(["1", "2.0"])] * 4, st.just("1"))
any_texts = st.tuples(*[st.sampled_from(NUMBERS)] * 4, st.sampled_from(TARGETS))
row_texts = st.one_of(st.just(("", "", "", "", "0")), good_texts, any_texts)
# the fields of a row end at bars, in whose place the test puts a separator
table_rows = st.tuples(st.sampled_from(PATIENTS[:12]) | st.sampled_from(PATIENTS), row_texts).map(
    lambda row: "|".join([row[0], *row[1]])
)
# rows that are too short, too long or blank
odd_rows = st.builds(
    lambda row, cut: row[:cut], table_rows.filter(lambda row: '"' not in row), st.integers(0, 9)
)
odd_rows |= table_rows.map(lambda row: f"{row}|extra||") | st.sampled_from([" ", "|||||"])
separators = st.sampled_from(",;\t")
line_ends = st.sampled_from(["\n", "\r\n", "\r"])


@settings(deadline=None)
@given(
    separators,
    line_ends,
    st.sampled_from([HEADER.strip(), HEADER.strip() + ",x,x.1,"]),
    st.lists(table_rows | odd_rows, max_size=12),
    st.integers(1, 13),
)
def test_any_table_equals_the_reference(
    separator: str, end: str, header: str, rows: list[str], chunk_rows: int
) -> None:
    table = end.join([header.replace(",", separator), *(row.replace("|", separator) for row in rows), ""])
    with patch("lobar.data.labels.CHUNK_ROWS", chunk_rows):
        labels = read_labels(table.encode(), "t.csv")
    assert (list(labels.items()), [str(rejection) for rejection in labels.rejected]) == reference(
        table, separator
    )


@settings(deadline=None)
@given(
    separators,
    line_ends,
    st.lists(st.tuples(st.sampled_from(PATIENTS[:12]), row_texts), max_size=12),
    st.sampled_from([HEADER, "\ufeff" + HEADER, " patientid , X,y,WIDTH ,height,target\n"]),
)
def test_a_table_reads_the_same_with_every_field_in_quotes(
    separator: str, end: str, rows: list[tuple[str, tuple[str, ...]]], header: str
) -> None:
    """Tables with quotes are read by Python's CSV reader, all others by pandas."""
    table = [header.strip().split(","), *([patient, *texts] for patient, texts in rows)]
    # without quotes, a comma in a number would be a separator
    table = [[field.replace(",", "") if separator == "," else field for field in row] for row in table]
    found = []
    for quote in ("", '"'):
        lines = (separator.join(f"{quote}{field}{quote}" for field in row) for row in table)
        labels = read_labels(end.join([*lines, ""]).encode("utf-8-sig"), "t.csv")
        found.append((list(labels.items()), labels.rejected))
    assert found[0] == found[1]
