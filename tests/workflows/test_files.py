"""Our own workflow files: what they run and declare, and what must agree."""

import inspect
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import pytest
import typer
import yaml

from jobs import __main__ as jobs
from jobs import label_index, plan, promote
from lobar.inference import engines
from lobar.workflow import steps
from tests.conftest import WORKFLOW

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / "workflows"
RUNNABLE = ["full.yaml", "predict.yaml", "retrain.yaml"]
FILES = ["lobar.yaml", *RUNNABLE]
CHAINS = ["full", "predict", "retrain"]
SHARDS = "tasks.plan.outputs.parameters.shards"
TRAINING_NEEDED = "tasks.label-index.outputs.parameters.training-needed"


def _load(name: str) -> dict[str, Any]:
    return yaml.safe_load((WORKFLOWS / name).read_text())


def _spec(name: str) -> dict[str, Any]:
    """The file's own fields of a run."""
    spec = _load(name)["spec"]
    return spec.get("workflowSpec", spec)


def _templates(kind: str) -> list[dict[str, Any]]:
    """The templates of lobar.yaml with a `dag` or a `container`."""
    return [template for template in _spec("lobar.yaml")["templates"] if kind in template]


def _steps() -> list[steps.Step]:
    """All steps of all files, with one shard."""
    return [
        step
        for name in RUNNABLE
        for task in steps.read(WORKFLOWS / name, {}).tasks
        for step in task.expand({SHARDS: "1", TRAINING_NEEDED: "1"})
    ]


def test_full_runs_the_jobs_in_order() -> None:
    given = {"root": "r", "labels": "l.csv", "groups": "", "artifacts": "a"}
    read = steps.read(WORKFLOWS / "full.yaml", given)
    expanded = [task.expand({SHARDS: "3"}) for task in read.tasks]
    tasks = zip(read.tasks, expanded, strict=True)
    assert [(task.name, task.needs, len(task_steps)) for task, task_steps in tasks] == [
        ("label-index", (), 1),
        ("train", ("label-index",), 1),
        ("evaluate", ("train",), 1),
        ("plan", ("evaluate",), 1),
        ("predict", ("plan",), 3),
        ("merge-submission", ("predict",), 1),
        ("export", ("merge-submission",), 0),
    ]
    label_index, plan_step, predict = expanded[0][0], expanded[3][0], expanded[4]
    assert label_index.command[:4] == (sys.executable, "-m", "jobs", "label-index")
    assert {"--labels=l.csv", "--groups=", f"--out=r/datasets/{read.name}"} <= {*label_index.command}
    assert plan_step.outputs == {SHARDS: Path("a/figures/shards")}
    assert [f"--shard={number}" in step.command for number, step in enumerate(predict)] == [True] * 3
    assert all(
        step.retries and step.cpu_variables == ("LOBAR_CPUS",)
        for task_steps in expanded
        for step in task_steps
    )


def test_full_is_what_argos_controller_makes_of_it() -> None:
    """The golden file is what the controller of a real cluster ran, see test_chains.py."""
    given = dict(item.split("=", 1) for item in WORKFLOW) | {"root": "s3://lobar", "shards": "4"}
    read = steps.read(WORKFLOWS / "full.yaml", given)
    lines = []
    for task in read.tasks:
        lines.append(task.name + (f"  (after {', '.join(task.needs)})" if task.needs else ""))
        lines += ["    " + " ".join(step.command[3:]).replace(read.name, "NAME") for step in task.steps]
    assert "\n".join(lines) + "\n" == (ROOT / "tests/workflows/golden/full.txt").read_text()


def test_predict_asks_the_registry_for_its_model() -> None:
    first, *_ = steps.read(WORKFLOWS / "predict.yaml", {"root": "r", "images": "new"}).tasks
    assert {"--model=r/registry", "--images=new", "--device=cpu"} <= {*first.steps[0].command}


