"""Reads a workflow file and its parameters, and builds the command lines that its pods would run."""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from lobar.core.errors import InputError
from lobar.core.version import code_version
from lobar.workflow.fields import Field, check, read_documents

# The only retryStrategy of our templates; lobar.yaml explains it.
RETRY_LIMIT = 5
RETRY = {
    "limit": str(RETRY_LIMIT),
    "retryPolicy": "Always",
    "expression": (
        'lastRetry.exitCode in ["0", "75", "137", "143", "-1"] '
        'and not (lastRetry.message contains "OOMKilled")'
    ),
    "backoff": {"duration": "10s", "factor": "3"},
}
TAG = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
# A value that only the run will know: its name between private-use characters, which TAGS makes a tag again
UNKNOWN = "\ue000{}\ue001"
TAGS = {0xE000: "{{", 0xE001: "}}"}
# Not `true` and `false`, which Argo does not compare as text
OPERAND = r"""('[^']*'|"[^"]*"|(?!true\b|false\b)[A-Za-z_]\w*|-?\d+(?:\.\d+)?|\ue000[^\ue001]*\ue001)"""
CONDITION = re.compile(rf"\s*{OPERAND}\s*(==|!=)\s*{OPERAND}\s*")
Values = Mapping[str, str]  # by the name in a {{tag}}


@dataclass(frozen=True, slots=True)
class Step:
    """One process."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    cpu_variables: tuple[str, ...]  # for the container's CPU limit, so here for the step's share of the CPUs
    retries: bool
    outputs: Mapping[
        str, Path
    ]  # files of its output parameters, by tag name: tasks.NAME.outputs.parameters.X


@dataclass(frozen=True, slots=True)
class Task:
    """A task of the DAG and the names of the tasks that it depends on.

    `expand` returns the steps to run, given the output parameters of earlier tasks: one, one per shard, or
    none if `when` is false. `steps` are those before the run, with {{tags}} for unknown values.
    """

    name: str
    needs: tuple[str, ...]
    expand: Callable[[Values], tuple[Step, ...]]
    steps: tuple[Step, ...]
    known: frozenset[str]  # tag names of the output parameters of this task and those before it


@dataclass(frozen=True, slots=True)
class Manifest:
    """A workflow with its parameters: its name and its tasks, each after the tasks that it depends on."""

    name: str
    tasks: tuple[Task, ...]


def read(path: Path, given: Values) -> Manifest:
    """The workflow in `path` with the `given` parameters; its WorkflowTemplate is in the same folder.

    Raises InputError, with file and field, for everything that the local run does not do as a cluster does.
    """
    workflow, library = read_documents(path)
    cron = workflow.get("kind").value == "CronWorkflow"
    check(workflow, "CronWorkflow" if cron else "Workflow")
    specs = [workflow.get("spec", "workflowSpec") if cron else workflow.get("spec")]
    if specs[0].get("workflowTemplateRef").value is not None:
        name = specs[0].get("workflowTemplateRef", "name")
        if name.text() not in library:
            raise name.error(f"there is no WorkflowTemplate {name.text()!r} in {path.parent}/*.yaml")
        check(library[name.text()], "WorkflowTemplate")
        specs.append(library[name.text()].get("spec"))  # second: the workflow's own fields have precedence
        for field in (specs[0].get("templates"), specs[1].get("workflowTemplateRef")):
            if field.value is not None:
                raise field.error("Argo does not accept this in a workflow with a workflowTemplateRef")
    templates = _by_name(specs[-1].get("templates"))
    entrypoint = _first(specs, "entrypoint")
    entry = _template(entrypoint, templates, "dag")
    arguments = _arguments(specs, entry, given)
    values = {f"workflow.parameters.{name}": value for name, value in arguments.items()}
    values["workflow.name"] = _name(workflow, [workflow.value, specs[-1].value, arguments, code_version()])
    values["workflow.mainEntrypoint"] = entrypoint.text()
    scope = values | _inputs(entry, arguments, values)
    tasks: dict[str, Task] = {}
    for field in _in_order(entry.get("dag", "tasks")):
        needs = _needs(field)
        before = frozenset[str]().union(*(tasks[name].known for name in needs))
        template = _template(field.get("template"), templates, "container")
        expand = partial(_expand, field, template, values, scope)
        steps = expand({name: UNKNOWN.format(name) for name in before})
        known = before.union(*(step.outputs for step in steps))
        steps = tuple(replace(step, command=tuple(w.translate(TAGS) for w in step.command)) for step in steps)
        task = Task(field.get("name").text(), needs, expand, steps, known)
        tasks[task.name] = task
    return Manifest(values["workflow.name"], tuple(tasks.values()))


def _by_name(parent: Field) -> dict[str, Field]:
    return {field.get("name").text(): field for field in parent.elements()}


def _first(parents: list[Field], name: str) -> Field:
    """The field of that name in the first parent that has it."""
    fields = [parent.get(name) for parent in parents]
    return next((field for field in fields if field.value is not None), fields[0])


def _template(name: Field, templates: Mapping[str, Field], kind: str) -> Field:
    template = templates.get(name.text())
    if template is None:
        raise name.error(f"there is no template {name.text()!r}")
    if template.get(kind).value is None:
        raise template.error(f"the local run needs a {kind} in this template")
    return template


def _arguments(specs: list[Field], entry: Field, given: Values) -> dict[str, str]:
    """The workflow's arguments by name, declared or not; Argo passes all of them to the entrypoint."""
    levels = [_by_name(spec.get("arguments", "parameters")) for spec in specs]
    declared = dict.fromkeys(name for level in levels for name in level)
    known = declared.keys() | _by_name(entry.get("inputs", "parameters")).keys()
    for name in given.keys() - known:
        names = ", ".join(sorted(known)) or "none"
        raise InputError(f"{specs[0].file}: there is no parameter {name!r}; possible names: {names}")
    arguments = dict(given)
    for name in declared:
        parameters = [level[name] for level in levels if name in level]
        if name not in given:
            arguments[name] = _first(parameters, "value").text()
        enum = _first(parameters, "enum")
        possible = [value.text() for value in enum.elements()]
        if possible and arguments[name] not in possible:
            found = f"parameter {name!r}: found {arguments[name]!r}"
            raise InputError(f"{enum.file}: {found}; possible values: {', '.join(possible)}")
    return arguments


