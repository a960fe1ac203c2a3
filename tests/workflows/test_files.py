"""Our own workflow files: what they run, declare and agree on."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
import yaml

from jobs import __main__ as jobs
from lobar.workflow import steps
from tests.conftest import WORKFLOW

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / "workflows"
RUNNABLE = ["full.yaml", "predict.yaml", "retrain.yaml"]


def _load(name: str) -> dict[str, Any]:
    return yaml.safe_load((WORKFLOWS / name).read_text())


def _spec(name: str) -> dict[str, Any]:
    """What a run of the file is made of."""
    spec = _load(name)["spec"]
    return spec.get("workflowSpec", spec)


def _steps() -> list[steps.Step]:
    return [
        step for name in RUNNABLE for task in steps.read(WORKFLOWS / name, {}).tasks for step in task.steps
    ]


def test_full_runs_the_jobs_in_order() -> None:
    read = steps.read(WORKFLOWS / "full.yaml", {"shards": "3", "root": "r", "labels": "l.csv", "groups": ""})
    assert [(task.name, task.needs, len(task.steps)) for task in read.tasks] == [
        ("label-index", (), 1),
        ("train", ("label-index",), 1),
        ("evaluate", ("train",), 1),
        ("plan", ("evaluate",), 1),
        ("predict", ("plan",), 3),
        ("merge-submission", ("predict",), 1),
    ]
    label_index, predict = read.tasks[0].steps[0], read.tasks[4].steps
    assert label_index.command[:4] == (sys.executable, "-m", "jobs", "label-index")
    assert {"--labels=l.csv", "--groups=", f"--out=r/datasets/{read.name}"} <= {*label_index.command}
    assert [f"--shard={number}" in step.command for number, step in enumerate(predict)] == [True] * 3
    assert all(
        step.retries and step.cpu_variables == ("LOBAR_CPUS",) for task in read.tasks for step in task.steps
    )


def test_full_is_what_argos_controller_makes_of_it() -> None:
    """The golden file is what the controller of a real cluster ran, see test_cluster.py."""
    given = dict(item.split("=") for item in WORKFLOW) | {"root": "s3://lobar", "shards": "4"}
    read = steps.read(WORKFLOWS / "full.yaml", given)
    lines = []
    for task in read.tasks:
        lines.append(task.name + (f"  (after {', '.join(task.needs)})" if task.needs else ""))
        lines += ["    " + " ".join(step.command[3:]).replace(read.name, "NAME") for step in task.steps]
    assert "\n".join(lines) + "\n" == (ROOT / "tests/workflows/golden/full.txt").read_text()


def test_predict_asks_the_registry_for_its_model() -> None:
    plan, *_ = steps.read(WORKFLOWS / "predict.yaml", {"root": "r", "images": "new"}).tasks
    assert {"--model=r/registry", "--images=new", "--device=cpu"} <= {*plan.steps[0].command}


def test_retrain_ends_with_a_comparison() -> None:
    read = steps.read(WORKFLOWS / "retrain.yaml", {"root": "r", "min-gain": "0.01"})
    assert [task.name for task in read.tasks] == ["label-index", "train", "evaluate", "promote"]
    made = {f"--challenger=r/models/{read.name}", f"--dataset=r/datasets/{read.name}"}
    assert made | {"--registry=r/registry", "--min-gain=0.01"} <= {*read.tasks[-1].steps[0].command}


def test_workflows_agree_on_what_is_not_their_own() -> None:
    """A parameter means the same and has the same default in each of them; so do the bounds of a run."""
    declared: dict[str, Any] = {}
    for name in RUNNABLE:
        for parameter in _spec(name)["arguments"]["parameters"]:
            assert declared.setdefault(parameter["name"], parameter) == parameter
            assert parameter.get("description"), parameter["name"]
    own = ("entrypoint", "activeDeadlineSeconds", "metrics", "arguments", "templates")
    first, *others = [
        {key: value for key, value in _spec(name).items() if key not in own} for name in RUNNABLE
    ]
    assert all(other == first for other in others)
    assert all(_spec(name)["activeDeadlineSeconds"] > 0 for name in RUNNABLE)


def test_a_nightly_run_ends_before_the_next() -> None:
    spec = _load("retrain.yaml")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["timezone"]
    assert spec["startingDeadlineSeconds"] > 0
    assert spec["workflowSpec"]["activeDeadlineSeconds"] < 24 * 3600


def test_the_jobs_understand_their_arguments() -> None:
    for step in _steps():
        python, dash_m, package, name, *arguments = step.command
        assert (python, dash_m, package) == (sys.executable, "-m", "jobs")
        typer.main.get_command(jobs.command(name)).make_context(name, arguments)


def test_the_jobs_understand_the_arguments_of_every_template() -> None:
    """Also of those that no local run has: the summary at the end, and demo data."""
    for template in _load("job-templates.yaml")["spec"]["templates"]:
        values = {"network": "notebook", "status": "Failed"}
        for parameter in template["inputs"]["parameters"]:
            values.setdefault(parameter["name"], parameter.get("value", "1"))
        job, *arguments = (
            re.sub(r"{{inputs\.parameters\.([\w-]+)}}", lambda found, v=values: v[found[1]], argument)
            for argument in template["container"]["args"]
        )
        typer.main.get_command(jobs.command(job)).make_context(job, arguments)


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_declared_parameter_is_used(name: str) -> None:
    spec = _spec(name)
    text = json.dumps([spec["templates"], spec["podMetadata"]])
    used = {*re.findall(r"{{workflow\.parameters\.([\w-]+)}}", text)}
    assert used == {parameter["name"] for parameter in spec["arguments"]["parameters"]}


@pytest.mark.parametrize("name", [*RUNNABLE, "job-templates.yaml"])
def test_every_input_is_used_and_every_used_one_declared(name: str) -> None:
    for template in _spec(name)["templates"]:
        declared = [parameter["name"] for parameter in template["inputs"]["parameters"]]
        plain = re.findall(r"{{inputs\.parameters\.([\w-]+)}}", json.dumps(template))
        expression = template.get("podSpecPatch", "")
        in_expression = re.findall(r"inputs\.parameters(?:\.|\[\")([\w-]+)", expression)
        assert sorted(declared) == sorted({*plain, *in_expression}), template["name"]
        assert all(parameter.get("description") for parameter in template["inputs"]["parameters"])


def test_templates_ask_for_nothing_but_what_they_declare() -> None:
    """Whoever takes a template by templateRef sees all that it needs in its inputs."""
    assert "{{workflow." not in json.dumps(_load("job-templates.yaml"))


def test_templates_agree_on_what_is_not_their_own() -> None:
    templates = {template["name"]: template for template in _load("job-templates.yaml")["spec"]["templates"]}
    assert {*templates} <= {*jobs.JOBS}
    for name, template in templates.items():
        container = template["container"]
        assert template["retryStrategy"] == steps.RETRY
        assert container["command"] == ["python", "-m", "jobs"]
        assert container["args"][0] == name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert template["securityContext"]["runAsNonRoot"]
        assert template["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
        assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
        assert int(template["activeDeadlineSeconds"]) > 0
        assert template["pendingTimeout"]
        on_gpu = name == "train"
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == on_gpu
        assert ("tolerations" in template) == on_gpu


@pytest.mark.parametrize("name", [*RUNNABLE, "job-templates.yaml"])
def test_argos_python_client_reads_and_writes_them_unchanged(name: str) -> None:
    from argo_workflows.api_client import ApiClient
    from argo_workflows.model.io_argoproj_workflow_v1alpha1_cron_workflow import (
        IoArgoprojWorkflowV1alpha1CronWorkflow,
    )
    from argo_workflows.model.io_argoproj_workflow_v1alpha1_workflow import IoArgoprojWorkflowV1alpha1Workflow
    from argo_workflows.model.io_argoproj_workflow_v1alpha1_workflow_template import (
        IoArgoprojWorkflowV1alpha1WorkflowTemplate,
    )

    models = {
        "CronWorkflow": IoArgoprojWorkflowV1alpha1CronWorkflow,
        "Workflow": IoArgoprojWorkflowV1alpha1Workflow,
        "WorkflowTemplate": IoArgoprojWorkflowV1alpha1WorkflowTemplate,
    }
    document = _load(name)
    for template in document["spec"].get("templates", []):
        template.pop("pendingTimeout", None)  # the client ends before Argo 4.1
    client = ApiClient()
    answer = SimpleNamespace(data=json.dumps(document))
    typed = client.deserialize(answer, (models[document["kind"]],), _check_type=True)
    assert client.sanitize_for_serialization(typed) == document
