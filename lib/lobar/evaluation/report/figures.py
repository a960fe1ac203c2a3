"""The figures of a report, as SVG for an HTML page."""

import io
import re
from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lobar.evaluation.analysis import FROC_IOU, Analysis, Curve
from lobar.evaluation.bootstrap import Interval
from lobar.evaluation.record import SYSTEMS

TRUTH, PREDICTED, FAINT = "#3b82f6", "#ef4444", "#9ca3af"
# drawn in this colour, lines and texts get the colour of the page's text, which is light on a dark screen
INK = "#0a0b0c"


def comparison(systems: Mapping[str, Interval]) -> Figure:
    """The metric of each system as a bar with its interval."""
    figure = Figure(figsize=(8, 2.2), layout="constrained")
    axes = figure.subplots()
    for place, (name, title) in enumerate(reversed(list(SYSTEMS.items()))):
        value = systems[name]
        if value.metric is None or value.low is None or value.high is None:
            continue
        axes.barh(place, value.metric, height=0.6, color=PREDICTED if name == "tuned" else FAINT)
        axes.plot([value.low, value.high], [place, place], color=INK, linewidth=1.5)
        axes.text(value.high + 0.01, place, f"{value.metric:.3f}", va="center", fontsize=9, color=INK)
        axes.text(-0.01, place, title, va="center", ha="right", fontsize=9, color=INK)
    axes.set_yticks([])
    axes.set_xlim(0, 1)
    axes.set_xlabel("challenge metric")
    _plain(axes)
    axes.spines["left"].set_visible(False)
    return figure


def analysis_figures(analysis: Analysis) -> Iterable[Figure]:
    """The metric by IoU threshold, ROC, FROC and calibration, those that exist."""
    figure, axes = _panel("Challenge metric by IoU threshold", "IoU threshold", "metric")
    axes.plot([float(iou) for iou in analysis.by_iou], list(analysis.by_iou.values()), ".-", color=PREDICTED)
    axes.set_ylim(0, 1)
    yield figure
    if analysis.roc is not None:
        figure, axes = _panel(
            f"ROC of images: area {analysis.roc.area:.3f}", "false positive images", "true positive images"
        )
        axes.plot([0, 1], [0, 1], ":", color=FAINT)
        _draw(axes, analysis.roc)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        yield figure
    if analysis.froc is not None:
        figure, axes = _panel(
            f"FROC of boxes: hits above IoU {FROC_IOU:g}", "false boxes per image", "truth boxes hit"
        )
        _draw(axes, analysis.froc)
        axes.set_xlim(0, max(0.1, *analysis.froc.x))
        yield figure
    figure, axes = _panel("Calibration of the image score", "image score", "share positive")
    axes.plot([0, 1], [0, 1], ":", color=FAINT)
    axes.plot(analysis.calibration.x, analysis.calibration.y, ".-", color=PREDICTED)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    yield figure


def training_figures(epochs: pd.DataFrame) -> Iterable[Figure]:
    """Loss, accuracy and IoU of training and validation by epoch, as in the notebook."""
    for key, title in (("loss", "Loss"), ("accuracy", "Accuracy"), ("mean_iou", "IoU")):
        figure, axes = _panel(title, "epoch", "")
        axes.plot(epochs["epoch"], epochs[key], ".-", label="train", color=TRUTH)
        axes.plot(epochs["epoch"], epochs[f"val_{key}"], ".-", label="valid", color=PREDICTED)
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
    axes.step(curve.x, curve.y, where="post", color=PREDICTED)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def svg(figure: Figure, name: str) -> str:
    """A figure as SVG to put into an HTML page; equal figures of one name are equal texts."""
    body = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(body, format="svg", transparent=True, metadata=no_metadata)
    text = body.getvalue()
    # in HTML the namespaces are known, and the page sets the size
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text[text.index("<svg") :])
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text))
    return text.replace(INK, "currentColor")
