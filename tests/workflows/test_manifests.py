"""The cluster's manifests: what kubectl builds of them, what may do what, and how much of it fits."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBECTL = Path(sys.executable).with_name("kubectl")
OVERLAYS = sorted(path.name for path in (ROOT / "k8s/overlays").iterdir())
UNITS = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@cache
def _built(overlay: str) -> list[dict[str, Any]]:
    command = [str(KUBECTL), "kustomize", str(ROOT / "k8s/overlays" / overlay)]
    return list(
        yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    )


def _of(overlay: str, kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in _built(overlay) if each["kind"] == kind}


def _workflows() -> list[dict[str, Any]]:
    documents = [yaml.safe_load(path.read_text()) for path in (ROOT / "workflows").glob("*.yaml")]
    documents.append(yaml.safe_load((ROOT / "k8s/overlays/minio/demo-data.yaml").read_text()))
    return [document for document in documents if document["kind"] in ("Workflow", "CronWorkflow")]


def _templates(overlay: str) -> list[dict[str, Any]]:
    (library,) = _of(overlay, "WorkflowTemplate").values()
    return library["spec"]["templates"]


def _number(quantity: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(\w*)", quantity).groups()
    return float(number) * UNITS.get(unit, 1)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_takes_every_object(overlay: str) -> None:
    built = _built(overlay)
    assert {each["metadata"].get("namespace", "lobar") for each in built} == {"lobar"}
    for each in built:
        if not each["apiVersion"].startswith("argoproj.io/"):  # Argo's own lint and schemas judge these
            kubernetes_validate.validate(each, "1.34", strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_may_do_what_the_executor_needs_and_nothing_else(overlay: str) -> None:
    assert [role["rules"] for role in _of(overlay, "Role").values()] == [
        [{"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}]
    ]
    assert not _of(overlay, "ClusterRole")
    assert not _of(overlay, "ClusterRoleBinding")
    (binding,) = _of(overlay, "RoleBinding").values()
    (account,) = _of(overlay, "ServiceAccount")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "lobar"}]
    assert binding["roleRef"]["name"] in _of(overlay, "Role")
    for workflow in _workflows():
        spec = workflow["spec"].get("workflowSpec", workflow["spec"])
        assert spec["serviceAccountName"] == account


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_restricted(overlay: str) -> None:
    labels = _of(overlay, "Namespace")["lobar"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    pods = [each["spec"]["template"]["spec"] for each in _of(overlay, "Deployment").values()]
    for template in _templates(overlay):
        pods.append({**template, "containers": [template["container"]]})
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_in_the_repository(overlay: str) -> None:
    assert not _of(overlay, "Secret")
    used = re.findall(r"key: (AWS_\w+)", yaml.safe_dump(_built(overlay)))
    made = re.findall(r"(AWS_\w+)=", (ROOT / "Makefile").read_text())
    assert {*used} <= {*made}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_is_reached_but_what_is_said(overlay: str) -> None:
    policies = _of(overlay, "NetworkPolicy")
    assert policies["deny-all"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    rules = [rule for policy in policies.values() for rule in policy["spec"].get("egress", [])]
    reached = {port["port"] for rule in rules for port in rule["ports"]}
    store = {"minio": {9000}, "gke": {80, 988}, "eks": set()}[overlay]
    assert reached == {53, 443, 6443} | store
    entered = [policy for policy in policies.values() if policy["spec"].get("ingress")]
    assert [policy["spec"]["podSelector"] for policy in entered] == (
        [{"matchLabels": {"app": "minio"}}] if overlay == "minio" else []
    )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_as_many_pods_as_a_workflow_runs_at_once_fit_the_quota(overlay: str) -> None:
    hard = _of(overlay, "ResourceQuota")["lobar"]["spec"]["hard"]
    (limits,) = _of(overlay, "LimitRange")["lobar"]["spec"]["limits"]
    asked = [
        template["container"]["resources"]
        for template in _templates(overlay)
        if template["name"] == "predict"
    ]
    at_once = max(
        each["spec"].get("workflowSpec", each["spec"]).get("parallelism", 1) for each in _workflows()
    )
    for name in ("cpu", "memory"):
        pod = _number(asked[0]["requests"][name]) + _number(limits["defaultRequest"][name])
        assert at_once * pod <= _number(hard[f"requests.{name}"])
        largest = max(_number(t["container"]["resources"]["requests"][name]) for t in _templates(overlay))
        assert largest + _number(limits["defaultRequest"][name]) <= _number(hard[f"requests.{name}"])
    assert at_once <= int(hard["pods"])
    assert int(hard["requests.nvidia.com/gpu"]) >= 1


def test_the_jobs_and_minio_share_one_secret() -> None:
    secrets = {
        source["secretRef"]["name"]
        for template in _templates("minio")
        for source in template["container"]["envFrom"]
        if source["secretRef"]["optional"]
    }
    (minio,) = _of("minio", "Deployment").values()
    (container,) = minio["spec"]["template"]["spec"]["containers"]
    used = {variable["valueFrom"]["secretKeyRef"]["name"] for variable in container["env"]}
    assert used == secrets == {"lobar-store"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_argo_finds_its_artifact_repository(overlay: str) -> None:
    repositories = _of(overlay, "ConfigMap")["artifact-repositories"]
    name = repositories["metadata"]["annotations"]["workflows.argoproj.io/default-artifact-repository"]
    repository = yaml.safe_load(repositories["data"][name])
    assert repository["archiveLogs"]
    (store,) = (repository[kind] for kind in ("s3", "gcs") if kind in repository)
    # a name of its own for each pod, and the file's name after it, by whose suffix Argo's UI shows it
    assert store["keyFormat"].endswith("{{workflow.name}}/{{pod.name}}")


def test_deploy_wants_an_overlay_that_there_is() -> None:
    done = subprocess.run(
        ["make", "-s", "deploy", "OVERLAY=none"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        f"deploy needs OVERLAY, one of: {' '.join(OVERLAYS)}",
    )
