"""The model card of a release: one Markdown file that says what a model is, how good it is, and its limits.

Source: Mitchell et al., Model Cards for Model Reporting, 2019.
"""

import re
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from lobar.core import rejections
from lobar.data.record import Manifest
from lobar.evaluation import record, rsna_metric
from lobar.evaluation.record import Evaluation, verdict
from lobar.evaluation.report.page import fields, percent
from lobar.inference.postprocess import SCORED_SHARE
from lobar.storage import objects
from lobar.storage.layout import Model
from lobar.training.pretrained import PACKAGES
from lobar.training.record import Training, TrainingInputs

# An underscore inside a word marks nothing, and most names of fields have one
MARKS = re.compile(r"[\\`*\[\]<>|~$&#]|(?<![^\W_])_|_(?![^\W_])")


def render(model: Model, training: Training, manifest: Manifest, evaluation: Evaluation) -> bytes:
    """The card of a model, from its records alone, without their times: equal inputs give equal bytes.

    It has counts and names of objects, and nothing of a single patient.
    """
    # no HTML: each value is escaped for Markdown instead
    jinja = Environment(  # noqa: S701
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=escape,
        keep_trailing_newline=True,
    )  # fmt: skip
    jinja.filters["fields"] = fields
    template = files("lobar.evaluation.report").joinpath("model_card.md").read_text()
    return (
        jinja.from_string(template)
        .render(
            training=training,
            recipe=training.inputs.recipe,
            manifest=manifest,
            views=sorted({*manifest.train.views, *manifest.valid.views}),
            evaluation=evaluation,
            origin=_origin(training.inputs),
            verdict=verdict(evaluation.systems),
            whole=evaluation.subsets["all"],
            point=evaluation.precisions["float32"].point,
            record=record,
            ious=rsna_metric.THRESHOLDS,
            scored_share=SCORED_SHARE,
            percent=percent,
            reasons=_reasons,
            sha256s=_sha256s(model, training, evaluation),
        )
        .encode()
    )


def escape(value: object) -> str:
    """A value as text that Markdown shows as it is, in one line, also in a table."""
    return MARKS.sub(r"\\\g<0>", " ".join(str(value).split()))


def _origin(inputs: TrainingInputs) -> str:
    """Where the weights came from that the training started from."""
    recipe = inputs.recipe
    if recipe.init:
        return f"those of the model {recipe.init}, SHA-256 {inputs.init_weights}"
    others = f"random, from seed {inputs.seed}"
    if not inputs.encoder_weights:
        return others
    source = recipe.encoder_weights
    if recipe.encoder in PACKAGES:
        source = f"ImageNet weights of the package {PACKAGES[recipe.encoder].name} (Apache-2.0)"
    return f"of the encoder: {source}, SHA-256 {inputs.encoder_weights}; of the decoder: {others}"


def _reasons(rejected: list[rejections.Rejection]) -> str:
    """How many were rejected for each reason; a reason names no patient."""
    return ", ".join(f"{reason}: {count}" for reason, count in rejections.counts(rejected).items()) or "none"


def _sha256s(model: Model, training: Training, evaluation: Evaluation) -> dict[str, str]:
    """Name to SHA-256 of each file in the model's folder that the records name, without the folder."""
    of_training = training.files
    urls = {
        model.keras(of_training.keras): of_training.keras,
        model.network(of_training.float32_network): of_training.float32_network,
        model.weights(of_training.float32_weights): of_training.float32_weights,
        model.network(of_training.int8_network): of_training.int8_network,
        model.weights(of_training.int8_weights): of_training.int8_weights,
        model.history(training.history): training.history,
        model.scores(evaluation.scores): evaluation.scores,
        model.report(evaluation.report): evaluation.report,
    }
    return {objects.name(url): sha256 for url, sha256 in urls.items()}
