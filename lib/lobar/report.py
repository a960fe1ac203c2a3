"""The report of a model: one HTML file with its figures inside, without scripts or remote loads."""

import base64
import csv
import io
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lobar.analysis import FROC_IOU, Analysis, Curve
from lobar.evaluation import Evaluation, verdict
from lobar.tuning import Interval

TRUTH, FOUND, FAINT = "#3b82f6", "#ef4444", "#9ca3af"
# what is drawn in it takes the colour of the page's text, which is light on a dark screen
INK = "#0a0b0c"
SYSTEMS = {
    "tuned": "network, tuned operating point",
    "notebook": "network, the notebook's operating point",
    "heuristic": "no network: threshold and shape",
    "empty": "always empty",
}
KINDS = {
    "best": "The best",
    "typical": "Typical",
    "worst": "The worst that it found something on",
    "missed": "Missed: positive, nothing found",
    "false": "False: negative, something found",
}


def render(found: Evaluation, history: bytes, training: dict[str, Any], summary: dict[str, Any]) -> bytes:
    """The report of an evaluation as HTML.

    history is the model's history.csv, training its record, summary the dataset's summary.
    """
    rows = list(csv.DictReader(io.StringIO(history.decode())))
    return page(
        "report.html",
        best=found.systems["tuned"],
        verdict=verdict(found.systems),
        whole=found.analysis.subsets["all"],
        roc_area=found.analysis.roc.area if found.analysis.roc else None,
        systems=[(title, found.systems[name]) for name, title in SYSTEMS.items()],
        subsets=found.analysis.subsets,
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
        kinds=[(title, found.pictures[name]) for name, title in KINDS.items() if found.pictures[name]],
        comparison=_svg(comparison(found.systems), "comparison"),
        analysis=[_svg(figure, f"analysis{i}") for i, figure in enumerate(analysis_figures(found.analysis))],
        training_curves=[_svg(figure, f"training{i}") for i, figure in enumerate(training_figures(rows))],
        interval=interval,
        difference=difference,
        percent=lambda share: "–" if share is None else f"{share:.0%}",
        base64=lambda data: base64.b64encode(data).decode(),
    )


def page(template: str, **values: Any) -> bytes:
    """One of this package's templates, filled in, with its style inside."""
    package = files("lobar")
    jinja = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    style = package.joinpath("style.css").read_text()
    return jinja.from_string(package.joinpath(template).read_text()).render(style=style, **values).encode()


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
        axes.barh(place, value.metric, height=0.6, color=FOUND if name == "tuned" else FAINT)
        axes.plot([value.low, value.high], [place, place], color=INK, linewidth=1.5)
        axes.text(value.high + 0.01, place, f"{value.metric:.3f}", va="center", fontsize=9, color=INK)
        axes.text(-0.01, place, title, va="center", ha="right", fontsize=9, color=INK)
    axes.set_yticks([])
    axes.set_xlim(0, 1)
    axes.set_xlabel("challenge metric")
    _plain(axes)
    axes.spines["left"].set_visible(False)
    return figure


def analysis_figures(found: Analysis) -> Iterable[Figure]:
    """The metric by IoU threshold, ROC, FROC and calibration, those that exist."""
    figure, axes = _panel("Challenge metric by IoU threshold", "IoU threshold", "metric")
    axes.plot([float(iou) for iou in found.by_iou], list(found.by_iou.values()), ".-", color=FOUND)
    axes.set_ylim(0, 1)
    yield figure
    if found.roc is not None:
        figure, axes = _panel(
            f"ROC of images: area {found.roc.area:.3f}", "negatives called", "positives called"
        )
        axes.plot([0, 1], [0, 1], ":", color=FAINT)
        _draw(axes, found.roc)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        yield figure
    if found.froc is not None:
        figure, axes = _panel(
            f"FROC of boxes: hits beyond IoU {FROC_IOU:g}", "false boxes an image", "boxes found"
        )
        _draw(axes, found.froc)
        axes.set_xlim(0, max(0.1, *found.froc.x))
        yield figure
    figure, axes = _panel("Calibration of the image score", "image score", "share positive")
    axes.plot([0, 1], [0, 1], ":", color=FAINT)
    axes.plot(found.calibration.x, found.calibration.y, ".-", color=FOUND)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    yield figure


def training_figures(rows: Sequence[dict[str, str]]) -> Iterable[Figure]:
    """Loss, accuracy and IoU of training and validation by epoch, as the notebook drew them."""
    epochs = [int(row["epoch"]) for row in rows]
    for key, title in (("loss", "Loss"), ("accuracy", "Accuracy"), ("mean_iou", "IoU")):
        figure, axes = _panel(title, "epoch", "")
        axes.plot(epochs, [float(row[key]) for row in rows], ".-", label="train", color=TRUTH)
        axes.plot(epochs, [float(row[f"val_{key}"]) for row in rows], ".-", label="valid", color=FOUND)
        axes.legend(frameon=False, labelcolor=INK)
        yield figure


def _panel(title: str, across: str, up: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(4, 3), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10, color=INK)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    _plain(axes)
    return figure, axes


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_edgecolor(INK)
    axes.tick_params(color=INK, labelcolor=INK)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)


def _draw(axes: Any, curve: Curve) -> None:
    axes.step(curve.x, curve.y, where="post", color=FOUND)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _svg(figure: Figure, name: str) -> str:
    """A figure as SVG for the midst of an HTML page; equal figures of one name are equal text."""
    body = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(body, format="svg", transparent=True, metadata=nothing)
    text = body.getvalue()
    # in HTML the namespaces are known, and the page sets the size
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text[text.index("<svg") :])
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text))
    return text.replace(INK, "currentColor")
