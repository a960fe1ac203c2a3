"""Workflows whose pods are killed, deleted, evicted or stopped."""

import json
import os
import signal
from pathlib import Path

import pytest

from lobar.storage import objects
from tests.cluster.common import (
    PARAMETERS,
    PREDICTING,
    ROOT,
    kill_sidecar,
    pod_name,
    resume_until_end,
    run_locally,
    submission,
    suspend_after_first_epoch,
    suspend_shard,
)
from tests.support.argo import Run, argo, artifact, kubectl, submit, until

pytestmark = pytest.mark.cluster
INTERRUPTED = "(exit code 75): error: interrupted"


def test_a_lost_predict_pod_is_replaced(full: Run) -> None:
    """Like a lost node: the pod is deleted in the middle of its shard, without a signal."""
    run = submit("workflows/predict.yaml", PREDICTING | {"model": f"{ROOT}/models/{full.name}"})
    suspend_shard(run.name, 2)
    pod = run.running("predict(2:2)")
    kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
    until("another pod", lambda: _replaced(pod, run.running("predict(2:2)")))
    run.expect_success()
    assert submission(run.name) == submission(full.name)


def _replaced(before: dict, now: dict) -> bool:
    return bool(now) and now["metadata"]["uid"] != before["metadata"]["uid"]


def test_a_shard_whose_pod_is_evicted_is_computed_again(full: Run) -> None:
    """Like a drained spot node with a grace period of 15 s: the job gets SIGTERM."""
    run = submit("workflows/predict.yaml", PREDICTING | {"model": f"{ROOT}/models/{full.name}"})
    process = suspend_shard(run.name, 1)
    evict(pod_name(run, "predict(1:1)"))
    resume_until_end(process)
    run.expect_success()
    assert submission(run.name) == submission(full.name)


def evict(pod: str) -> None:
    """Evict a pod through the API, as a drained node does."""
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": "lobar"},
        "deleteOptions": {"gracePeriodSeconds": 15},
    }
    path = f"/api/v1/namespaces/lobar/pods/{pod}/eviction"
    kubectl("create", "--raw", path, "--filename=-", text=json.dumps(eviction))


def test_a_job_whose_outputs_could_not_be_stored_is_repeated(full: Run) -> None:
    run = submit("workflows/predict.yaml", PREDICTING | {"model": f"{ROOT}/models/{full.name}"})
    process = suspend_shard(run.name, 1)
    kill_sidecar(process)
    os.kill(process, signal.SIGCONT)
    run.expect_success()
    first, second = run.attempts("predict(1:1)")
    assert (first["phase"], first["outputs"]["exitCode"]) == ("Error", "0")
    assert second["phase"] == "Succeeded"
    assert submission(run.name) == submission(full.name)


def test_training_resumes_after_its_pod_was_deleted(cron: str) -> None:
    """Like a drained or preempted node: the pod is interrupted first."""
    changes = PARAMETERS["recipe-changes"].replace("epochs=12,", "epochs=120,")
    assert "epochs=120," in changes  # enough to be suspended before the last
    long = {"recipe-changes": changes, "registry": f"{ROOT}/other-registry"}
    run = submit("--from=cronwf/lobar-retrain", long)
    model = f"{ROOT}/models/{run.name}"
    process = suspend_after_first_epoch(model)
    kubectl("delete", "pod", pod_name(run, "train"), "--wait=false")
    resume_until_end(process)
    run.expect_success()
    first, second = run.attempts("train")
    # the message depends on whether the controller sees the pod's end or its deletion first
    assert first["message"] == "pod deleted" or INTERRUPTED in first["message"]
    assert second["phase"] == "Succeeded"
    assert "resumed after epoch" in objects.read(f"{ROOT}/{artifact(second, 'main-logs')}").decode()
    uninterrupted = f"{ROOT}/models/uninterrupted"
    run_locally("jobs", *run.arguments["train"], f"--out={uninterrupted}")
    files = [json.loads(objects.read(f"{url}/training.json"))["files"] for url in (model, uninterrupted)]
    assert files[0]["float32_weights"] == files[1]["float32_weights"]


def test_a_stopped_workflow_leaves_no_partial_objects(full: Run) -> None:
    outputs = {
        "dataset": f"{ROOT}/datasets/stopped",
        "model": f"{ROOT}/models/stopped",
        "prediction": f"{ROOT}/predictions/stopped",
    }
    run = submit("workflows/full.yaml", PARAMETERS | outputs)
    suspend_shard("stopped", 2)
    argo("stop", run.name)
    assert run.ended() == "Failed"
    remaining = [item.url for item in objects.list_objects(f"{ROOT}/predictions/stopped")]
    assert not any(url.endswith(("submission.json", "shards/0002.json")) for url in remaining)
    assert all(json.loads(objects.read(url)) for url in remaining if url.endswith(".json"))

    again = submit("workflows/full.yaml", PARAMETERS | outputs)
    again.expect_success()
    assert submission("stopped") == submission(full.name)


def test_retry_computes_only_the_shard_that_failed(full: Run, tmp_path: Path) -> None:
    """One object of the plan is missing, and restored before the retry."""
    prediction = f"{ROOT}/predictions/damaged"
    run_locally("jobs", *full.arguments["plan"], f"--out={prediction}", f"--figures={tmp_path}")
    table = objects.list_objects(f"{prediction}/plan/")[0].url
    content = objects.read(table)
    objects.remove(table)
    given = {"model": f"{ROOT}/models/{full.name}", "prediction": prediction}
    run = submit("workflows/predict.yaml", PREDICTING | given)
    assert run.ended() == "Failed"
    shards = [f"predict({number}:{number})" for number in range(int(PARAMETERS["shards"]))]
    before = {shard: run.attempts(shard) for shard in shards}
    (failed,) = (shard for shard in shards if before[shard][-1]["phase"] == "Failed")
    assert "there is no such object" in before[failed][-1]["message"]

    objects.publish(table, content)
    argo("retry", run.name)
    run.expect_success()
    after = {shard: run.attempts(shard) for shard in shards}
    assert after[failed][-1]["phase"] == "Succeeded"
    assert [shard for shard in shards if after[shard] != before[shard]] == [failed]
    assert submission("damaged") == submission(full.name)
