"""The boxes in a row of a submission."""

from lobar.core.boxes import Box


def parse_prediction_string(text: str) -> list[Box]:
    """The boxes of a PredictionString. Raises ValueError if it is not five numbers per box."""
    values = text.split()
    if len(values) % 5:
        raise ValueError(f"{len(values)} numbers; each box has five: {text!r}")
    return [_box(*values[i : i + 5]) for i in range(0, len(values), 5)]


def _box(confidence: str, x: str, y: str, width: str, height: str) -> Box:
    return Box(int(x), int(y), int(width), int(height), float(confidence))
