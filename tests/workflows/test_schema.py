"""Workflow files against Argo's own full schemas, made strict, and its offline lint."""

import copy
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    *(path for path in sorted((ROOT / "workflows").glob("*.yaml")) if path.name != "kustomization.yaml"),
    ROOT / "k8s/overlays/minio/demo-data.yaml",
]
ARGO = "github.com/argoproj/argo-workflows/v4"
LINT = ROOT / ".tools/argo/bin/lint"
NEWER = {"pendingTimeout"}  # fields of Argo 4.1, which the schemas of an older Argo do not have


@cache
def _schemas() -> dict[str, dict[str, Any]]:
    """Argo's schema of each kind, made strict: a field that it does not name is an error."""
    folder = None
    if shutil.which("go"):
        command = ["go", "list", "-C", str(ROOT / "dev/argo"), "-m", "-f", "{{.Dir}}", ARGO]
        folder = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    if not folder:
        pytest.skip("no schemas: Argo's module is not in Go's cache (make lint-workflows downloads it)")
    schemas = {}
    for kind in ("workflows", "workflowtemplates", "cronworkflows"):
        path = Path(folder, f"manifests/base/crds/full/argoproj.io_{kind}.yaml")
        definition = yaml.load(path.read_text(), yaml.CSafeLoader)  # some MB
        schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        schema["properties"]["metadata"]["x-kubernetes-preserve-unknown-fields"] = True
        schemas[definition["spec"]["names"]["kind"]] = _strict(schema)
    return schemas


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items()}
    if isinstance(strict.get("properties"), dict) and not strict.get("x-kubernetes-preserve-unknown-fields"):
        strict.setdefault("additionalProperties", False)
    if strict.pop("x-kubernetes-int-or-string", False):
        strict = {"type": ["integer", "string"]}
    return strict


def _errors(document: dict[str, Any]) -> list[str]:
    """The errors that the schema of its kind finds in a document."""
    errors = jsonschema.Draft202012Validator(_schemas()[document["kind"]]).iter_errors(document)
    messages = [f"{error.json_path}: {error.message}" for error in errors]
    return [text for text in messages if not any(f"('{name}' was unexpected)" in text for name in NEWER)]


def _documents() -> list[Any]:
    return [
        pytest.param(document, id=path.name)
        for path in FILES
        for document in yaml.safe_load_all(path.read_text())
    ]


@pytest.mark.parametrize("document", _documents())
def test_argos_schemas_know_every_field(document: dict[str, Any]) -> None:
    assert _errors(document) == []


MUTATIONS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda w: w["spec"].update(entrypoints="x"), "$.spec: Additional properties"),
    (lambda w: w["spec"]["templates"][0].update(dagg={}), "$.spec.templates[0]: Additional properties"),
    (
        lambda w: w["spec"]["templates"][0]["dag"]["tasks"][0].update(depend="x"),
        "tasks[0]: Additional properties",
    ),
    (lambda w: w["spec"].update(parallelism="many"), "$.spec.parallelism: 'many' is not of type"),
    (lambda w: w["spec"]["podGC"].update(delay="60s"), "$.spec.podGC: Additional properties"),
    (lambda w: w["spec"]["metrics"]["prometheus"][0].pop("help"), "'help' is a required property"),
]


@pytest.mark.parametrize(("change", "text"), MUTATIONS)
def test_the_schemas_find_errors(change: Callable[[dict[str, Any]], object], text: str) -> None:
    document = copy.deepcopy(yaml.safe_load((ROOT / "workflows/lobar.yaml").read_text()))
    change(document)
    assert any(text in each for each in _errors(document)), _errors(document)


LINTED = [
    ("lobar.yaml", "", "", None),
    ("lobar.yaml", "template: label-index\n", "template: label-indexx\n", "label-indexx"),
    ("lobar.yaml", "depends: label-index", "depends: label-inde", "label-inde"),
    (
        "lobar.yaml",
        "{{workflow.parameters.seed}}",
        "{{workflow.parameters.sed}}",
        "failed to resolve {{workflow.parameters.sed}}",
    ),
    (
        "lobar.yaml",
        "{{tasks.plan.outputs.parameters.shards}}",
        "{{tasks.plan.outputs.parameters.shard}}",
        "failed to resolve {{tasks.plan.outputs.parameters.shard}}",
    ),
    ("lobar.yaml", "value: cpu, enum", "value: tpu, enum", "enum"),
    ("full.yaml", "entrypoint: full", "entrypoint: full\n  parallelisms: 3", "parallelisms"),
    ("full.yaml", "entrypoint: full", "entrypoint: ful", "ful not found"),
    ("full.yaml", "{name: lobar}", "{name: lobarr}", "lobarr"),
]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"), LINTED, ids=[new or "unchanged" for *_, new, _ in LINTED]
)
def test_argos_lint(tmp_path: Path, file: str, old: str, new: str, message: str | None) -> None:
    if not LINT.exists():
        pytest.skip("no lint of Argo in .tools (make lint-workflows builds it with Go)")
    for path in FILES:
        (tmp_path / path.name).write_text(path.read_text())
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new, 1))
    done = subprocess.run([LINT, *tmp_path.iterdir()], capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    if message is None:
        assert done.returncode == 0, output
    else:
        assert done.returncode == 1
        assert message in output
