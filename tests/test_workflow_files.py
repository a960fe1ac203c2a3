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
from lobar import workflow_steps

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = ROOT / "workflows"
RUNNABLE = ["full.yaml"]


def _load(name: str) -> dict[str, Any]:
    return yaml.safe_load((WORKFLOWS / name).read_text())


def _steps() -> list[workflow_steps.Step]:
    return [
        step
        for name in RUNNABLE
        for task in workflow_steps.read(WORKFLOWS / name, {}).tasks
        for step in task.steps
    ]


def test_full_runs_the_jobs_in_order() -> None:
    read = workflow_steps.read(
        WORKFLOWS / "full.yaml", {"shards": "3", "root": "r", "labels": "l.csv", "groups": ""}
    )
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


def test_the_jobs_understand_their_arguments() -> None:
    for step in _steps():
        python, dash_m, package, name, *arguments = step.command
        assert (python, dash_m, package) == (sys.executable, "-m", "jobs")
        typer.main.get_command(jobs.command(name)).make_context(name, arguments)


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_declared_parameter_is_used(name: str) -> None:
    document = _load(name)
    text = json.dumps(document["spec"]["templates"])
    for parameter in document["spec"]["arguments"]["parameters"]:
        assert f"{{{{workflow.parameters.{parameter['name']}}}}}" in text, parameter["name"]


@pytest.mark.parametrize("name", [*RUNNABLE, "job-templates.yaml"])
def test_every_input_is_used_and_every_used_one_declared(name: str) -> None:
    for template in _load(name)["spec"]["templates"]:
        declared = [parameter["name"] for parameter in template["inputs"]["parameters"]]
        used = re.findall(r"{{inputs\.parameters\.([\w-]+)}}", json.dumps(template))
        assert sorted(declared) == sorted({*used}), template["name"]
        assert all(parameter.get("description") for parameter in template["inputs"]["parameters"])


def test_templates_ask_for_nothing_but_what_they_declare() -> None:
    """Whoever takes a template by templateRef sees all that it needs in its inputs."""
    assert "{{workflow." not in json.dumps(_load("job-templates.yaml"))


def test_templates_agree_on_what_is_not_their_own() -> None:
    templates = {template["name"]: template for template in _load("job-templates.yaml")["spec"]["templates"]}
    assert {*templates} <= {*jobs.JOBS}
    for name, template in templates.items():
        container = template["container"]
        assert template["retryStrategy"] == workflow_steps.RETRY
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
        on_gpu = name == "train"
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == on_gpu
        assert ("tolerations" in template) == on_gpu


@pytest.mark.parametrize("name", [*RUNNABLE, "job-templates.yaml"])
def test_argos_python_client_reads_and_writes_them_unchanged(name: str) -> None:
    from argo_workflows.api_client import ApiClient
    from argo_workflows.model.io_argoproj_workflow_v1alpha1_workflow import IoArgoprojWorkflowV1alpha1Workflow
    from argo_workflows.model.io_argoproj_workflow_v1alpha1_workflow_template import (
        IoArgoprojWorkflowV1alpha1WorkflowTemplate,
    )

    models = {
        "Workflow": IoArgoprojWorkflowV1alpha1Workflow,
        "WorkflowTemplate": IoArgoprojWorkflowV1alpha1WorkflowTemplate,
    }
    document = _load(name)
    client = ApiClient()
    answer = SimpleNamespace(data=json.dumps(document))
    typed = client.deserialize(answer, (models[document["kind"]],), _check_type=True)
    assert client.sanitize_for_serialization(typed) == document
