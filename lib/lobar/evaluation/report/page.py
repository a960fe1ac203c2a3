"""The report of a model: one HTML file with its figures inside, without scripts or remote loads."""

import base64
import io
from collections.abc import Iterable
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from lobar.core import rejections
from lobar.data.record import Manifest
from lobar.evaluation.record import SYSTEMS, verdict
from lobar.evaluation.report.figures import analysis_figures, comparison, svg, training_figures
from lobar.evaluation.scoring import Result
from lobar.training.record import Training

KINDS = {
    "best": "Best",
    "typical": "Typical",
    "worst": "Worst of those with a prediction",
    "missed": "Missed: positive, without a prediction",
    "false": "False: negative, with a prediction",
}


def render(result: Result, history: bytes, training: Training, manifest: Manifest) -> bytes:
    """The report of an evaluation as HTML; history is the model's CSV with one row per epoch."""
    epochs = pd.read_csv(io.BytesIO(history))
    return page(
        "report.html",
        result=result,
        best=result.systems["tuned"],
        verdict=verdict(result.systems),
        whole=result.analysis.subsets["all"],
        systems=[(title, result.systems[name]) for name, title in SYSTEMS.items()],
        positive=sum(image.exam.target for image in result.images),
        groups=len({image.exam.group for image in result.images}),
        point=result.precisions["float32"].point,
        last=epochs.iloc[-1],
        training=training,
        manifest=manifest,
        rejected=rejections.counts(manifest.rejected),
        kinds=[(title, result.pictures[name]) for name, title in KINDS.items() if result.pictures[name]],
        comparison=svg(comparison(result.systems), "comparison"),
        analysis=[svg(figure, f"analysis{i}") for i, figure in enumerate(analysis_figures(result.analysis))],
        training_curves=[svg(figure, f"training{i}") for i, figure in enumerate(training_figures(epochs))],
        percent=percent,
        base64=lambda data: base64.b64encode(data).decode(),
    )


def percent(share: float | None) -> str:
    """A share of images, 0..1, in words; None if there are none."""
    return "–" if share is None else f"{share:.0%}"


def fields(record: Any) -> Iterable[tuple[str, Any]]:
    """Names and values of a dataclass's fields."""
    return asdict(record).items()


def page(template: str, **values: Any) -> bytes:
    """One of this package's templates, filled in, with its style inside."""
    package = files("lobar.evaluation.report")
    jinja = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.filters["fields"] = fields
    style = package.joinpath("style.css").read_text()
    return jinja.from_string(package.joinpath(template).read_text()).render(style=style, **values).encode()
