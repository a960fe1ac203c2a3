"""The cluster's manifests: what kubectl builds from them, permissions, restrictions and quotas."""

import re
import shutil
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


def _build(checkout: Path, overlay: str) -> list[dict[str, Any]]:
    command = [str(KUBECTL), "kustomize", str(checkout / "k8s/overlays" / overlay)]
    return list(
        yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    )


@cache
def _built(overlay: str) -> list[dict[str, Any]]:
    return _build(ROOT, overlay)


def _of(overlay: str, kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in _built(overlay) if each["kind"] == kind}


def _workflows() -> list[dict[str, Any]]:
    """The specs of what can be submitted: the template's fields and the workflow's own over them."""
    documents = [yaml.safe_load(path.read_text()) for path in (ROOT / "workflows").glob("*.yaml")]
    documents.append(yaml.safe_load((ROOT / "k8s/overlays/minio/demo-data.yaml").read_text()))
    templates = {each["metadata"]["name"]: each for each in documents if each["kind"] == "WorkflowTemplate"}
    own = [
        document["spec"].get("workflowSpec", document["spec"])
        for document in documents
        if document["kind"] in ("Workflow", "CronWorkflow")
    ]
    assert len(own) == 4
    return [templates[spec["workflowTemplateRef"]["name"]]["spec"] | spec for spec in own]


def _templates(overlay: str) -> list[dict[str, Any]]:
    """The templates with a container."""
    (library,) = _of(overlay, "WorkflowTemplate").values()
    return [template for template in library["spec"]["templates"] if "container" in template]


def _number(quantity: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(\w*)", quantity).groups()
    return float(number) * UNITS.get(unit, 1)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_accepts_every_object(overlay: str) -> None:
    built = _built(overlay)
    assert {each["metadata"].get("namespace", "lobar") for each in built} == {"lobar"}
    for each in built:
        if not each["apiVersion"].startswith("argoproj.io/"):  # Argo's own lint and schemas judge these
            kubernetes_validate.validate(each, "1.34", strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_may_do_what_the_executor_and_the_summary_need_and_nothing_else(overlay: str) -> None:
    results = {"resources": ["workflowtaskresults"], "verbs": ["create", "patch", "list"]}
    workflows = {"resources": ["workflows"], "verbs": ["get"]}
    assert [role["rules"] for role in _of(overlay, "Role").values()] == [
        [{"apiGroups": ["argoproj.io"]} | rule for rule in (results, workflows)]
    ]
    assert not _of(overlay, "ClusterRole")
    assert not _of(overlay, "ClusterRoleBinding")
    (binding,) = _of(overlay, "RoleBinding").values()
    (account,) = _of(overlay, "ServiceAccount")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "lobar"}]
    assert binding["roleRef"]["name"] in _of(overlay, "Role")
    for spec in _workflows():
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
def test_pods_reach_only_the_ports_of_dns_the_api_server_and_the_store(overlay: str) -> None:
    policies = _of(overlay, "NetworkPolicy")
    assert policies["deny-all"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    rules = [rule for policy in policies.values() for rule in policy["spec"].get("egress", [])]
    reached = {port["port"] for rule in rules for port in rule["ports"]}
    store = {"minio": {9000}, "gke": {80, 988}, "eks": set(), "aks": set()}[overlay]
    assert reached == {53, 443, 6443} | store
    entered = [policy for policy in policies.values() if policy["spec"].get("ingress")]
    assert [policy["spec"]["podSelector"] for policy in entered] == (
        [{"matchLabels": {"app": "minio"}}] if overlay == "minio" else []
    )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ranges_in_network_yaml_restrict_all_that_pods_reach(overlay: str, tmp_path: Path) -> None:
    for folder in ("k8s", "workflows"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    network = tmp_path / "k8s/overlays" / overlay / "network.yaml"
    assert "to: []" in network.read_text()
    for number in range(network.read_text().count("to: []  #")):
        given = f"to: [{{ipBlock: {{cidr: 10.{number}.0.0/16}}}}]  #"
        network.write_text(network.read_text().replace("to: []  #", given, 1))
    rules = [
        rule
        for each in _build(tmp_path, overlay)
        if each["kind"] == "NetworkPolicy"
        for rule in each["spec"].get("egress", [])
    ]
    assert all(rule["to"] for rule in rules)
    ranges = [to["ipBlock"]["cidr"] for rule in rules for to in rule["to"] if "ipBlock" in to]
    clouds = ["169.254.169.254/32", "169.254.169.252/32"] if overlay == "gke" else []
    assert ranges == (["10.0.0.0/16"] if overlay == "minio" else ["10.0.0.0/16", "10.1.0.0/16", *clouds])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_parallel_pods_of_a_workflow_fit_the_quota(overlay: str) -> None:
    hard = _of(overlay, "ResourceQuota")["lobar"]["spec"]["hard"]
    (limits,) = _of(overlay, "LimitRange")["lobar"]["spec"]["limits"]
    asked = [
        template["container"]["resources"]
        for template in _templates(overlay)
        if template["name"] == "predict-shard"
    ]
    at_once = max(spec["parallelism"] for spec in _workflows())
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
    (store,) = (repository[kind] for kind in ("s3", "gcs", "azure") if kind in repository)
    name_format = store["blobNameFormat" if "azure" in repository else "keyFormat"]
    # a folder for each pod; Argo appends the name of the file, and its UI shows the file by its suffix
    assert name_format.endswith("{{workflow.name}}/{{pod.name}}")


def test_azures_webhook_finds_the_identity_and_the_pods() -> None:
    (account,) = _of("aks", "ServiceAccount").values()
    assert "azure.workload.identity/client-id" in account["metadata"]["annotations"]
    (library,) = _of("aks", "WorkflowTemplate").values()
    labels = library["spec"]["podMetadata"]["labels"]
    assert labels["azure.workload.identity/use"] == "true"
    assert "kueue.x-k8s.io/queue-name" in labels  # the patch adds to the template's own


def test_deploy_needs_an_existing_overlay() -> None:
    # -o: never install, which would replace the environment of these tests if a requirement is newer
    command = ["make", "-s", "-o", ".venv/installed", "deploy", "OVERLAY=none"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        f"deploy needs OVERLAY, one of: {' '.join(OVERLAYS)}",
    )
