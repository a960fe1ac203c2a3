"""Reads a workflow file and its parameters, and builds the command lines that its pods would run."""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from lobar.core.errors import InputError
from lobar.core.version import code_version
from lobar.workflow.fields import Field, check, read_documents

# The only retryStrategy of our templates; lobar.yaml explains it.
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
# Private-use characters around the name of a value that only a run will know; TAGS makes a tag of it again
UNKNOWN = "\ue000{}\ue001"
TAGS = {0xE000: "{{", 0xE001: "}}"}
OPERAND = r"""('[^']*'|"[^"]*"|[A-Za-z_]\w*|-?\d+(?:\.\d+)?|\ue000[^\ue001]*\ue001)"""
CONDITION = re.compile(rf"\s*{OPERAND}\s*(==|!=)\s*{OPERAND}\s*")


@dataclass(frozen=True, slots=True)
class Step:
    """One process: its name, command line and environment.

    `cpu_variables` are the variables for the container's CPU limit, so here for the step's share of the CPUs.
    `outputs` are the files of its output parameters, by the name that other tasks use.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    cpu_variables: tuple[str, ...]
    retries: bool
    outputs: Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class Task:
    """A task of the DAG, and the names of the tasks that it depends on.

    `steps` are its steps before the run: a value that only the run will know is still a {{tag}}, and if the number of
    shards is such a value there is one step. `expand` returns the steps to run, given the output parameters of earlier
    tasks: one, one per shard, or none if `when` is false. `outputs` names the output parameters known after it.
    """

    name: str
    needs: tuple[str, ...]
    steps: tuple[Step, ...]
    expand: Callable[[Mapping[str, str]], tuple[Step, ...]]
    outputs: frozenset[str]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A workflow with its parameters: its name and its tasks, each after the tasks that it depends on."""

    name: str
    tasks: tuple[Task, ...]


def read(path: Path, given: Mapping[str, str]) -> Manifest:
    """The workflow in `path` with the `given` parameters; its WorkflowTemplate is in a YAML file beside it.

    Raises InputError, with file and field, for everything that the local run does not do as a cluster does.
    """
    workflow, library = read_documents(path)
    cron = workflow.get("kind").value == "CronWorkflow"
    check(workflow, "CronWorkflow" if cron else "Workflow")
    specs = [workflow.get("spec", "workflowSpec") if cron else workflow.get("spec")]
    sources = [workflow]
    reference = specs[0].get("workflowTemplateRef")
    if reference.value is not None:
        name = reference.get("name")
        if name.text() not in library:
            raise name.error(f"there is no WorkflowTemplate {name.text()!r} in the YAML files of {path.parent}")
        sources.append(library[name.text()])
        check(sources[1], "WorkflowTemplate")
        specs.append(sources[1].get("spec"))
    templates = _templates(specs)
    entry = _entrypoint(specs, templates)
    arguments = _arguments(specs, entry, given)
    values = {f"workflow.parameters.{name}": value for name, value in arguments.items()}
    values["workflow.name"] = _name(workflow, [source.value for source in sources], arguments)
    values["workflow.mainEntrypoint"] = entry.get("name").text()
    scope = values | _inputs(entry, arguments, values)
    tasks: dict[str, Task] = {}
    for field in _in_order(entry):
        before = frozenset().union(*(tasks[name].outputs for name in _needs(field)))
        task = _task(field, templates, values, scope, before)
        tasks[task.name] = task
    return Manifest(values["workflow.name"], tuple(tasks.values()))


def _templates(specs: list[Field]) -> dict[str, Field]:
    """The templates by name. Of a workflow with a workflowTemplateRef they are all in the WorkflowTemplate."""
    for spec, wrong in zip(specs, ("templates", "workflowTemplateRef"), strict=False):
        if len(specs) == 2 and spec.get(wrong).value is not None:
            raise spec.get(wrong).error("Argo does not accept this together with a workflowTemplateRef")
    return {template.get("name").text(): template for template in specs[-1].get("templates").elements()}


def _entrypoint(specs: list[Field], templates: Mapping[str, Field]) -> Field:
    entrypoint = _first(specs, "entrypoint")
    entry = templates.get(entrypoint.text())
    if entry is None:
        raise entrypoint.error(f"there is no template {entrypoint.text()!r}")
    if entry.get("dag").value is None:
        raise entry.error("the local run needs a dag as the entrypoint")
    return entry


def _first(parents: list[Field], name: str) -> Field:
    """The field of that name in the first parent that has it: a workflow's own fields come first."""
    fields = [parent.get(name) for parent in parents]
    return next((field for field in fields if field.value is not None), fields[0])


