"""The report of a model: one HTML file with its figures inside, without scripts or remote loads."""

import base64
import csv
import io
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lobar.dataset import Exam
from lobar.evaluation import Evaluation, Picture, verdict
from lobar.geometry import Box
from lobar.tuning import Interval

TRUTH, FOUND = "#3b82f6", "#ef4444"
SYSTEMS = {
    "tuned": "network, tuned operating point",
    "notebook": "network, the notebook's operating point",
    "heuristic": "no network: threshold and shape",
    "empty": "always empty",
}


def render(found: Evaluation, history: bytes, training: dict[str, Any], summary: dict[str, Any]) -> bytes:
    """The report of an evaluation as HTML.

    history is the model's history.csv, training its record, summary the dataset's summary.
    """
    rows = list(csv.DictReader(io.StringIO(history.decode())))
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = template.from_string(files("lobar").joinpath("report.html").read_text())
    return page.render(
        best=found.systems["tuned"],
        verdict=verdict(found.systems),
        systems=[(title, found.systems[name]) for name, title in SYSTEMS.items()],
        images=len(found.images),
        positive=sum(image.exam.target for image in found.images),
        groups=len({image.exam.group for image in found.images}),
        point=found.precisions["float32"].point,
        precisions=found.precisions,
        empty_mask=found.empty_mask,
        last=rows[-1],
        training=training,
        summary=summary,
        refused=found.refused,
        shown=sum(picture.exam.target for picture in found.pictures),
        comparison=_inline(comparison(found.systems)),
        curves=_inline(curves(rows)),
        pictures=_inline(pictures(found.pictures)),
        interval=interval,
        difference=difference,
    ).encode()


def interval(value: Interval) -> str:
    """A metric with its 95 % interval, in words that a table and a terminal can show."""
    if value.metric is None:
        return "no image counts"
    return f"{value.metric:.3f} ({value.low:.3f} to {value.high:.3f})"


def difference(value: Interval) -> str:
    """A paired gain with its 95 % interval, signed."""
    if value.metric is None:
        return "no image counts"
    return f"{value.metric:+.4f} ({value.low:+.4f} to {value.high:+.4f})"


def comparison(systems: dict[str, Interval]) -> Figure:
    """The metric of each system as a bar with its interval."""
    figure = Figure(figsize=(8, 2.2), layout="constrained")
    axes = figure.subplots()
    for place, (name, title) in enumerate(reversed(SYSTEMS.items())):
        value = systems[name]
        if value.metric is None or value.low is None or value.high is None:
            continue
        axes.barh(place, value.metric, height=0.6, color=FOUND if name == "tuned" else "#9ca3af")
        axes.plot([value.low, value.high], [place, place], color="#111827", linewidth=1.5)
        axes.text(value.high + 0.01, place, f"{value.metric:.3f}", va="center", fontsize=9)
        axes.text(-0.01, place, title, va="center", ha="right", fontsize=9)
    axes.set_yticks([])
    axes.set_xlim(0, 1)
    axes.set_xlabel("challenge metric")
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def curves(rows: Sequence[dict[str, str]]) -> Figure:
    """Loss, accuracy and IoU of training and validation by epoch, as the notebook drew them."""
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    epochs = [int(row["epoch"]) for row in rows]
    for axes, key, title in zip(
        figure.subplots(1, 3), ("loss", "accuracy", "mean_iou"), ("loss", "accuracy", "IoU"), strict=True
    ):
        axes.plot(epochs, [float(row[key]) for row in rows], ".-", label=f"train {title}", color=TRUTH)
        axes.plot(
            epochs, [float(row[f"val_{key}"]) for row in rows], ".-", label=f"valid {title}", color=FOUND
        )
        axes.set_xlabel("epoch")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def pictures(shown: Sequence[Picture]) -> Figure:
    """The notebook's 4 x 8 picture: truth in blue, prediction in red."""
    figure = Figure(figsize=(16, 8.2), layout="constrained", facecolor="black")
    for axes in figure.subplots(4, 8).ravel():
        axes.axis("off")
    for axes, picture in zip(figure.axes, shown, strict=False):
        axes.imshow(picture.levels, cmap="gray", vmin=0, vmax=255)
        _outline(axes, picture.exam.boxes, picture, TRUTH)
        _outline(axes, picture.found, picture, FOUND)
    return figure


def _outline(axes: Any, boxes: Sequence[Box], picture: Picture, colour: str) -> None:
    rows, columns = picture.levels.shape
    exam: Exam = picture.exam
    across, down = columns / exam.columns, rows / exam.rows
    for box in boxes:
        corner = (box.x * across - 0.5, box.y * down - 0.5)
        axes.add_patch(
            Rectangle(
                corner, box.width * across, box.height * down, linewidth=2, edgecolor=colour, fill=False
            )
        )


def _inline(figure: Figure) -> str:
    """A figure as a data URL; the file's metadata is left out, so that equal figures are equal bytes."""
    body = io.BytesIO()
    figure.savefig(body, format="png", dpi=100, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(body.getvalue()).decode()
