"""The workflows on a real cluster: Argo's controller runs our images, observed through the API server.

Run by `make test-cluster`, which starts the cluster and sets KUBECONFIG.
"""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from lobar.storage import objects
from tests.conftest import WORKFLOW, write_data
from tests.support import argo
from tests.support.argo import WORKFLOWS, Run, kubectl, submit, until
from tests.support.stores import use_server

pytestmark = pytest.mark.cluster
ROOT = "s3://lobar"
PARAMETERS = dict(item.split("=", 1) for item in WORKFLOW) | {"root": ROOT, "shards": "4"}
TRAINING = {name: value for name, value in PARAMETERS.items() if name not in ("shards", "max-rejected-new")}
INFERENCE_LIBRARY = "libopenvino_intel_cpu_plugin"
CPUS = "2"
SMALL_RESOURCES = {"cpu": "50m", "memory": "64Mi", "ephemeral-storage": "1Mi"}
PREDICTING = {name: PARAMETERS[name] for name in ("root", "shards", "max-rejected-new")}


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The cluster of KUBECONFIG, with data in its bucket, which this process can also read."""
    if "KUBECONFIG" not in os.environ:
        pytest.skip("no cluster: make test-cluster starts one")
    _reduce_resources()
    secret = json.loads(kubectl("get", "secret", "lobar-store", "-o", "json"))["data"]
    environment = {name: base64.b64decode(value).decode() for name, value in secret.items()}
    address = kubectl("get", "service", "minio", "-o", "jsonpath={.spec.clusterIP}")
    folder = tmp_path_factory.mktemp("here")
    write_data(folder)
    with use_server(environment | {"AWS_ENDPOINT_URL": f"http://{address}:9000"}):
        for path in folder.rglob("*.*"):
            objects.publish_file(f"{ROOT}/{path.relative_to(folder)}", path)
        yield


def _reduce_resources() -> None:
    """This machine has fewer CPUs than the templates request, and than train may use."""
    smaller = [
        {"op": "replace", "path": f"/spec/templates/{i}/container/resources/{path}", "value": value}
        for i, template in enumerate(_templates())
        if "container" in template
        for path, value in (("requests", SMALL_RESOURCES), ("limits/cpu", CPUS))
    ]
    kubectl("patch", "workflowtemplate", "lobar", "--type=json", f"--patch={json.dumps(smaller)}")


def _templates() -> list[dict[str, Any]]:
    return yaml.safe_load((WORKFLOWS / "lobar.yaml").read_text())["spec"]["templates"]


@pytest.fixture(scope="module")
def full(cluster: None) -> Run:
    run = submit(WORKFLOWS / "full.yaml", PARAMETERS)
    assert run.ended() == "Succeeded", run.nodes()
    return run


def submission(name: str) -> bytes:
    return objects.read(f"{ROOT}/predictions/{name}/submission.csv")


def run_locally(module: str, *arguments: str) -> None:
    """Run a module outside the cluster."""
    # as many threads for training as in the pod: floating-point sums depend on their number
    environment = {**os.environ, "LOBAR_CPUS": CPUS}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_full_makes_the_same_submission_as_the_local_runner(full: Run, tmp_path: Path) -> None:
    parameters = PARAMETERS | {"model": f"{ROOT}/models/local", "artifacts": str(tmp_path)}
    options = (word for name, value in parameters.items() for word in ("-p", f"{name}={value}"))
    run_locally("lobar.workflow", "workflows/full.yaml", *options)
    assert submission(full.name) == (tmp_path / "submission.csv").read_bytes()
    assert submission(full.name).count(b"\n") == 22


def test_the_controller_runs_the_same_commands_as_the_local_runner(full: Run) -> None:
    """The golden file has one line for all shards, with {{item}} for the number of the shard."""
    golden = (Path(__file__).parents[1] / "workflows/golden/full.txt").read_text()
    waits = full.waits_for()
    lines = []
    for task in ("label-index", "train", "evaluate", "plan", "predict", "merge-submission"):
        lines.append(task + (f"  (after {', '.join(waits[task])})" if waits[task] else ""))
        names = sorted(name for name in full.arguments if name.split("(")[0] == task)
        assert len(names) == (int(PARAMETERS["shards"]) if task == "predict" else 1)
        commands = set()
        for number, name in enumerate(names):
            command = "    " + " ".join(full.arguments[name]).replace(full.name, "NAME")
            commands.add(command.replace(f"--shard={number} ", "--shard={{item}} "))
        lines += sorted(commands)
    assert "\n".join(lines) + "\n" == golden
    (shards,) = full.attempts("plan")[-1]["outputs"]["parameters"]
    assert (shards["name"], shards["value"]) == ("shards", PARAMETERS["shards"])


def test_a_run_has_its_metrics_and_artifacts(full: Run) -> None:
    evaluate, merge = full.attempts("evaluate")[-1], full.attempts("merge-submission")[-1]
    figures = {
        parameter["name"]: parameter["value"]
        for node in (evaluate, merge)
        for parameter in node["outputs"]["parameters"]
    }
    assert 0 < float(figures["challenge-metric"]) <= 1
    assert (figures["rows"], figures["rejected"]) == ("21", "1")
    assert argo.metric("lobar_challenge_metric") == float(figures["challenge-metric"])
    assert argo.metric('lobar_images{result="rejected"}') == 1
    keys = {
        item["name"]: item["s3"]["key"] for node in (evaluate, merge) for item in node["outputs"]["artifacts"]
    }
    assert objects.read(f"{ROOT}/{keys['report']}").startswith(b"<!doctype html>")
    assert objects.read(f"{ROOT}/{keys['submission']}") == submission(full.name)
    assert (
        full.of("predict(0:0)")["progress"].split("/")[0] == full.of("predict(0:0)")["progress"].split("/")[1]
    )
    summary = full.attempts_at_exit()[-1]
    (page,) = (item["s3"]["key"] for item in summary["outputs"]["artifacts"] if item["name"] == "summary")
    lines = objects.read(f"{ROOT}/{page}").decode().splitlines()
    assert lines[0].startswith(f"{full.name}: Succeeded after ")
    assert any(line.startswith("  21 rows, ") for line in lines)


def test_a_lost_predict_pod_is_replaced(full: Run) -> None:
    """Like a lost node: the pod is deleted in the middle of its shard, without a signal."""
    run = submit(WORKFLOWS / "predict.yaml", PREDICTING | {"model": f"{ROOT}/models/{full.name}"})
    until(
        "a shard that has loaded its network", lambda: _suspended("--shard=2", INFERENCE_LIBRARY), every=0.02
    )
    pod = run.running("predict(2:2)")
    kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
    until("another pod", lambda: _replaced(pod, run.running("predict(2:2)")))
    assert run.ended() == "Succeeded"
    assert submission(run.name) == submission(full.name)


def _suspended(argument: str, library: str) -> bool:
    """Suspend the job with this argument if it has loaded this library; return whether it has."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # a process may end during the search
            words = (folder / "cmdline").read_text().split("\0")
            if words[0].endswith("python") and argument in words and library in (folder / "maps").read_text():
                os.kill(int(folder.name), signal.SIGSTOP)
                return True
    return False


