"""The rows of a submission: PredictionString, and the CSV that holds them."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Self

from lobar.core.boxes import Box

COLUMNS = ("patientId", "PredictionString")


@dataclass(frozen=True, slots=True)
class Row:
    """One image's row of a submission, with the fields of COLUMNS."""

    patient_id: str
    prediction_string: str

    @classmethod
    def of(cls, patient_id: str, boxes: Sequence[Box]) -> Self:
        """The row of an image and the boxes on it."""
        return cls(patient_id, prediction_string(boxes))


def prediction_string(boxes: Sequence[Box]) -> str:
    """`confidence x y width height ` for each box, as in the notebook; an empty text for no box."""
    return "".join(f"{b.confidence:.6f} {b.x} {b.y} {b.width} {b.height} " for b in boxes)


def parse_prediction_string(text: str) -> list[Box]:
    """The boxes of a PredictionString. Raises ValueError if it is not five numbers per box."""
    values = text.split()
    if len(values) % 5:
        raise ValueError(f"{len(values)} numbers; each box has five: {text!r}")
    return [_box(*values[i : i + 5]) for i in range(0, len(values), 5)]


def _box(confidence: str, x: str, y: str, width: str, height: str) -> Box:
    return Box(int(x), int(y), int(width), int(height), float(confidence))


def to_csv(rows: Iterable[Row]) -> bytes:
    """Rows as a CSV with its header."""
    return table(COLUMNS, map(astuple, rows))


def from_csv(data: bytes) -> list[Row]:
    """The rows of a CSV without its header. Raises TypeError if it has other columns."""
    return [Row(*values) for values in csv.reader(io.StringIO(data.decode(), newline=""))]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """A CSV with a header; texts that need it are quoted, an empty text stays empty."""
    body = io.StringIO()
    writer = csv.writer(body, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return body.getvalue().encode()