def _arguments(specs: list[Field], entry: Field, given: Mapping[str, str]) -> dict[str, str]:
    """All given parameters and the defaults of the others, by name; Argo passes all of them to the entrypoint."""
    declared: dict[str, list[Field]] = {}
    for parameter in (each for spec in specs for each in spec.get("arguments", "parameters").elements()):
        declared.setdefault(parameter.get("name").text(), []).append(parameter)
    known = declared.keys() | _parameters(entry).keys()
    for name in given.keys() - known:
        names = ", ".join(sorted(known)) or "none"
        raise InputError(f"{specs[0].file}: there is no parameter {name!r}; its parameters: {names}")
    arguments = dict(given)
    for name, parameters in declared.items():
        if name not in given:
            arguments[name] = _first(parameters, "value").text()
        possible = [value.text() for value in _first(parameters, "enum").elements()]
        if possible and arguments[name] not in possible:
            raise InputError(
                f"{specs[0].file}: parameter {name!r}: found {arguments[name]!r}; "
                f"possible values: {', '.join(possible)}"
            )
    return arguments


def _parameters(template: Field) -> dict[str, Field]:
    """The input parameters of a template by name."""
    parameters = template.get("inputs", "parameters").elements()
    return {parameter.get("name").text(): parameter for parameter in parameters}


def _name(workflow: Field, sources: list[Any], arguments: Mapping[str, str]) -> str:
    """metadata.name, or generateName and a digest: the same command resumes its run, another starts a new one.

    The name of a run of a CronWorkflow starts with the CronWorkflow's name, as on a cluster.
    """
    name = workflow.get("metadata", "name")
    if workflow.get("kind").value == "CronWorkflow":
        prefix = name.text() + "-"
    elif name.value is not None:
        return name.text()
    else:
        prefix = workflow.get("metadata", "generateName").text()
    content = json.dumps([*sources, arguments, code_version()], sort_keys=True, default=str)
    return prefix + hashlib.sha256(content.encode()).hexdigest()[:8]