def _name(workflow: Field, content: list[object]) -> str:
    """metadata.name, or a prefix and a digest: the same command resumes its run, another starts a new one."""
    name, prefix = workflow.get("metadata", "name"), workflow.get("metadata", "generateName")
    cron = workflow.get("kind").value == "CronWorkflow"
    if name.value is not None and not cron:
        return name.text()
    start = f"{name.text()}-" if cron else prefix.text()  # as on a cluster
    return start + hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _inputs(template: Field, arguments: Values, values: Values) -> dict[str, str]:
    """`inputs.parameters.NAME` of a template: the argument of that name, else its value or default."""
    inputs = {}
    for name, parameter in _by_name(template.get("inputs", "parameters")).items():
        default = parameter.get("default" if parameter.get("value").value is None else "value")
        if name not in arguments and default.value is None:
            raise parameter.error(f"{name!r} has no value: no argument and no default")
        value = arguments[name] if name in arguments else default.text()
        inputs[f"inputs.parameters.{name}"] = _substitute(value, values, default)
    return inputs


def _substitute(text: str, values: Values, field: Field) -> str:
    """`text` with each {{name}} replaced by its value; InputError for a name without a value."""

    def value(tag: re.Match[str]) -> str:
        if tag[1].strip() not in values:
            raise field.error(f"{tag[0]} has no value: not declared, not supported, or of a skipped task")
        return values[tag[1].strip()]

    result = TAG.sub(value, text)
    if "{{" in result:
        raise field.error(f"{{{{…}}}} is left after substitution: {result}")
    return result


def _expand(task: Field, template: Field, values: Values, scope: Values, outputs: Values) -> tuple[Step, ...]:
    """The steps of a task: the template's tags have `values`, the task's also `scope` and `outputs`."""
    name = task.get("name").text()
    scope = {**scope, **outputs}
    steps = []
    for item in _items(task.get("withSequence"), scope):
        here = scope if item is None else {**scope, "item": item}
        if _condition(task.get("when"), here):
            inputs = _inputs(template, _passed(task, template, here), values)
            steps.append(_step(name, item, template, {**values, **inputs}))
    return tuple(steps)


