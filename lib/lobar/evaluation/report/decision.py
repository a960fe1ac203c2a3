"""The page that says why a challenger was promoted or not, and in what it differs from the champion."""

from dataclasses import asdict

from lobar.data import drift
from lobar.data.record import Manifest
from lobar.evaluation import compare
from lobar.evaluation.registry import Decision
from lobar.evaluation.report.page import page
from lobar.storage import records
from lobar.storage.layout import Dataset, Model
from lobar.training.record import Training


def render(decision: Decision) -> bytes:
    """A promotion's record as HTML: the decision, what it is based on, and how the models differ.

    Raises InputError if what one of the models was trained on is no longer there.
    """
    assert decision.comparison is not None and decision.inputs is not None, "a rollback compares nothing"
    comparison = decision.comparison
    models = {"challenger": Model(decision.inputs.challenger.model)}
    if comparison.other:
        models["champion"] = Model(comparison.other)
    trained = {name: compare.exams_of(model) for name, model in models.items()}
    trainings = [records.read(model.training, Training) for model in models.values()]
    recipes = [asdict(training.inputs.recipe) | {"seed": training.inputs.seed} for training in trainings]
    values = {name: [recipe[name] for recipe in recipes] for name in recipes[0]}
    return page(
        "decision.html",
        decision=decision,
        comparison=comparison,
        models=models,
        differing={name: row for name, row in values.items() if any(value != row[0] for value in row)},
        manifests=[records.read(Dataset(t.inputs.dataset).manifest, Manifest) for t in trainings],
        shifts=drift.between(trained["challenger"], trained["champion"]) if comparison.other else [],
    )
