"""What a workflow file may say for this machine to run it as a cluster would.

Three lists keep that honest: what is EXECUTED, what is IGNORED because only a cluster has it, and everything
else, which is rejected by name. A name counts for the whole field below it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from lobar.core.errors import InputError

EXECUTED = (
    ("Workflow", "apiVersion kind metadata.name metadata.generateName spec.entrypoint"),
    ("Workflow.spec.arguments.parameters[]", "name value"),
    ("WorkflowTemplate", "apiVersion kind metadata.name"),
    ("CronWorkflow", "apiVersion kind metadata.name"),
    ("template", "name retryStrategy"),
    ("template.inputs.parameters[]", "name value default"),
    ("template.dag.tasks[]", "name depends template templateRef.name templateRef.template"),
    ("template.dag.tasks[]", "withSequence.count withSequence.format"),
    ("template.dag.tasks[].arguments.parameters[]", "name value"),
    ("template.container", "command args"),
    ("template.container.env[]", "name value valueFrom.resourceFieldRef.resource"),
)

_PLACE = "says where, as whom and within which bounds a pod runs; here a step is a process like any other"
_MOUNT = "brings files and settings into a pod; here they are the machine's and the runner's own environment"
_AFTER = "is what the cluster keeps, shows or cleans up"
_WHEN = "says when the cluster starts a run; here a person starts one"
IGNORED = (
    ("Workflow.spec", "serviceAccountName automountServiceAccountToken executor securityContext", _PLACE),
    ("Workflow.spec", "nodeSelector affinity tolerations imagePullSecrets podDisruptionBudget", _PLACE),
    ("Workflow.spec", "priority podPriorityClassName parallelism activeDeadlineSeconds podSpecPatch", _PLACE),
    ("template", "serviceAccountName automountServiceAccountToken securityContext", _PLACE),
    ("template", "nodeSelector affinity tolerations priorityClassName podSpecPatch", _PLACE),
    ("template", "parallelism activeDeadlineSeconds pendingTimeout", _PLACE),
    ("template.container", "image imagePullPolicy resources securityContext", _PLACE),
    ("Workflow.spec", "volumes", _MOUNT),
    ("template", "volumes", _MOUNT),
    ("template.container", "volumeMounts envFrom", _MOUNT),
    ("template.container.env[].valueFrom", "secretKeyRef configMapKeyRef fieldRef", _MOUNT),
    ("Workflow.metadata", "namespace labels annotations", _AFTER),
    ("WorkflowTemplate.metadata", "namespace labels annotations", _AFTER),
    ("Workflow.spec", "podMetadata workflowMetadata podGC ttlStrategy archiveLogs metrics", _AFTER),
    ("Workflow.spec", "artifactGC artifactRepositoryRef onExit", _AFTER),
    ("Workflow.spec.arguments.parameters[]", "description", _AFTER),
    ("template", "metadata metrics outputs.artifacts outputs.parameters", _AFTER),
    ("template.inputs.parameters[]", "description", _AFTER),
    ("template.container", "terminationMessagePolicy", _AFTER),
    ("CronWorkflow.metadata", "namespace labels annotations", _AFTER),
    ("CronWorkflow.spec", "schedules timezone concurrencyPolicy startingDeadlineSeconds", _WHEN),
    ("CronWorkflow.spec", "stopStrategy suspend when", _WHEN),
    ("CronWorkflow.spec", "successfulJobsHistoryLimit failedJobsHistoryLimit workflowMetadata", _AFTER),
)
KNOWN = frozenset(f"{place}.{name}" for place, names, *_ in (*EXECUTED, *IGNORED) for name in names.split())
# What has the same shape wherever it stands
SAME = MappingProxyType(
    {
        "Workflow.spec.templates[]": "template",
        "WorkflowTemplate.spec.templates[]": "template",
        "CronWorkflow.spec.workflowSpec": "Workflow.spec",
    }
)


@dataclass(frozen=True, slots=True)
class Field:
    """A value of a YAML file and where it stands."""

    value: Any
    file: str
    path: str = ""

    def rejected(self, why: str) -> InputError:
        return InputError(f"{self.file}: {self.path or 'the document'}: {why}")

    def items(self) -> Iterator[tuple[str, "Field"]]:
        """The named children of a mapping."""
        if not isinstance(self.value, dict):
            raise self.rejected(f"found {type(self.value).__name__}; a mapping is wanted")
        for key, value in self.value.items():
            yield key, Field(value, self.file, f"{self.path}.{key}".lstrip("."))

    def each(self) -> Iterator["Field"]:
        """The children of a list; none where the field is missing."""
        if not isinstance(self.value, list | None):
            raise self.rejected(f"found {type(self.value).__name__}; a list is wanted")
        for index, value in enumerate(self.value or ()):
            yield Field(value, self.file, f"{self.path}[{index}]")

    def get(self, *keys: str) -> "Field":
        """The child at a path of names, with the value None where it is missing."""
        field = self
        for key in keys:
            path = f"{field.path}.{key}".lstrip(".")
            children = {} if field.value is None else dict(field.items())
            field = children.get(key, Field(None, self.file, path))
        return field

    def text(self) -> str:
        """The scalar as Argo reads it; InputError where there is none."""
        if isinstance(self.value, bool):
            return str(self.value).lower()
        if isinstance(self.value, str | int | float):
            return str(self.value)
        raise self.rejected(
            "a value is missing here" if self.value is None else "a text or a number is wanted"
        )


def documents(path: Path) -> tuple[Field, dict[str, Field]]:
    """The file's one Workflow or CronWorkflow, and the WorkflowTemplates in it and beside it, by name."""
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
                    raise document.rejected(
                        f"{library[name].file} has a WorkflowTemplate {name!r} too; keep one"
                    )
                library[name] = document
            elif kind in ("Workflow", "CronWorkflow") and file == path:
                workflows.append(document)
    if len(workflows) != 1:
        raise InputError(f"{path}: found {len(workflows)} workflows; one Workflow or CronWorkflow is wanted")
    return workflows[0], library


def check(field: Field, shape: str) -> None:
    """Reject every field below this one that is on neither list; `shape` is its path without the numbers."""
    shape = SAME.get(shape, shape)
    if shape in KNOWN:
        return
    if isinstance(field.value, dict) and _leads_on(shape + "."):
        for name, child in field.items():
            check(child, f"{shape}.{name}")
    elif isinstance(field.value, list) and _leads_on(shape + "[]"):
        for child in field.each():
            check(child, shape + "[]")
    else:
        raise field.rejected(
            "the local run does not execute this; remove it, or run the workflow on a cluster"
        )


def _leads_on(start: str) -> bool:
    return any(path.startswith(start) for path in KNOWN | SAME.keys())