@pytest.mark.parametrize("name", ["full.yaml", "predict.yaml"])
def test_reports_are_written_if_there_is_a_destination(name: str) -> None:
    *_, none = steps.read(WORKFLOWS / name, {}).tasks
    *_, task = steps.read(WORKFLOWS / name, {"export": "dicomweb+https://h/x", "root": "r"}).tasks
    assert none.name == task.name == "export"
    assert none.expand({SHARDS: "3"}) == ()
    commands = [step.command for step in task.expand({SHARDS: "3"})]
    assert [f"--shard={number}" in command for number, command in enumerate(commands)] == [True] * 3
    assert all("--to=dicomweb+https://h/x" in command for command in commands)


def test_retrain_ends_with_a_comparison() -> None:
    read = steps.read(WORKFLOWS / "retrain.yaml", {"root": "r", "min-gain": "0.01"})
    assert [task.name for task in read.tasks] == ["label-index", "train", "evaluate", "promote"]
    assert "--registry=r/registry" in read.tasks[0].steps[0].command
    folders = {f"--challenger=r/models/{read.name}", f"--dataset=r/datasets/{read.name}"}
    assert folders | {"--registry=r/registry", "--min-gain=0.01"} <= {*read.tasks[-1].steps[0].command}


def test_retrain_ends_after_label_index_if_there_is_nothing_new() -> None:
    """What label-index compares is what train is started with."""
    label_index, *others = steps.read(WORKFLOWS / "retrain.yaml", {"recipe": "demo", "seed": "3"}).tasks
    assert [len(task.expand({TRAINING_NEEDED: "1"})) for task in others] == [1, 1, 1]
    assert [len(task.expand({TRAINING_NEEDED: "0"})) for task in others] == [0, 0, 0]
    compared, trained = label_index.steps[0].command, others[0].steps[0].command
    assert {"--recipe=demo", "--set=", "--seed=3"} <= {*compared} & {*trained}
    assert "--training=if-changed" in compared


def test_each_file_starts_one_chain_of_the_template() -> None:
    """What they share is in the template alone, so that it is the same in each of them."""
    for name, chain in zip(RUNNABLE, CHAINS, strict=True):
        spec = _spec(name)
        assert spec.pop("workflowTemplateRef") == {"name": _load("lobar.yaml")["metadata"]["name"]}
        assert spec.pop("entrypoint") == chain
        assert {*spec} <= {"activeDeadlineSeconds"}
        assert all(seconds > 0 for seconds in spec.values())
    assert _spec("lobar.yaml")["activeDeadlineSeconds"] > 0
    assert [template["name"] for template in _templates("dag")] == CHAINS


def test_every_parameter_is_declared_once_with_a_value_and_a_description() -> None:
    parameters = _spec("lobar.yaml")["arguments"]["parameters"]
    assert len({parameter["name"] for parameter in parameters}) == len(parameters)
    for parameter in parameters:
        assert parameter.get("description"), parameter["name"]
        assert parameter["value"] in parameter.get("enum", [parameter["value"]])


def test_possible_values_are_those_of_the_jobs() -> None:
    parameters = _spec("lobar.yaml")["arguments"]["parameters"]
    options = get_type_hints(plan.main) | get_type_hints(label_index.main)
    assert {each["name"]: each["enum"] for each in parameters if "enum" in each} == {
        "training": [*get_args(options["training"])],
        "device": [*get_args(options["device"])],
        "precision": ["auto", *engines.PRECISIONS],
        "operating-point": [*get_args(options["operating_point"])],
        "body-parts": ["only-chests", "any-body-part"],
    }


def test_workflows_and_jobs_have_the_same_defaults() -> None:
    """Of the options that a person may leave out in both."""
    values = {each["name"]: each["value"] for each in _spec("lobar.yaml")["arguments"]["parameters"]}
    defaults = {
        name: parameter.default
        for job in (label_index, plan, promote)
        for name, parameter in inspect.signature(job.main).parameters.items()
    }
    shared = {name for name in values if name.replace("-", "_") in defaults}
    assert {"min-gain", "training", "valid-fraction", "seed", "images-per-shard", "device"} <= shared
    for name in shared - {"recipe"}:  # label-index needs none
        assert type(defaults[name.replace("-", "_")])(values[name]) == defaults[name.replace("-", "_")], name


