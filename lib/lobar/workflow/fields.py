"""The fields of a workflow file that the local run supports; any other field is an error that names it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lobar.core.errors import InputError

# A parent and its fields; each field includes everything under it.
EXECUTED = """
Workflow: apiVersion kind metadata.name metadata.generateName
Workflow.spec: entrypoint workflowTemplateRef.name
Workflow.spec.arguments.parameters[]: name value enum
WorkflowTemplate: apiVersion kind metadata.name
CronWorkflow: apiVersion kind metadata.name
template: name retryStrategy
template.inputs.parameters[]: name value default
template.outputs.parameters[]: name valueFrom.path
template.dag.tasks[]: name depends template when withSequence.count
template.dag.tasks[].arguments.parameters[]: name value
template.container: command args
template.container.env[]: name value valueFrom.resourceFieldRef.resource
"""
# These have a meaning on a cluster only. A local step is an ordinary process with this machine's files and
# the runner's environment; a person starts the run, and nothing is deleted after it.
IGNORED = """
Workflow.metadata: namespace labels annotations
Workflow.spec: serviceAccountName automountServiceAccountToken executor securityContext nodeSelector affinity
Workflow.spec: tolerations imagePullSecrets podDisruptionBudget priority podPriorityClassName parallelism
Workflow.spec: activeDeadlineSeconds podSpecPatch volumes podMetadata workflowMetadata podGC ttlStrategy
Workflow.spec: archiveLogs metrics artifactGC artifactRepositoryRef onExit
Workflow.spec.arguments.parameters[]: description
WorkflowTemplate.metadata: namespace labels annotations
CronWorkflow.metadata: namespace labels annotations
CronWorkflow.spec: schedules timezone concurrencyPolicy startingDeadlineSeconds stopStrategy suspend when
CronWorkflow.spec: successfulJobsHistoryLimit failedJobsHistoryLimit workflowMetadata
template: serviceAccountName automountServiceAccountToken securityContext nodeSelector affinity tolerations
template: priorityClassName podSpecPatch parallelism activeDeadlineSeconds pendingTimeout volumes metadata
template: metrics outputs.artifacts container.image container.imagePullPolicy container.resources
template.inputs.parameters[]: description
template.container: securityContext volumeMounts envFrom terminationMessagePolicy
template.container.env[].valueFrom: secretKeyRef configMapKeyRef fieldRef
"""
SUPPORTED = frozenset(
    f"{parent}.{name}"
    for parent, names in (line.split(": ") for line in (EXECUTED + IGNORED).split("\n") if line)
    for name in names.split()
)
ALIASES = {  # parts that have the same fields
    "Workflow.spec.templates[]": "template",
    "WorkflowTemplate.spec": "Workflow.spec",
    "CronWorkflow.spec.workflowSpec": "Workflow.spec",
}


@dataclass(frozen=True, slots=True)
class Field:
    """A value of a YAML file and its path in that file."""

    value: Any
    file: str
    path: str = ""

    def error(self, problem: str) -> InputError:
        return InputError(f"{self.file}: {self.path or 'the document'}: {problem}")

    def children(self) -> Iterator[tuple[str, "Field"]]:
        """The fields of a mapping with their names."""
        if not isinstance(self.value, dict):
            raise self.error(f"found {type(self.value).__name__}; expected a mapping")
        for key, value in self.value.items():
            yield key, Field(value, self.file, f"{self.path}.{key}".lstrip("."))

    def elements(self) -> Iterator["Field"]:
        """The elements of a list; a missing field has no elements."""
        if not isinstance(self.value, list | None):
            raise self.error(f"found {type(self.value).__name__}; expected a list")
        for index, value in enumerate(self.value or ()):
            yield Field(value, self.file, f"{self.path}[{index}]")

    def get(self, *keys: str) -> "Field":
        """The field at a path of names; its value is None if it is missing."""
        field = self
        for key in keys:
            path = f"{field.path}.{key}".lstrip(".")
            children = {} if field.value is None else dict(field.children())
            field = children.get(key, Field(None, self.file, path))
        return field

    def text(self) -> str:
        """The scalar as a string, as Argo reads it; InputError for a missing value, a list or a mapping."""
        if isinstance(self.value, bool):
            return str(self.value).lower()
        if isinstance(self.value, str | int | float):
            return str(self.value)
        raise self.error("the value is missing" if self.value is None else "expected a string or a number")


def read_documents(path: Path) -> tuple[Field, dict[str, Field]]:
    """The Workflow or CronWorkflow in `path`, and by name the WorkflowTemplates in its folder.

    Raises InputError for a missing or invalid file, more than one workflow, or two templates of one name.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give one of the workflow files")
    workflows: list[Field] = []
    library: dict[str, Field] = {}
    for file in [path, *sorted(other for other in path.parent.glob("*.yaml") if other.name != path.name)]:
        try:
            documents = [Field(value, file.name) for value in yaml.safe_load_all(file.read_text())]
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: not a YAML file: {error}") from error
        for document in documents:
            kind = document.value.get("kind") if isinstance(document.value, dict) else None
            if kind == "WorkflowTemplate":
                name = document.get("metadata", "name").text()
                if name in library:
                    raise document.error(
                        f"{library[name].file} also has a WorkflowTemplate {name!r}; keep one"
                    )
                library[name] = document
            elif kind in ("Workflow", "CronWorkflow") and file == path:
                workflows.append(document)
    if len(workflows) != 1:
        raise InputError(f"{path}: found {len(workflows)} workflows; expected one Workflow or CronWorkflow")
    return workflows[0], library


def check(field: Field, schema_path: str) -> None:
    """Raise InputError for the first field in `field` that is not supported.

    `schema_path` is the path of the field with its kind in front and without list indexes.
    """
    schema_path = ALIASES.get(schema_path, schema_path)
    if schema_path in SUPPORTED:
        return
    if isinstance(field.value, dict) and _is_parent(schema_path + "."):
        for name, child in field.children():
            check(child, f"{schema_path}.{name}")
    elif isinstance(field.value, list) and _is_parent(schema_path + "[]"):
        for element in field.elements():
            check(element, schema_path + "[]")
    else:
        raise field.error("not supported by the local run; remove it, or run the workflow on a cluster")


def _is_parent(prefix: str) -> bool:
    return any(path.startswith(prefix) for path in SUPPORTED | ALIASES.keys())
