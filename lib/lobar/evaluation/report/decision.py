"""The page that tells why a challenger was promoted or not, and in what it differs from the champion."""

import json
from typing import Any

from lobar.data import drift
from lobar.evaluation import compare
from lobar.evaluation.compare import Comparison
from lobar.evaluation.registry import Entry
from lobar.evaluation.report import page
from lobar.storage import objects, records
from lobar.storage.layout import Dataset, Model


def render(entry: Entry) -> bytes:
    """A registry's record of a promotion as HTML: the decision, what it rests on, and how the models differ.

    Raises InputError where what one of the models was trained on is no longer there.
    """
    assert entry.comparison is not None, "a rollback compares nothing"
    found = Comparison.of(entry.comparison)
    challenger = Model(entry.inputs["challenger"]["model"])
    models = {"challenger": challenger} | ({"champion": Model(found.other)} if found.other else {})
    trained = {name: compare.exams_of(model) for name, model in models.items()}
    return page.page(
        "decision.html",
        entry=entry,
        found=found,
        models=models,
        options=_differing([_training(model)["inputs"]["options"] for model in models.values()]),
        sides={name: _summary(model) for name, model in models.items()},
        shifts=drift.between(trained["challenger"], trained["champion"]) if found.other else [],
        difference=page.difference,
    )


def _training(model: Model) -> dict[str, Any]:
    return records.read_record(model.training, "train")


def _summary(model: Model) -> dict[str, Any]:
    """The counts of a model's dataset, by side."""
    summary = json.loads(objects.read(Dataset(_training(model)["inputs"]["dataset"]).summary))
    return {side: summary[side] for side in ("train", "valid")}


def _differing(options: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The options whose values are not the same, with the value of each model."""
    names = {name: [each.get(name) for each in options] for name in options[0]}
    return {name: values for name, values in names.items() if any(value != values[0] for value in values)}