def test_chains_agree_on_inputs_of_the_same_name() -> None:
    """Except for `images`, which are labelled or new, and for the `model`, which is new or given."""
    summary = [template for template in _templates("container") if template["name"] == "summary"]
    declared: dict[str, Any] = {}
    different = set()
    for template in [*_templates("dag"), *summary]:
        for parameter in template["inputs"]["parameters"]:
            if declared.setdefault(parameter["name"], parameter) != parameter:
                different.add(parameter["name"])
    assert different == {"images", "model"}


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


@pytest.mark.parametrize("entrypoint", [*CHAINS, "demo-data"])
def test_the_jobs_understand_the_arguments_of_every_template(entrypoint: str) -> None:
    """Also of those that no local run has: the summary at the end, and demo data."""
    parameters = _spec("lobar.yaml")["arguments"]["parameters"]
    values = {f"workflow.parameters.{each['name']}": each["value"] for each in parameters}
    values |= {"workflow.name": "w", "workflow.status": "Failed", "workflow.duration": "1"}
    values |= {"workflow.mainEntrypoint": entrypoint}
    for template in _templates("container"):
        inputs = template["inputs"]["parameters"]
        known = values | {f"inputs.parameters.{each['name']}": each.get("value", "1") for each in inputs}
        job, *arguments = (
            re.sub(r"{{([\w.-]+)}}", lambda tag, known=known: known[tag[1]], argument)
            for argument in template["container"]["args"]
        )
        typer.main.get_command(jobs.command(job)).make_context(job, arguments)


def test_every_declared_parameter_is_used_and_every_used_one_declared() -> None:
    spec = _spec("lobar.yaml")
    text = json.dumps({name: value for name, value in spec.items() if name != "arguments"})
    used = {*re.findall(r"{{workflow\.parameters\.([\w-]+)}}", text)}
    for template in spec["templates"]:
        for expression in re.findall(r"{{=.*?}}", template.get("podSpecPatch", ""), re.DOTALL):
            used |= {*re.findall(r"workflow\.parameters(?:\.|\[\")([\w-]+)", expression)}
    assert used == {parameter["name"] for parameter in spec["arguments"]["parameters"]}


def test_every_input_is_used_and_every_used_one_declared() -> None:
    for template in _spec("lobar.yaml")["templates"]:
        declared = [parameter["name"] for parameter in template["inputs"]["parameters"]]
        used = re.findall(r"{{inputs\.parameters\.([\w-]+)}}", json.dumps(template))
        assert sorted(declared) == sorted({*used}), template["name"]
        assert all(parameter.get("description") for parameter in template["inputs"]["parameters"])


def test_no_default_hides_an_argument_that_a_task_forgot_to_pass() -> None:
    """Argo starts `summary` with the arguments of the workflow, so its inputs have defaults."""
    for template in _templates("container"):
        if template["name"] != "summary":
            defaults = [each["name"] for each in template["inputs"]["parameters"] if "value" in each]
            assert defaults == (["registry"] if template["name"] == "label-index" else [])


def test_templates_agree_on_what_is_not_their_own() -> None:
    templates = {template["name"].removesuffix("-shard"): template for template in _templates("container")}
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
        assert {*container["resources"]["limits"]} == {"cpu", "memory", "ephemeral-storage"}
        assert "tolerations" not in template  # both only from parameters


@pytest.mark.parametrize("name", FILES)
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
    client = ApiClient()
    answer = SimpleNamespace(data=json.dumps(document))
    typed = client.deserialize(answer, (models[document["kind"]],), _check_type=True)
    assert client.sanitize_for_serialization(typed) == document
