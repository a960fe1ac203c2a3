"""From a workflow file and parameters to the command lines that its pods would run, each put in its order."""

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from lobar.core.errors import InputError
from lobar.core.version import code_version
from lobar.workflow.fields import Field, check, documents

# The one policy of our templates, when a retry may help and how often; job-templates.yaml says why.
RETRY_LIMIT = 5
RETRY = {
    "limit": str(RETRY_LIMIT),
    "retryPolicy": "Always",
    "expression": (
        'lastRetry.exitCode in ["75", "137", "143", "-1"] and lastRetry.message != "timeout"'
        ' and not (lastRetry.message contains "OOMKilled")'
    ),
    "backoff": {"duration": "10s", "factor": "3", "cap": "10m"},
}
TAG = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Step:
    """One process: its name, command line and environment.

    `cpu_variables` are those that hold a container's limit of CPUs, so here the step's share of them.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    cpu_variables: tuple[str, ...]
    retries: bool


@dataclass(frozen=True, slots=True)
class Task:
    """A task of the DAG, the names of those it waits for, and its steps: one, or one per shard."""

    name: str
    needs: tuple[str, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A workflow with every parameter put in: its name and its tasks, each after those it waits for."""

    name: str
    tasks: tuple[Task, ...]


def read(path: Path, given: Mapping[str, str]) -> Manifest:
    """The workflow in `path`, its templateRefs found in the YAML files beside it, with `given` parameters.

    Raises InputError, naming file and field, for whatever this machine would not run as a cluster does.
    """
    workflow, library = documents(path)
    cron = workflow.get("kind").value == "CronWorkflow"
    check(workflow, "CronWorkflow" if cron else "Workflow")
    spec = workflow.get("spec", "workflowSpec") if cron else workflow.get("spec")
    templates = {("", name): template for name, template in _templates(spec).items()}
    entry = _entrypoint(spec, templates)
    used = sorted({task.get("templateRef", "name").value for task in _dag(entry)} & library.keys())
    for name in used:
        check(library[name], "WorkflowTemplate")
        templates |= {
            (name, key): template for key, template in _templates(library[name].get("spec")).items()
        }
    arguments = _arguments(spec, entry, given)
    values = {f"workflow.parameters.{name}": value for name, value in arguments.items()}
    values["workflow.name"] = _name(workflow, [library[name].value for name in used], arguments)
    scope = values | _inputs(entry, arguments, values)
    tasks = [_task(task, templates, values, scope) for task in _dag(entry)]
    return Manifest(values["workflow.name"], _in_order(entry, tasks))


def _templates(spec: Field) -> dict[str, Field]:
    return {template.get("name").text(): template for template in spec.get("templates").each()}


def _entrypoint(spec: Field, templates: Mapping[tuple[str, str], Field]) -> Field:
    entrypoint = spec.get("entrypoint")
    entry = templates.get(("", entrypoint.text()))
    if entry is None:
        raise entrypoint.rejected(f"there is no template {entrypoint.text()!r} in this file")
    if entry.get("dag").value is None:
        raise entry.rejected("the local run wants a dag as the entrypoint")
    return entry


def _dag(entry: Field) -> list[Field]:
    return list(entry.get("dag", "tasks").each())


def _arguments(spec: Field, entry: Field, given: Mapping[str, str]) -> dict[str, str]:
    """The workflow's arguments and whatever else is given, by name; Argo hands all to the entrypoint too."""
    declared = list(spec.get("arguments", "parameters").each())
    arguments = {}
    for parameter in declared:
        name = parameter.get("name").text()
        arguments[name] = given[name] if name in given else parameter.get("value").text()
    known = arguments.keys() | {parameter.get("name").text() for parameter in _parameters(entry)}
    for name in given.keys() - known:
        raise InputError(
            f"-p {name}: {spec.file} has no such parameter; it has {', '.join(sorted(known)) or 'none'}"
        )
    return arguments | dict(given)


def _parameters(template: Field) -> list[Field]:
    return list(template.get("inputs", "parameters").each())


def _name(workflow: Field, used: list[Any], arguments: Mapping[str, str]) -> str:
    """metadata.name, or generateName and a digest: the same command resumes its run, another starts again.

    A CronWorkflow's name is generateName's beginning, as it is on a cluster, which adds the hour.
    """
    name = workflow.get("metadata", "name")
    if workflow.get("kind").value == "CronWorkflow":
        start = name.text() + "-"
    elif name.value is not None:
        return name.text()
    else:
        start = workflow.get("metadata", "generateName").text()
    everything = json.dumps([workflow.value, used, arguments, code_version()], sort_keys=True, default=str)
    digest = hashlib.sha256(everything.encode()).hexdigest()
    return start + digest[:8]


