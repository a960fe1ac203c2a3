"""Workflow files against Argo's own full schemas, made strict, and its offline lint."""

import copy
import re
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
NEWER = {"pendingTimeout"}  # fields that came with Argo 4.1, for schemas of an Argo before it


@cache
def _schemas() -> dict[str, dict[str, Any]]:
    """Argo's schema of each kind, in which nothing may stand that it does not name."""
    folder = None
    if shutil.which("go"):
        command = ["go", "list", "-C", str(ROOT / "dev/argo"), "-m", "-f", "{{.Dir}}", ARGO]
        folder = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    if not folder:
        pytest.skip("no schemas: Argo's module is not in Go's cache (make lint-workflows brings it)")
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
    made = {key: _strict(value) for key, value in schema.items()}
    if isinstance(made.get("properties"), dict) and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    if made.pop("x-kubernetes-int-or-string", False):
        made = {"type": ["integer", "string"]}
    return made


def _found(document: dict[str, Any]) -> list[str]:
    """What the schema of its kind finds wrong with a document."""
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
    assert _found(document) == []


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
def test_the_schemas_find_what_is_wrong(change: Callable[[dict[str, Any]], object], text: str) -> None:
    document = copy.deepcopy(yaml.safe_load((ROOT / "workflows/full.yaml").read_text()))
    change(document)
    assert any(text in each for each in _found(document)), _found(document)


LINTED = [
    ("", "", None),
    ("template: label-index}", "template: label-indexx}", "lobar-jobs.label-indexx not found"),
    ("depends: label-index", "depends: label-inde", "label-inde"),
    (
        "{{workflow.parameters.seed}}",
        "{{workflow.parameters.sed}}",
        "failed to resolve {{workflow.parameters.sed}}",
    ),
    ("entrypoint: full", "entrypoint: full\n  parallelisms: 3", "parallelisms"),
]


@pytest.mark.parametrize(("old", "new", "message"), LINTED, ids=[new or "as it is" for _, new, _ in LINTED])
def test_argos_lint(tmp_path: Path, old: str, new: str, message: str | None) -> None:
    if not LINT.exists():
        pytest.skip("no lint of Argo in .tools (make lint-workflows builds it with Go)")
    templates = ROOT / "workflows/job-templates.yaml"
    text = (ROOT / "workflows/full.yaml").read_text()
    assert old in text
    (tmp_path / "full.yaml").write_text(text.replace(old, new, 1) if old else text)
    done = subprocess.run(
        [LINT, tmp_path / "full.yaml", templates], capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    if message is None:
        assert done.returncode == 0, said
    else:
        assert done.returncode == 1
        assert re.search(re.escape(message), said), said
