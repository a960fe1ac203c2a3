"""The nightly CronWorkflow, and predictions by the champion that it promotes."""

import json

import pytest

from lobar.storage import objects
from tests.cluster.common import PREDICTING, ROOT, summary
from tests.support import argo
from tests.support.argo import Run, submit

pytestmark = pytest.mark.cluster


def test_the_cron_trains_only_if_something_has_changed_and_promotes_only_a_better_model(cron: str) -> None:
    assert cron.startswith("lobar-retrain-")
    Run(cron).expect_success()
    promoted = Run(cron).attempts("promote")[-1]["outputs"]["parameters"]
    assert [item["value"] for item in promoted if item["name"] == "promoted"] == ["1"]

    again = submit("--from=cronwf/lobar-retrain", {})  # nothing has changed
    again.expect_success()
    assert {*again.arguments} == {"label-index", "onExit"}  # no pod asks for a GPU
    records = [json.loads(objects.read(f"{ROOT}/registry/{number:06d}.json")) for number in (1, 2)]
    assert [record["promoted"] for record in records] == [True, False]
    assert records[1]["champion"]["model"] == f"{ROOT}/models/{cron}"
    assert argo.metric("lobar_training_needed") == 0
    assert f"nothing new in {ROOT}/datasets/{again.name}: nothing trained" in summary(again)

    labels = objects.read(f"{ROOT}/data/train_labels.csv").decode().splitlines()
    row = next(i for i, line in enumerate(labels) if line.endswith(",1"))
    patient, x, *rest = labels[row].split(",")
    labels[row] = ",".join([patient, str(float(x) + 1), *rest])
    objects.publish(f"{ROOT}/data/changed_labels.csv", "\n".join([*labels, ""]).encode())
    changed = submit("--from=cronwf/lobar-retrain", {"labels": f"{ROOT}/data/changed_labels.csv"})
    changed.expect_success()
    assert {*changed.arguments} == {"label-index", "train", "evaluate", "promote", "onExit"}

    run = submit("workflows/predict.yaml", PREDICTING)  # by the champion
    run.expect_success()
    assert json.loads(objects.read(f"{ROOT}/predictions/{run.name}/plan.json"))["inputs"]["model"].endswith(
        cron
    )