def _items(sequence: Field, scope: Values) -> list[str] | list[None]:
    """The numbers of a withSequence; None for a task without one."""
    if sequence.value is None:
        return [None]
    count = sequence.get("count")
    number = _substitute(count.text(), scope, count)
    if number.startswith(UNKNOWN[0]):
        return [UNKNOWN.format("item")]
    if not number.isdecimal():
        raise count.error(f"found {number!r}; expected a whole number")
    return [str(item) for item in range(int(number))]


def _condition(when: Field, scope: Values) -> bool:
    """Whether `when` is true; also if it is missing, or not known before the run."""
    text = "" if when.value is None else _substitute(when.text(), scope, when)
    match = CONDITION.fullmatch(text)
    if text and match is None:
        raise when.error(f"found {text.translate(TAGS)!r}; the local run supports only A == B and A != B")
    return not match or UNKNOWN[0] in text or (_operand(match[1]) == _operand(match[3])) == (match[2] == "==")


def _operand(text: str) -> str | float:
    if text[0] in "'\"":
        return text[1:-1]
    return float(text) if re.match(r"-?\d", text) else text


def _passed(task: Field, template: Field, scope: Values) -> dict[str, str]:
    """The arguments that a task passes to its template, by name."""
    declared = _by_name(template.get("inputs", "parameters"))
    passed = {}
    for name, argument in _by_name(task.get("arguments", "parameters")).items():
        if name not in declared:
            raise argument.error(f"the template has no input {name!r}; it has {', '.join(sorted(declared))}")
        passed[name] = _substitute(argument.get("value").text(), scope, argument.get("value"))
    return passed


def _needs(task: Field) -> tuple[str, ...]:
    """The names in `depends`. In Argo a name means succeeded or skipped; here a failure ends the run."""
    depends = task.get("depends")
    names = [] if depends.value is None else [name.strip() for name in depends.text().split("&&")]
    if not all(re.fullmatch(r"[\w-]+", name) for name in names):
        raise depends.error(f"found {depends.text()!r}; the local run supports only names joined by &&")
    return tuple(names)


def _step(task: str, item: str | None, template: Field, values: Values) -> Step:
    container, retry = template.get("container"), template.get("retryStrategy")
    if retry.value not in (None, RETRY):
        raise retry.error(f"the local run supports only this one: {json.dumps(RETRY)}")
    if not container.get("command").value:
        raise container.get("command").error("missing; the local run does not know the image's own command")
    command = []
    for word in (*container.get("command").elements(), *container.get("args").elements()):
        command.append(_substitute(word.text(), values, word))
        if "$(" in command[-1]:
            raise word.error(f"{command[-1]!r}: a cluster would expand $(…) here, the local run does not")
    if command[0] == "python":
        command[0] = sys.executable
    outputs = {}
    for name, parameter in _by_name(template.get("outputs", "parameters")).items() if item is None else ():
        path = parameter.get("valueFrom", "path")
        outputs[f"tasks.{task}.outputs.parameters.{name}"] = Path(_substitute(path.text(), values, path))
    name = task if item is None else f"{task}({item})"
    return Step(name, tuple(command), *_env(container, values), retry.value is not None, outputs)


def _env(container: Field, values: Values) -> tuple[dict[str, str], tuple[str, ...]]:
    """Literal values by name, and the names of the variables for the container's CPU limit."""
    env, cpu_variables = {}, []
    for name, variable in _by_name(container.get("env")).items():
        resource = variable.get("valueFrom", "resourceFieldRef", "resource")
        if resource.value is not None:
            if resource.text() != "limits.cpu":
                raise resource.error(f"found {resource.text()!r}; the local run supports only limits.cpu")
            cpu_variables.append(name)
        elif variable.get("valueFrom").value is None:
            env[name] = _substitute(variable.get("value").text(), values, variable.get("value"))
    return env, tuple(cpu_variables)


def _in_order(tasks: Field) -> list[Field]:
    """The tasks, each after the tasks that it depends on; InputError for an unknown name or a cycle."""
    by_name = _by_name(tasks)
    if len(by_name) < len(tasks.value or ()):
        raise tasks.error("two tasks have the same name")
    for task in by_name.values():
        for name in _needs(task):
            if name not in by_name:
                raise task.get("depends").error(f"there is no task {name!r}")
    try:
        order = TopologicalSorter({name: _needs(task) for name, task in by_name.items()}).static_order()
        return [by_name[name] for name in order]
    except CycleError as error:
        raise tasks.error(f"tasks depend on each other in a cycle: {' -> '.join(error.args[1])}") from error
