"""The fields that the local run rejects by name, and those that it ignores."""

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
    (_task(when="1 < 2"), f"{TASK}.when: found '1 < 2'"),
    (_task(when="a == 'b' && c == d"), f"{TASK}.when: found \"a == 'b' && c == d\""),
    (_task(when="true == true"), f"{TASK}.when: found 'true == true'"),
    (
        _task(when="{{tasks.b.outputs.parameters.x}} == 1"),
        f"{TASK}.when: {{{{tasks.b.outputs.parameters.x}}}} has",
    ),
    (_task(withItems=[1]), f"{TASK}.withItems: not supported by the local run"),
    (_task(withSequence={"start": 1}), f"{TASK}.withSequence.start: not supported"),
    (_task(withSequence={"count": "many"}), f"{TASK}.withSequence.count: found 'many'"),
    (_task(withSequence={"count": 1, "format": "%s"}), f"{TASK}.withSequence.format: not supported"),
    (
        _task(withSequence={"count": "{{tasks.b.outputs.parameters.x}}"}),
        f"{TASK}.withSequence.count: {{{{tasks.b.outputs.parameters.x}}}} has no value",
    ),
    (_task(dependencies=["a"]), f"{TASK}.dependencies: not supported by the local run"),
    (_task(continueOn={"failed": True}), f"{TASK}.continueOn: not supported by the local run"),
    (_task(hooks={}), f"{TASK}.hooks: not supported by the local run"),
    (_task(depends="a.Failed"), f"{TASK}.depends: found 'a.Failed'"),
    (_task(depends="b || c"), f"{TASK}.depends: found 'b || c'"),
    (_task(depends="b"), f"{TASK}.depends: there is no task 'b'"),
    (_task(depends="a"), "spec.templates[0].dag.tasks: tasks depend on each other in a cycle: a -> a"),
    (_task(template="none"), f"{TASK}.template: there is no template 'none'"),
    (_task(template="main"), "spec.templates[0]: the local run needs a container"),
    (_task(templateRef={"name": "n", "template": "t"}), f"{TASK}.templateRef: not supported"),
    (_task(arguments={"artifacts": []}), f"{TASK}.arguments.artifacts: not supported by the local run"),
    (_task(arguments={}), "spec.templates[1].inputs.parameters[0]: 'name' has no value"),
    (
        _task(arguments={"parameters": [{"name": "x", "value": 1}]}),
        f"{TASK}.arguments.parameters[0]: the template has no",
    ),
    (
        _task(arguments={"parameters": [{"name": "name"}]}),
        f"{TASK}.arguments.parameters[0].value: the value is missing",
    ),
    (
        _task(arguments={"parameters": [{"name": "name", "value": "{{item}}"}]}),
        f"{TASK}.arguments.parameters[0].value: {{{{item}}}} has no value",
    ),
    (
        _task(arguments={"parameters": [{"name": "name", "value": "{{workflow.parameters.x}}"}]}),
        f"{TASK}.arguments.parameters[0].value: {{{{workflow.parameters.x}}}} has no value",
    ),
    (_spec(entrypoint="none"), "spec.entrypoint: there is no template 'none'"),
    (_spec(entrypoint="stub"), "spec.templates[1]: the local run needs a dag"),
    (_spec(hooks={}), "spec.hooks: not supported by the local run"),
    (_spec(templateDefaults={}), "spec.templateDefaults: not supported by the local run"),
    (
        _spec(workflowTemplateRef={"name": "x"}),
        "spec.workflowTemplateRef.name: there is no WorkflowTemplate 'x'",
    ),
    (_spec(workflowTemplateRef={}), "spec.workflowTemplateRef.name: the value is missing"),
    (
        _spec(workflowTemplateRef={"name": "x", "clusterScope": True}),
        "spec.workflowTemplateRef.clusterScope: not supported",
    ),
    (_spec(arguments={"artifacts": []}), "spec.arguments.artifacts: not supported by the local run"),
    (
        _spec(arguments={"parameters": [{"name": "x"}]}),
        "spec.arguments.parameters[0].value: the value is missing",
    ),
    (_template(script={}), "spec.templates[1].script: not supported by the local run"),
    (_template(sidecars=[]), "spec.templates[1].sidecars: not supported by the local run"),
    (
        _template(outputs={"exitCode": "0"}),
        "spec.templates[1].outputs.exitCode: not supported by the local run",
    ),
    (
        _template(inputs={"artifacts": []}),
        "spec.templates[1].inputs.artifacts: not supported by the local run",
    ),
    (
        _template(outputs={"parameters": [{"name": "x"}]}),
        "spec.templates[1].outputs.parameters[0].valueFrom.path: the value is missing",
    ),
    (
        _template(outputs={"parameters": [{"name": "x", "valueFrom": {"path": "x", "default": "1"}}]}),
        "spec.templates[1].outputs.parameters[0].valueFrom.default: not supported",
    ),
    (
        _template(retryStrategy={"limit": 3}),
        "spec.templates[1].retryStrategy: the local run supports only this one",
    ),
    (_container(command=[]), f"{CONTAINER}.command: missing"),
    (_container(args=["{{=1 + 1}}"]), f"{CONTAINER}.args[0]: {{{{=1 + 1}}}} has no value"),
    (
        _container(args=["{{inputs.parameters.y}}"]),
        f"{CONTAINER}.args[0]: {{{{inputs.parameters.y}}}} has no value",
    ),
    (_container(args=["$(HOME)"]), f"{CONTAINER}.args[0]: '$(HOME)': a cluster would expand"),
    (_container(args="a b"), f"{CONTAINER}.args: found str; expected a list"),
    (_container(args=[["a"]]), f"{CONTAINER}.args[0]: expected a string or a number"),
    (_container(workingDir="/x"), f"{CONTAINER}.workingDir: not supported by the local run"),
    (_container(lifecycle={}), f"{CONTAINER}.lifecycle: not supported by the local run"),
    (_container(env=[{"name": "x"}]), f"{CONTAINER}.env[0].value: the value is missing"),
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
    assert bench.events() == []


def test_rejects_two_tasks_of_one_name(bench: Bench) -> None:
    bench.task("a")
    bench.task("a")
    with pytest.raises(InputError, match="two tasks have the same name"):
        bench.read()


def test_rejects_an_undeclared_parameter(bench: Bench) -> None:
    bench.task("a")
    with pytest.raises(InputError, match=r"w.yaml: there is no parameter 'rooot'; possible names: none"):
        bench.read(rooot="x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Pod", "found 0 workflows"),
        ("kind: Workflow\n---\nkind: CronWorkflow", "found 2 workflows"),
        ("kind: [", "not a YAML file"),
        ("- a\n- b", "found 0 workflows"),
        ("kind: Workflow", "spec.entrypoint: the value is missing"),
        ("kind: CronWorkflow", "spec.workflowSpec.entrypoint: the value is missing"),
        (
            "kind: CronWorkflow\nspec: {workflowSpec: {hooks: {}}}",
            "spec.workflowSpec.hooks: not supported by the local run",
        ),
        ("kind: Workflow\nspec: text", "spec: not supported by the local run"),
        ("kind: Workflow\nspec: {templates: {a: b}}", "spec.templates: not supported by the local run"),
    ],
)
def test_rejects_a_file_without_a_workflow(bench: Bench, text: str, message: str) -> None:
    bench.file.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        steps.read(bench.file, {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        steps.read(tmp_path / "none.yaml", {})


def test_fields_with_a_meaning_only_on_a_cluster_are_ignored(bench: Bench) -> None:
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
    assert bench.events() == ["start a", "end a"]