def _replaced(before: dict, now: dict) -> bool:
    return bool(now) and now["metadata"]["uid"] != before["metadata"]["uid"]


def test_a_parameter_runs_prediction_on_the_gpu_pool(full: Run) -> None:
    """The node only declares a GPU, so TensorFlow computes on the CPU."""
    parameters = {"model": f"{ROOT}/models/{full.name}", "device": "gpu", "shards": "2"}
    run = submit(WORKFLOWS / "predict.yaml", PREDICTING | parameters)
    spec = until("a running shard", lambda: run.running("predict"))["spec"]
    (main,) = (item for item in spec["containers"] if item["name"] == "main")
    assert main["image"].startswith("lobar-train:")
    assert main["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"key": "nvidia.com/gpu", "operator": "Exists"} in spec["tolerations"]
    assert run.ended() == "Succeeded"
    assert submission(run.name).count(b"\n") == submission(full.name).count(b"\n")


def test_a_wrong_input_is_not_retried_and_its_error_is_shown(full: Run) -> None:
    run = submit(
        WORKFLOWS / "predict.yaml",
        PREDICTING | {"images": f"{ROOT}/none", "model": f"{ROOT}/models/{full.name}"},
    )
    assert run.ended() == "Failed"
    (attempt,) = run.attempts("plan")
    assert attempt["message"].startswith(f"main: Error (exit code 2): error: {ROOT}/none: no images there")
    assert "\n" not in attempt["message"]
    (page,) = (
        item["s3"]["key"]
        for item in run.attempts_at_exit()[-1]["outputs"]["artifacts"]
        if item["name"] == "summary"
    )
    assert "-> the input is wrong" in objects.read(f"{ROOT}/{page}").decode()


def test_training_resumes_after_its_pod_was_deleted(cluster: None) -> None:
    """Like a drained or preempted node: the pod is interrupted first."""
    changes = PARAMETERS["recipe-changes"].replace("epochs=12,", "epochs=120,")
    assert "epochs=120," in changes  # half a minute, in which the pod is deleted
    long = {"recipe-changes": changes, "registry": f"{ROOT}/other-registry"}
    run = submit(WORKFLOWS / "retrain.yaml", TRAINING | long)
    model = f"{ROOT}/models/{run.name}"
    until("the first epoch", lambda: any("checkpoints" in item.url for item in objects.list_objects(model)))
    kubectl("delete", "pod", run.running("train")["metadata"]["name"], "--wait=false")
    assert run.ended() == "Succeeded"
    first, second = run.attempts("train")
    # the message depends on whether the controller sees the pod's end or its deletion first
    assert "(exit code 75): error: interrupted" in first["message"] or first["message"] == "pod deleted"
    assert second["phase"] == "Succeeded"
    log = next(item["s3"]["key"] for item in second["outputs"]["artifacts"] if item["name"] == "main-logs")
    assert "resumed after epoch" in objects.read(f"{ROOT}/{log}").decode()
    uninterrupted = f"{ROOT}/models/uninterrupted"
    run_locally("jobs", *run.arguments["train"], f"--out={uninterrupted}")
    files = [json.loads(objects.read(f"{url}/training.json"))["files"] for url in (model, uninterrupted)]
    assert files[0]["float32_weights"] == files[1]["float32_weights"]


def test_the_cron_retrains_and_promotes_only_a_better_model(full: Run) -> None:
    document = yaml.safe_load((WORKFLOWS / "retrain.yaml").read_text())
    document["spec"]["schedules"] = ["* * * * *"]
    argo.with_parameters(document["spec"]["workflowSpec"], TRAINING)
    before = {run.name for run in argo.runs()}
    kubectl("apply", "-f", "-", text=json.dumps(document))
    name = until("the cron", lambda: {run.name for run in argo.runs()} - before, 130).pop()
    kubectl("patch", "cronworkflow", "lobar-retrain", "--type=merge", '--patch={"spec": {"suspend": true}}')
    assert name.startswith("lobar-retrain-")
    assert Run(name).ended() == "Succeeded"
    promoted = Run(name).attempts("promote")[-1]["outputs"]["parameters"]
    assert [item["value"] for item in promoted if item["name"] == "promoted"] == ["1"]

    again = submit(WORKFLOWS / "retrain.yaml", TRAINING)  # an equal model
    assert again.ended() == "Succeeded"
    records = [json.loads(objects.read(f"{ROOT}/registry/{number:06d}.json")) for number in (1, 2)]
    assert [record["promoted"] for record in records] == [True, False]
    assert records[1]["champion"]["model"] == f"{ROOT}/models/{name}"

    run = submit(WORKFLOWS / "predict.yaml", PREDICTING)  # by the champion
    assert run.ended() == "Succeeded"
    assert json.loads(objects.read(f"{ROOT}/predictions/{run.name}/plan.json"))["inputs"]["model"].endswith(
        name
    )


def test_a_stopped_workflow_leaves_no_partial_objects(full: Run) -> None:
    outputs = {
        "dataset": f"{ROOT}/datasets/stopped",
        "model": f"{ROOT}/models/stopped",
        "prediction": f"{ROOT}/predictions/stopped",
    }
    run = submit(WORKFLOWS / "full.yaml", PARAMETERS | outputs)
    until(
        "a shard that has loaded its network", lambda: _suspended("--shard=2", INFERENCE_LIBRARY), every=0.02
    )
    kubectl("patch", "workflow", run.name, "--type=merge", '--patch={"spec": {"shutdown": "Stop"}}')
    assert run.ended() == "Failed"
    remaining = [item.url for item in objects.list_objects(f"{ROOT}/predictions/stopped")]
    assert not any(url.endswith(("submission.json", "shards/0002.json")) for url in remaining)
    assert all(json.loads(objects.read(url)) for url in remaining if url.endswith(".json"))

    again = submit(WORKFLOWS / "full.yaml", PARAMETERS | outputs)
    assert again.ended() == "Succeeded"
    assert submission("stopped") == submission(full.name)


def _pod() -> dict[str, Any]:
    """A pod with the restrictions of our templates."""
    template = next(template for template in _templates() if "container" in template)
    container = {
        "name": "main",
        "image": "lobar",
        "securityContext": template["container"]["securityContext"],
        "resources": {"requests": SMALL_RESOURCES, "limits": SMALL_RESOURCES},
    }
    spec = {"containers": [container], "securityContext": template["securityContext"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "restricted"}, "spec": spec}


def _create_dry_run(pod: dict[str, Any]) -> str:
    return kubectl("create", "--dry-run=server", "--filename=-", text=json.dumps(pod))


@pytest.mark.parametrize(
    ("part", "setting", "value"),
    [
        ("pod", "runAsNonRoot", False),
        ("pod", "runAsUser", 0),
        ("pod", "seccompProfile", {"type": "Unconfined"}),
        ("container", "allowPrivilegeEscalation", True),
        ("container", "privileged", True),
        ("container", "capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
        ("container", "capabilities", {}),
        ("spec", "hostNetwork", True),
        ("spec", "hostPID", True),
        ("spec", "volumes", [{"name": "host", "hostPath": {"path": "/"}}]),
    ],
)
def test_a_pod_without_one_of_our_restrictions_is_rejected(
    cluster: None, part: str, setting: str, value: object
) -> None:
    assert "created (server dry run)" in _create_dry_run(_pod())
    pod = _pod()
    spec = pod["spec"]
    changed = {
        "pod": spec["securityContext"],
        "container": spec["containers"][0]["securityContext"],
        "spec": spec,
    }[part]
    changed[setting] = value
    if setting == "privileged":
        changed.pop("allowPrivilegeEscalation")
    rejected = 'violates PodSecurity "restricted:latest"|disallowed by cluster policy'
    with pytest.raises(AssertionError, match=rejected):
        _create_dry_run(pod)
