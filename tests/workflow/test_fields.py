"""What the local run rejects by name, and what it passes over."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lobar.core.errors import InputError
from lobar.workflow import steps
from tests.support.stubs import Bench


def _task(**fields: Any) -> Callable[[Bench], object]:
    return lambda bench: bench.document["spec"]["templates"][0]["dag"]["tasks"][0].update(fields)


def _spec(**fields: Any) -> Callable[[Bench], object]:
    return lambda bench: bench.document["spec"].update(fields)


def _template(**fields: Any) -> Callable[[Bench], object]:
    return lambda bench: bench.template.update(fields)


def _container(**fields: Any) -> Callable[[Bench], object]:
    return lambda bench: bench.template["container"].update(fields)


TASK = "spec.templates[0].dag.tasks[0]"
CONTAINER = "spec.templates[1].container"
REJECTED = [
    (_task(when="1 == 2"), f"{TASK}.when: the local run does not execute this"),
    (_task(withItems=[1]), f"{TASK}.withItems: the local run"),
    (_task(withSequence={"start": 1}), f"{TASK}.withSequence.start: the local run"),
    (_task(withSequence={"count": "many"}), f"{TASK}.withSequence.count: found 'many'"),
    (_task(withSequence={"count": 1, "format": "%s"}), f"{TASK}.withSequence.format: found '%s'"),
    (_task(dependencies=["a"]), f"{TASK}.dependencies: the local run"),
    (_task(continueOn={"failed": True}), f"{TASK}.continueOn: the local run"),
    (_task(hooks={}), f"{TASK}.hooks: the local run"),
    (_task(depends="a.Failed"), f"{TASK}.depends: found 'a.Failed'"),
    (_task(depends="b || c"), f"{TASK}.depends: found 'b || c'"),
    (_task(depends="b"), f"{TASK}.depends: there is no task 'b'"),
    (_task(depends="a"), "spec.templates[0].dag.tasks: tasks wait in a cycle: a -> a"),
    (_task(template="none"), f"{TASK}.template: there is no template 'none'"),
    (_task(template="main"), "spec.templates[0]: the local run wants a container"),
    (
        _task(templateRef={"name": "n", "template": "t"}),
        f"{TASK}.templateRef.template: there is no template 't' in n",
    ),
    (
        _task(templateRef={"name": "n", "clusterScope": True}),
        f"{TASK}.templateRef.clusterScope: the local run",
    ),
    (_task(arguments={"artifacts": []}), f"{TASK}.arguments.artifacts: the local run"),
    (_task(arguments={}), "spec.templates[1].inputs.parameters[0]: 'name' has no value"),
    (
        _task(arguments={"parameters": [{"name": "x", "value": 1}]}),
        f"{TASK}.arguments.parameters[0]: the template has no",
    ),
    (
        _task(arguments={"parameters": [{"name": "name"}]}),
        f"{TASK}.arguments.parameters[0].value: a value is missing",
    ),
    (
        _task(arguments={"parameters": [{"name": "name", "value": "{{item}}"}]}),
        f"{TASK}.arguments.parameters[0].value: {{{{item}}}} is not declared",
    ),
    (
        _task(arguments={"parameters": [{"name": "name", "value": "{{workflow.parameters.x}}"}]}),
        f"{TASK}.arguments.parameters[0].value: {{{{workflow.parameters.x}}}} is not declared",
    ),
    (_spec(entrypoint="none"), "spec.entrypoint: there is no template 'none'"),
    (_spec(entrypoint="stub"), "spec.templates[1]: the local run wants a dag"),
    (_spec(hooks={}), "spec.hooks: the local run"),
    (_spec(templateDefaults={}), "spec.templateDefaults: the local run"),
    (_spec(workflowTemplateRef={"name": "x"}), "spec.workflowTemplateRef: the local run"),
    (_spec(arguments={"artifacts": []}), "spec.arguments.artifacts: the local run"),
    (
        _spec(arguments={"parameters": [{"name": "x"}]}),
        "spec.arguments.parameters[0].value: a value is missing",
    ),
    (_template(script={}), "spec.templates[1].script: the local run"),
    (_template(sidecars=[]), "spec.templates[1].sidecars: the local run"),
    (_template(outputs={"exitCode": "0"}), "spec.templates[1].outputs.exitCode: the local run"),
    (_template(inputs={"artifacts": []}), "spec.templates[1].inputs.artifacts: the local run"),
    (
        _template(retryStrategy={"limit": 3}),
        "spec.templates[1].retryStrategy: the local run knows one policy only",
    ),
    (_container(command=[]), f"{CONTAINER}.command: a command is missing"),
    (_container(args=["{{=1 + 1}}"]), f"{CONTAINER}.args[0]: {{{{=1 + 1}}}} is not declared"),
    (
        _container(args=["{{inputs.parameters.y}}"]),
        f"{CONTAINER}.args[0]: {{{{inputs.parameters.y}}}} is not",
    ),
    (_container(args=["$(HOME)"]), f"{CONTAINER}.args[0]: '$(HOME)': a cluster would expand"),
    (_container(args="a b"), f"{CONTAINER}.args: found str; a list is wanted"),
    (_container(args=[["a"]]), f"{CONTAINER}.args[0]: a text or a number is wanted"),
    (_container(workingDir="/x"), f"{CONTAINER}.workingDir: the local run"),
    (_container(lifecycle={}), f"{CONTAINER}.lifecycle: the local run"),
    (_container(env=[{"name": "x"}]), f"{CONTAINER}.env[0].value: a value is missing"),
    (
        _container(env=[{"name": "x", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}}]),
        f"{CONTAINER}.env[0].valueFrom.resourceFieldRef.resource: found 'limits.memory'",
    ),
]


@pytest.mark.parametrize(("change", "text"), REJECTED, ids=[text.split(": ")[0] for _, text in REJECTED])
def test_rejects_by_name(bench: Bench, change: Callable[[Bench], object], text: str) -> None:
    bench.task("a")
    change(bench)
    with pytest.raises(InputError) as rejected:
        bench.run()
    assert str(rejected.value).startswith(f"w.yaml: {text}")
    assert bench.noted() == []


def test_rejects_two_tasks_of_one_name(bench: Bench) -> None:
    bench.task("a")
    bench.task("a")
    with pytest.raises(InputError, match="two tasks have the same name"):
        bench.read()


def test_rejects_a_parameter_that_nobody_declares(bench: Bench) -> None:
    bench.task("a")
    with pytest.raises(InputError, match=r"-p rooot: w.yaml has no such parameter"):
        bench.read(rooot="x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Pod", "found 0 workflows"),
        ("kind: Workflow\n---\nkind: CronWorkflow", "found 2 workflows"),
        ("kind: [", "not a YAML file"),
        ("- a\n- b", "found 0 workflows"),
        ("kind: Workflow", "spec.entrypoint: a value is missing"),
        ("kind: CronWorkflow", "spec.workflowSpec.entrypoint: a value is missing"),
        ("kind: CronWorkflow\nspec: {workflowSpec: {hooks: {}}}", "spec.workflowSpec.hooks: the local run"),
        ("kind: Workflow\nspec: text", "spec: the local run does not execute this"),
        ("kind: Workflow\nspec: {templates: {a: b}}", "spec.templates: the local run does not execute this"),
    ],
)
def test_rejects_a_file_that_holds_no_workflow(bench: Bench, text: str, message: str) -> None:
    bench.file.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        steps.read(bench.file, {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        steps.read(tmp_path / "none.yaml", {})


def test_what_only_a_cluster_has_is_ignored(bench: Bench) -> None:
    bench.document["metadata"] |= {"labels": {"a": "b"}, "annotations": {}, "namespace": "x"}
    bench.document["spec"] |= {
        "serviceAccountName": "x", "parallelism": 3, "activeDeadlineSeconds": 1, "podGC": {"strategy": "x"},
        "ttlStrategy": {}, "nodeSelector": {"a": "b"}, "metrics": {"prometheus": []}, "onExit": "none",
    }  # fmt: skip
    bench.template |= {
        "activeDeadlineSeconds": 1, "securityContext": {"runAsUser": 1}, "volumes": [{"name": "x"}],
        "tolerations": [{"key": "x"}], "outputs": {"artifacts": [{"name": "x", "path": "/none"}]},
        "podSpecPatch": "{{=not.looked.at}}",
    }  # fmt: skip
    bench.template["container"] |= {
        "image": "{{not.looked.at}}", "resources": {"limits": {"nvidia.com/gpu": 1}}, "envFrom": [],
        "volumeMounts": [], "terminationMessagePolicy": "x", "securityContext": {},
    }  # fmt: skip
    bench.task("a")
    bench.run()
    assert bench.noted() == ["start a", "end a"]
