"""Evaluate a trained model on a dataset, and release it: scores, report, model card and records."""

import pandas as pd
import pyarrow as pa

from lobar.core.version import code_version
from lobar.data.record import Manifest
from lobar.evaluation import scoring
from lobar.evaluation.record import Evaluation
from lobar.evaluation.report import card, page
from lobar.evaluation.scoring import Result
from lobar.inference import engines
from lobar.inference.release import NOTEBOOK, EvaluationInputs, Offer, Release
from lobar.storage import records, tables
from lobar.storage.layout import Dataset, Model
from lobar.training.record import Training

ONCE = "a model is released once; train another one for other data"


def run(model: Model, dataset: Dataset) -> Evaluation:
    """Score a model on the validation images, put its report and its card, and release it; return its record.

    A model that is released already is not scored again. Raises InputError if the model or the dataset is not
    complete, or the model was evaluated on other data.
    """
    training = records.read(model.training, Training)
    manifest = records.read(dataset.manifest, Manifest)
    inputs = EvaluationInputs(
        # not the Keras file, which holds the time
        training=records.digest([training.inputs, training.files.float32_weights]),
        dataset=dataset.url,
        index=manifest.index,
        lobar=code_version(),
    )
    if records.find(model.release, Release, inputs, ONCE):
        return records.read(model.evaluation, Evaluation)
    evaluation = records.find(model.evaluation, Evaluation, inputs, ONCE)
    if evaluation is None:
        evaluation = _evaluate(model, dataset, training, manifest, inputs)
        evaluation = records.create(model.evaluation, evaluation, ONCE)
    # from records alone: an attempt that goes on after a crash writes the same card
    written = records.put(model.card, card.render(model, training, manifest, evaluation))
    records.create(model.release, _release(training, evaluation, written), ONCE)
    return evaluation


def _evaluate(
    model: Model, dataset: Dataset, training: Training, manifest: Manifest, inputs: EvaluationInputs
) -> Evaluation:
    """Score a model and put its scores and its report."""
    result = scoring.score(model, training, dataset)
    history = records.get(model.history, training.history)
    report = page.render(result, history, training, manifest)
    return Evaluation(
        inputs=inputs,
        scores=records.put(model.scores, tables.encode(_scores(result))),
        report=records.put(model.report, report),
        images=len(result.images),
        positive=sum(image.exam.target for image in result.images),
        systems=result.systems,
        precisions=result.precisions,
        cpu_features=engines.cpu_features(),
        roc_area=result.analysis.roc.area if result.analysis.roc else None,
        by_iou=result.analysis.by_iou,
        subsets=result.analysis.subsets,
        empty_mask=result.empty_mask,
        rejected=result.rejected,
    )


def _release(training: Training, evaluation: Evaluation, written: str) -> Release:
    """What others need of a model; `written` is the SHA-256 of its card."""
    return Release(
        inputs=evaluation.inputs,
        files=training.files,
        recipe=training.inputs.recipe,
        precisions={
            name: Offer(trial.point, NOTEBOOK, [] if name == "float32" else evaluation.cpu_features)
            for name, trial in evaluation.precisions.items()
            if name == "float32" or trial.offered
        },
        card=written,
    )


def _scores(result: Result) -> pa.Table:
    """One row per validation image: its image score, and its challenge score by each system."""
    exams = [image.exam for image in result.images]
    columns = {
        "patient_id": [exam.patient_id for exam in exams],
        "group": [exam.group for exam in exams],
        "view": [exam.view for exam in exams],
        "target": [exam.target for exam in exams],
        "image_score": [image.image_score for image in result.images],
    }
    scores = {f"score_{name}": values for name, values in result.scores.items()}
    return pa.Table.from_pandas(pd.DataFrame(columns | scores), preserve_index=False)
