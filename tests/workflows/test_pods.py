"""What the parameters of the WorkflowTemplate change in pods: node pools, GPUs, the webhook."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

SPEC = yaml.safe_load((Path(__file__).resolve().parents[2] / "workflows/lobar.yaml").read_text())["spec"]
TEMPLATES = [template for template in SPEC["templates"] if "container" in template]
PARAMETERS = {each["name"]: each["value"] for each in SPEC["arguments"]["parameters"]}


def _patch(name: str, given: dict[str, str]) -> dict[str, Any]:
    """A template's podSpecPatch with these parameters. Python stands in for Argo's substitution and its
    expressions; test_cluster.py sees what Argo's controller makes of them.
    """
    (template,) = (template for template in TEMPLATES if template["name"] == name)
    parameters = PARAMETERS | given
    patch = template["podSpecPatch"].strip()
    if patch.startswith("{{="):
        condition, _, rest = patch[3:-2].partition(" ? ")
        yes, _, no = rest.rpartition(" : ")
        expression = re.sub(
            r"workflow\.parameters\.(\w+)", r'workflow.parameters["\1"]', f"{yes} if {condition} else {no}"
        )
        scope = {"workflow": SimpleNamespace(parameters=parameters), "toJson": json.dumps}
        return yaml.safe_load(eval(expression, scope))
    return yaml.safe_load(
        re.sub(r"{{workflow\.parameters\.([\w-]+)}}", lambda tag: parameters[tag[1]], patch)
    )


@pytest.mark.parametrize(
    ("name", "device", "pool"),
    [
        ("train", "cpu", "gpu-"),
        ("evaluate", "cpu", ""),
        ("plan", "cpu", ""),
        ("predict-shard", "cpu", ""),
        ("predict-shard", "gpu", "gpu-"),
    ],
)
def test_pods_of_a_pool_have_its_selector_and_tolerations(name: str, device: str, pool: str) -> None:
    selector, tolerations = {"pool": "spot", "kind": "a b"}, [{"key": "spot", "value": "true"}, {"key": "x"}]
    given = {f"{pool}nodes": json.dumps(selector), f"{pool}tolerations": json.dumps(tolerations)}
    patch = _patch(name, given | {"device": device})
    assert (patch["nodeSelector"], patch["tolerations"]) == (selector, tolerations)
    default = _patch(name, {"device": device})
    gpu_taint = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert (default["nodeSelector"], default["tolerations"]) == ({}, gpu_taint if pool else [])


def test_the_gpu_is_the_one_of_the_parameters() -> None:
    given = {"gpu-resource": "nvidia.com/mig-1g.10gb", "gpus": "2", "device": "gpu", "train-image": "t:1"}
    (train,) = _patch("train", given)["containers"]
    assert train == {"name": "main", "resources": {"limits": {"nvidia.com/mig-1g.10gb": 2}}}
    (predict,) = _patch("predict-shard", given)["containers"]
    assert (predict["name"], predict["image"]) == ("main", "t:1")
    assert predict["resources"]["limits"] == {"memory": "12Gi", "nvidia.com/mig-1g.10gb": 1}
    assert predict["resources"]["requests"]["memory"] == predict["resources"]["limits"]["memory"]
    for name in ("train", "predict-shard"):
        (container,) = _patch(name, {"device": "gpu"})["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "containers" not in _patch("predict-shard", {})


def test_only_the_summary_has_the_webhook_and_runs_without_one() -> None:
    urls = {
        template["name"]: variable["valueFrom"]["secretKeyRef"]
        for template in TEMPLATES
        for variable in template["container"]["env"]
        if variable["name"] == "LOBAR_WEBHOOK_URL"
    }
    secret = {"name": "{{workflow.parameters.webhook-secret}}", "key": "url", "optional": True}
    assert urls == {"summary": secret}
    assert PARAMETERS["webhook-secret"]  # Kubernetes rejects an empty name, even of an optional secret