def _inputs(template: Field, arguments: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    """`inputs.parameters.NAME` of a template: the argument of that name, else its value or default."""
    inputs = {}
    for name, parameter in _parameters(template).items():
        default = parameter.get("default" if parameter.get("value").value is None else "value")
        if name not in arguments and default.value is None:
            raise parameter.error(f"{name!r} has no value: no argument and no default")
        value = arguments[name] if name in arguments else default.text()
        inputs[f"inputs.parameters.{name}"] = _substitute(value, values, default)
    return inputs


def _substitute(text: str, values: Mapping[str, str], field: Field) -> str:
    """`text` with each {{name}} replaced by its value; InputError for a name without a value."""

    def value(tag: re.Match[str]) -> str:
        name = tag[1].strip()
        if name not in values:
            raise field.error(f"{tag[0]} has no value (not declared, not supported, or of a skipped task)")
        return values[name]

    result = TAG.sub(value, text)
    if "{{" in result:
        raise field.error(f"{{{{…}}}} is left after substitution: {result}")
    return result


def _task(
    field: Field,
    templates: Mapping[str, Field],
    values: Mapping[str, str],
    scope: Mapping[str, str],
    before: frozenset[str],
) -> Task:
    """A task whose tags are in `scope`, or in `before`: the names of the output parameters of earlier tasks."""
    name, template = field.get("name").text(), templates.get(field.get("template").text())
    if template is None:
        raise field.get("template").error(f"there is no template {field.get('template').text()!r}")
    if template.get("container").value is None:
        raise template.error("the local run needs a container in the template of a task")
    expand = partial(_expand, field, template, values, scope)
    steps = (
        replace(step, command=tuple(word.translate(TAGS) for word in step.command))
        for step in expand({output: UNKNOWN.format(output) for output in before})
    )
    own = () if field.get("withSequence").value is not None else _outputs(name, template, None)
    return Task(name, _needs(field), tuple(steps), expand, before | frozenset(own))


def _expand(
    task: Field, template: Field, values: Mapping[str, str], scope: Mapping[str, str], outputs: Mapping[str, str]
) -> tuple[Step, ...]:
    """The steps of a task; `values` are the tags known in its template, `scope` and `outputs` those in its arguments."""
    name, steps = task.get("name").text(), []
    for item in _items(task, {**scope, **outputs}):
        here = {**scope, **outputs} | ({} if item is None else {"item": item})
        if not _condition(task.get("when"), here):
            continue
        inputs = _inputs(template, _given(task, template, here), values)
        step = _step(name if item is None else f"{name}({item})", template, {**values, **inputs})
        files = _outputs(name, template, {**values, **inputs}) if item is None else {}
        steps.append(replace(step, outputs=files))
    return tuple(steps)


def _outputs(name: str, template: Field, values: Mapping[str, str] | None) -> dict[str, Path]:
    """The files of a task's output parameters by the name that other tasks use; {{tags}} stay without `values`."""
    files = {}
    for parameter in template.get("outputs", "parameters").elements():
        path = parameter.get("valueFrom", "path")
        text = path.text() if values is None else _substitute(path.text(), values, path)
        files[f"tasks.{name}.outputs.parameters.{parameter.get('name').text()}"] = Path(text)
    return files


def _items(task: Field, scope: Mapping[str, str]) -> Iterable[str | None]:
    """The items of a withSequence in its format; None for a task without one."""
    sequence = task.get("withSequence")
    if sequence.value is None:
        return [None]
    count, pattern = sequence.get("count"), sequence.get("format")
    number = _substitute(count.text(), scope, count)
    if number.startswith(UNKNOWN[0]):
        return [UNKNOWN.format("item")]
    if not number.isdecimal():
        raise count.error(f"found {number!r}; expected a whole number")
    form = "%d" if pattern.value is None else pattern.text()
    if not re.fullmatch(r"[^%]*%\d*d[^%]*", form):
        raise pattern.error(f"found {form!r}; the local run supports one number, such as %d or %04d")
    return [form % item for item in range(int(number))]


def _condition(when: Field, scope: Mapping[str, str]) -> bool:
    """Whether a task's `when` is true; also if it is missing, or not known before the run."""
    if when.value is None:
        return True
    text = _substitute(when.text(), scope, when)
    match = CONDITION.fullmatch(text)
    if match is None:
        problem = "the local run supports A == B and A != B, where strings other than one word are quoted"
        raise when.error(f"found {text.translate(TAGS)!r}; {problem}")
    left, operator, right = match.groups()
    return UNKNOWN[0] in text or (_operand(left) == _operand(right)) == (operator == "==")


def _operand(text: str) -> object:
    """As Argo compares: numbers by value, and neither a number nor true or false is equal to a quoted string."""
    if text[0] in "'\"":
        return text[1:-1]
    if text in ("true", "false"):
        return (text,)
    return float(text) if text[-1].isdigit() and text.lstrip("-")[0].isdigit() else text


def _given(task: Field, template: Field, scope: Mapping[str, str]) -> dict[str, str]:
    """The arguments that a task passes to its template, by name."""
    declared = _parameters(template).keys()
    given = {}
    for argument in task.get("arguments", "parameters").elements():
        name, value = argument.get("name").text(), argument.get("value")
        if name not in declared:
            raise argument.error(f"the template has no input {name!r}; its inputs: {', '.join(sorted(declared))}")
        given[name] = _substitute(value.text(), scope, value)
    return given


def _needs(task: Field) -> tuple[str, ...]:
    """The names in `depends`. A bare name means succeeded or skipped, and here a failure ends the run."""
    depends = task.get("depends")
    if depends.value is None:
        return ()
    names = [name.strip() for name in depends.text().split("&&")]
    if not all(re.fullmatch(r"[\w-]+", name) for name in names):
        raise depends.error(f"found {depends.text()!r}; the local run supports only names joined by &&")
    return tuple(names)


def _step(name: str, template: Field, values: Mapping[str, str]) -> Step:
    container, retry = template.get("container"), template.get("retryStrategy")
    if retry.value not in (None, RETRY):
        raise retry.error(f"the local run supports only this one: {json.dumps(RETRY)}")
    words = [*container.get("command").elements(), *container.get("args").elements()]
    if not container.get("command").value:
        raise container.get("command").error("the command is missing; the local run does not use the image's own")
    command = [_substitute(word.text(), values, word) for word in words]
    for word, text in zip(words, command, strict=True):
        if "$(" in text:
            raise word.error(f"{text!r}: a cluster would expand $(…) here, the local run does not")
    if command[0] == "python":
        command[0] = sys.executable
    env, cpu_variables = _env(container, values)
    return Step(name, tuple(command), env, cpu_variables, retry.value is not None, {})


def _env(container: Field, values: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Literal values by name, and the names of the variables for the container's CPU limit."""
    env, cpu_variables = {}, []
    for variable in container.get("env").elements():
        name, value = variable.get("name").text(), variable.get("value")
        resource = variable.get("valueFrom", "resourceFieldRef", "resource")
        if resource.value is not None:
            if resource.text() != "limits.cpu":
                raise resource.error(f"found {resource.text()!r}; the local run supports only limits.cpu")
            cpu_variables.append(name)
        elif variable.get("valueFrom").value is None:
            env[name] = _substitute(value.text(), values, value)
    return env, tuple(cpu_variables)


def _in_order(entry: Field) -> list[Field]:
    """The tasks, each after the tasks that it depends on; InputError for an unknown name or a cycle."""
    tasks = list(entry.get("dag", "tasks").elements())
    by_name = {task.get("name").text(): task for task in tasks}
    if len(by_name) < len(tasks):
        raise entry.get("dag", "tasks").error("two tasks have the same name")
    for task in tasks:
        for name in _needs(task):
            if name not in by_name:
                raise task.get("depends").error(f"there is no task {name!r}")
    try:
        order = TopologicalSorter({name: _needs(task) for name, task in by_name.items()}).static_order()
        return [by_name[name] for name in order]
    except CycleError as error:
        raise entry.get("dag", "tasks").error(
            f"tasks depend on each other in a cycle: {' -> '.join(error.args[1])}"
        ) from error
