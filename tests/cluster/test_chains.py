"""The chains on a real cluster: Argo's controller runs our images.

Run by `make test-cluster`, which starts the cluster and sets KUBECONFIG.
"""

from pathlib import Path

import pytest

from lobar.storage import objects
from tests.cluster.common import PARAMETERS, PREDICTING, ROOT, run_locally, submission, summary
from tests.support.argo import Run, argo, artifact, metric, options, submit, until

pytestmark = pytest.mark.cluster


def test_full_makes_the_same_submission_as_the_local_runner(full: Run, tmp_path: Path) -> None:
    parameters = PARAMETERS | {"model": f"{ROOT}/models/local", "artifacts": str(tmp_path)}
    run_locally("lobar.workflow", "workflows/full.yaml", *options(parameters))
    assert submission(full.name) == (tmp_path / "submission.csv").read_bytes()
    assert submission(full.name).count(b"\n") == 22


def test_the_controller_runs_the_same_commands_as_the_local_runner(full: Run) -> None:
    """The golden file has one line for all shards, with {{item}} for the number of the shard."""
    golden = (Path(__file__).parents[1] / "workflows/golden/full.txt").read_text()
    waits = full.waits_for()
    lines = []
    count = {"predict": int(PARAMETERS["shards"]), "export": 0}  # without a destination, export is skipped
    for task in ("label-index", "train", "evaluate", "plan", "predict", "merge-submission", "export"):
        lines.append(task + (f"  (after {', '.join(waits[task])})" if waits[task] else ""))
        names = sorted(name for name in full.arguments if name.split("(")[0] == task)
        assert len(names) == count.get(task, 1)
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
    assert metric("lobar_challenge_metric") == float(figures["challenge-metric"])
    assert metric('lobar_images{result="rejected"}') == 1
    assert objects.read(f"{ROOT}/{artifact(evaluate, 'report')}").startswith(b"<!doctype html>")
    assert objects.read(f"{ROOT}/{artifact(merge, 'submission')}") == submission(full.name)
    assert (
        full.of("predict(0:0)")["progress"].split("/")[0] == full.of("predict(0:0)")["progress"].split("/")[1]
    )
    lines = summary(full).splitlines()
    assert lines[0].startswith(f"{full.name}: Succeeded after ")
    assert any(line.startswith("  21 rows, ") for line in lines)
    header = next(line.split() for line in lines if line.split()[:2] == ["task", "retries"])
    train = next(line.split() for line in lines if line.split()[0] == "train")
    assert header[-1] == "cost"
    assert float(train[-1]) > 0


def test_one_new_image_is_one_shard(full: Run) -> None:
    header, *rows = submission(full.name).decode().splitlines()
    expected = next(row for row in rows if not row.endswith(","))  # has a box
    name = expected.split(",")[0] + ".dcm"
    objects.publish(f"{ROOT}/one/{name}", objects.read(f"{ROOT}/data/test_images/{name}"))
    one = {"images": f"{ROOT}/one", "model": f"{ROOT}/models/{full.name}", "shards": "0"}
    run = submit("workflows/predict.yaml", PREDICTING | one)
    run.expect_success()
    assert [task for task in run.arguments if task.startswith("predict(")] == ["predict(0:0)"]
    assert submission(run.name).decode().splitlines() == [header, expected]


def test_a_parameter_runs_prediction_on_the_gpu_pool(full: Run) -> None:
    """The node only declares a GPU, so TensorFlow computes on the CPU."""
    parameters = {"model": f"{ROOT}/models/{full.name}", "device": "gpu", "shards": "2"}
    run = submit("workflows/predict.yaml", PREDICTING | parameters)
    spec = until("a running shard", lambda: run.running("predict"))["spec"]
    (main,) = (item for item in spec["containers"] if item["name"] == "main")
    assert main["image"] == PARAMETERS["train-image"]
    assert main["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"key": "nvidia.com/gpu", "operator": "Exists"} in spec["tolerations"]
    run.expect_success()
    assert submission(run.name).count(b"\n") == submission(full.name).count(b"\n")


def test_a_wrong_input_is_not_retried_and_its_error_is_shown(full: Run) -> None:
    run = submit(
        "workflows/predict.yaml",
        PREDICTING | {"images": f"{ROOT}/none", "model": f"{ROOT}/models/{full.name}"},
    )
    assert run.ended() == "Failed"
    (attempt,) = run.attempts("plan")
    assert attempt["message"].startswith(f"main: Error (exit code 2): error: {ROOT}/none: no images there")
    assert "\n" not in attempt["message"]
    assert "-> the input is wrong" in summary(run)
    lines = argo("logs", run.name, "--no-color").splitlines()
    assert any(f": error: {ROOT}/none: no images there" in line for line in lines)
