"""The nightly CronWorkflow, and predictions by the champion that it promotes."""

import json

import pytest

from lobar.storage import objects
from tests.cluster.common import PREDICTING, ROOT
from tests.support.argo import Run, submit

pytestmark = pytest.mark.cluster


def test_the_cron_retrains_and_promotes_only_a_better_model(cron: str) -> None:
    assert cron.startswith("lobar-retrain-")
    assert Run(cron).ended() == "Succeeded"
    promoted = Run(cron).attempts("promote")[-1]["outputs"]["parameters"]
    assert [item["value"] for item in promoted if item["name"] == "promoted"] == ["1"]

    again = submit("--from=cronwf/lobar-retrain", {})  # an equal model
    assert again.ended() == "Succeeded"
    records = [json.loads(objects.read(f"{ROOT}/registry/{number:06d}.json")) for number in (1, 2)]
    assert [record["promoted"] for record in records] == [True, False]
    assert records[1]["champion"]["model"] == f"{ROOT}/models/{cron}"

    run = submit("workflows/predict.yaml", PREDICTING)  # by the champion
    assert run.ended() == "Succeeded"
    assert json.loads(objects.read(f"{ROOT}/predictions/{run.name}/plan.json"))["inputs"]["model"].endswith(
        cron
    )
