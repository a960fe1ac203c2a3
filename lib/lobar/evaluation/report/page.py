"""The report of a model: one HTML file with its figures inside, without scripts or remote loads."""

import base64
import csv
import io
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from lobar.evaluation.bootstrap import Interval
from lobar.evaluation.evaluate import Evaluation, verdict
from lobar.evaluation.report.figures import SYSTEMS, analysis_figures, comparison, svg, training_figures

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
        rejected=found.rejected,
        kinds=[(title, found.pictures[name]) for name, title in KINDS.items() if found.pictures[name]],
        comparison=svg(comparison(found.systems), "comparison"),
        analysis=[svg(figure, f"analysis{i}") for i, figure in enumerate(analysis_figures(found.analysis))],
        training_curves=[svg(figure, f"training{i}") for i, figure in enumerate(training_figures(rows))],
        interval=interval,
        difference=difference,
        percent=lambda share: "–" if share is None else f"{share:.0%}",
        base64=lambda data: base64.b64encode(data).decode(),
    )


def page(template: str, **values: Any) -> bytes:
    """One of this package's templates, filled in, with its style inside."""
    package = files("lobar.evaluation.report")
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