def _inputs(template: Field, arguments: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    """`inputs.parameters.NAME` of a template: the argument of that name, else its value or default."""
    inputs = {}
    for parameter in _parameters(template):
        name = parameter.get("name").text()
        own = parameter.get("default" if parameter.get("value").value is None else "value")
        if name not in arguments and own.value is None:
            raise parameter.rejected(f"{name!r} has no value: none is given, and there is no default")
        value = arguments[name] if name in arguments else own.text()
        inputs[f"inputs.parameters.{name}"] = _put_in(value, values, own)
    return inputs


def _put_in(text: str, values: Mapping[str, str], field: Field) -> str:
    """`text` with each {{name}} replaced by its value; InputError where one is not known."""

    def value(tag: re.Match[str]) -> str:
        name = tag[1].strip()
        if name not in values:
            raise field.rejected(f"{tag[0]} is not declared, or not known to the local run")
        return values[name]

    done = TAG.sub(value, text)
    if "{{" in done:
        raise field.rejected(f"{{{{…}}}} is left after its parameters were put in: {done}")
    return done


def _task(
    task: Field,
    templates: Mapping[tuple[str, str], Field],
    values: Mapping[str, str],
    scope: Mapping[str, str],
) -> Task:
    name = task.get("name").text()
    reference = task.get("templateRef")
    field = task.get("template") if reference.value is None else reference.get("template")
    library = "" if reference.value is None else reference.get("name").text()
    template = templates.get((library, field.text()))
    if template is None:
        raise field.rejected(f"there is no template {field.text()!r} in {library or task.file}")
    if template.get("container").value is None:
        raise template.rejected("the local run wants a container in the template of a task")
    items = _items(task, scope)
    steps = []
    for item in [None] if items is None else items:
        here = scope if item is None else {**scope, "item": item}
        inputs = _inputs(template, _given(task, template, here), values)
        steps.append(_step(name if item is None else f"{name}({item})", template, {**values, **inputs}))
    return Task(name, _needs(task), tuple(steps))


def _items(task: Field, scope: Mapping[str, str]) -> list[str] | None:
    """The items of a withSequence, written in its format; None for a task without one."""
    sequence = task.get("withSequence")
    if sequence.value is None:
        return None
    count, written = sequence.get("count"), sequence.get("format")
    number = _put_in(count.text(), scope, count)
    if not number.isdecimal():
        raise count.rejected(f"found {number!r}; a whole number is wanted")
    form = "%d" if written.value is None else written.text()
    if not re.fullmatch(r"[^%]*%\d*d[^%]*", form):
        raise written.rejected(f"found {form!r}; the local run knows one number such as %d or %04d")
    return [form % item for item in range(int(number))]


def _given(task: Field, template: Field, scope: Mapping[str, str]) -> dict[str, str]:
    """The arguments that a task hands to its template, by name."""
    declared = {parameter.get("name").text() for parameter in _parameters(template)}
    given = {}
    for argument in task.get("arguments", "parameters").each():
        name, value = argument.get("name").text(), argument.get("value")
        if name not in declared:
            raise argument.rejected(
                f"the template has no input {name!r}; it has {', '.join(sorted(declared))}"
            )
        given[name] = _put_in(value.text(), scope, value)
    return given


def _needs(task: Field) -> tuple[str, ...]:
    depends = task.get("depends")
    if depends.value is None:
        return ()
    names = [name.strip() for name in depends.text().split("&&")]
    if not all(re.fullmatch(r"[\w-]+", name) for name in names):
        raise depends.rejected(f"found {depends.text()!r}; the local run knows names joined by && only")
    return tuple(names)


def _step(name: str, template: Field, values: Mapping[str, str]) -> Step:
    container = template.get("container")
    retry = template.get("retryStrategy")
    if retry.value not in (None, RETRY):
        raise retry.rejected(f"the local run knows one policy only: {json.dumps(RETRY)}")
    words = [*container.get("command").each(), *container.get("args").each()]
    if not container.get("command").value:
        raise container.get("command").rejected("a command is missing; the image's own is not known here")
    command = [_put_in(word.text(), values, word) for word in words]
    for word, text in zip(words, command, strict=True):
        if "$(" in text:
            raise word.rejected(f"{text!r}: a cluster would expand $(…) here, the local run does not")
    if command[0] == "python":
        command[0] = sys.executable
    env, cpu_variables = _env(container, values)
    return Step(name, tuple(command), env, cpu_variables, retry.value is not None)


def _env(container: Field, values: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Literal values by name, and the names of those that hold the container's limit of CPUs."""
    env, cpu_variables = {}, []
    for variable in container.get("env").each():
        name, value = variable.get("name").text(), variable.get("value")
        resource = variable.get("valueFrom", "resourceFieldRef", "resource")
        if resource.value is not None:
            if resource.text() != "limits.cpu":
                raise resource.rejected(f"found {resource.text()!r}; the local run knows limits.cpu only")
            cpu_variables.append(name)
        elif variable.get("valueFrom").value is None:
            env[name] = _put_in(value.text(), values, value)
    return env, tuple(cpu_variables)


def _in_order(entry: Field, tasks: list[Task]) -> tuple[Task, ...]:
    """The tasks, each after those it waits for; InputError for an unknown name or a cycle."""
    by_name = {task.name: task for task in tasks}
    if len(by_name) < len(tasks):
        raise entry.get("dag", "tasks").rejected("two tasks have the same name")
    for task, field in zip(tasks, _dag(entry), strict=True):
        for name in task.needs:
            if name not in by_name:
                raise field.get("depends").rejected(f"there is no task {name!r}")
    try:
        order = TopologicalSorter({task.name: task.needs for task in tasks}).static_order()
        return tuple(by_name[name] for name in order)
    except CycleError as error:
        raise entry.get("dag", "tasks").rejected(
            f"tasks wait in a cycle: {' -> '.join(error.args[1])}"
        ) from error
