"""Workflow files against Argo's own full schemas, made strict, and its offline lint."""

import subprocess
import sys
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
OVERLAYS = sorted(path.name for path in (ROOT / "k8s/overlays").iterdir())
VERSIONS = [line.split()[1] for line in (ROOT / "dev/argo/go.sum").read_text().splitlines()]
LINTS = VERSIONS[1:]  # the versions whose argo command `make lint-workflows` builds


@cache
def _schemas(version: str) -> dict[str, dict[str, Any]]:
    """A version's schema of each kind, made strict: a field that it does not name is an error."""
    folder = ROOT / ".tools/argo" / version / "src/manifests/base/crds/full"
    if not folder.exists():
        pytest.skip(f"no schemas of Argo {version} in .tools (make lint-workflows downloads them with Go)")
    schemas = {}
    for kind in ("workflows", "workflowtemplates", "cronworkflows"):
        definition = yaml.load((folder / f"argoproj.io_{kind}.yaml").read_text(), yaml.CSafeLoader)  # some MB
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


def _errors(document: dict[str, Any], version: str) -> list[str]:
    """The errors that the schema of its kind finds in a document."""
    errors = jsonschema.Draft202012Validator(_schemas(version)[document["kind"]]).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for error in errors]


def _deployed(overlay: str) -> dict[str, Any]:
    """The WorkflowTemplate that `make deploy` applies."""
    command = [Path(sys.executable).with_name("kubectl"), "kustomize", ROOT / "k8s/overlays" / overlay]
    built = yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    (template,) = (each for each in built if each["kind"] == "WorkflowTemplate")
    return template


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_argos_schemas_know_every_field_of_the_files(path: Path, version: str) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        assert _errors(document, version) == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_argos_schemas_know_every_field_that_deploy_applies(overlay: str, version: str) -> None:
    assert _errors(_deployed(overlay), version) == []


MUTATIONS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda w: w["spec"].update(entrypoints="x"), "$.spec: Additional properties"),
    (lambda w: w["spec"]["templates"][0].update(dagg={}), "$.spec.templates[0]: Additional properties"),
    (
        lambda w: w["spec"]["templates"][0]["dag"]["tasks"][0].update(depend="x"),
        "tasks[0]: Additional properties",
    ),
    (lambda w: w["spec"]["templates"][3].update(pendingTimeout="1h"), "templates[3]: Additional properties"),
    (lambda w: w["spec"].update(parallelism="many"), "$.spec.parallelism: 'many' is not of type"),
    (lambda w: w["spec"]["podGC"].update(delay="60s"), "$.spec.podGC: Additional properties"),
    (lambda w: w["spec"]["metrics"]["prometheus"][0].pop("help"), "'help' is a required property"),
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("change", "text"), MUTATIONS)
def test_the_schemas_find_errors(change: Callable[[dict[str, Any]], object], text: str, version: str) -> None:
    document = yaml.safe_load((ROOT / "workflows/lobar.yaml").read_text())
    change(document)
    assert any(text in each for each in _errors(document, version)), _errors(document, version)


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


@pytest.mark.parametrize("version", LINTS)
@pytest.mark.parametrize(
    ("file", "old", "new", "message"), LINTED, ids=[new or "unchanged" for *_, new, _ in LINTED]
)
def test_argos_lint(tmp_path: Path, file: str, old: str, new: str, message: str | None, version: str) -> None:
    argo = ROOT / ".tools/argo" / version / "argo"
    if not argo.exists():
        pytest.skip(f"no argo command {version} in .tools (make lint-workflows builds it with Go)")
    for path in FILES:
        (tmp_path / path.name).write_text(path.read_text())
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new, 1))
    command = [argo, "lint", "--offline", "--no-color", *tmp_path.iterdir()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    if message is None:
        assert done.returncode == 0, output
    else:
        assert done.returncode == 1
        assert message in output
