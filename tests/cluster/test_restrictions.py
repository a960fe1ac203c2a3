"""The restrictions of lobar's namespace: pod security and network policies."""

import json
from typing import Any

import pytest

from tests.cluster.common import PARAMETERS, SMALL_RESOURCES, templates
from tests.support.argo import kubectl

pytestmark = pytest.mark.cluster


def _pod() -> dict[str, Any]:
    """A pod with the restrictions of our templates."""
    template = next(template for template in templates() if "container" in template)
    container = {
        "name": "main",
        "image": "lobar",
        "securityContext": template["container"]["securityContext"],
        "resources": {"requests": SMALL_RESOURCES, "limits": SMALL_RESOURCES},
    }
    spec = {"containers": [container], "securityContext": template["securityContext"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "restricted"}, "spec": spec}


def _create_dry_run(pod: dict[str, Any]) -> str:
    return kubectl("create", "--dry-run=server", "--filename=-", text=json.dumps(pod))


@pytest.mark.parametrize(
    ("part", "setting", "value"),
    [
        ("pod", "runAsNonRoot", False),
        ("pod", "runAsUser", 0),
        ("pod", "seccompProfile", {"type": "Unconfined"}),
        ("container", "allowPrivilegeEscalation", True),
        ("container", "privileged", True),
        ("container", "capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
        ("container", "capabilities", {}),
        ("spec", "hostNetwork", True),
        ("spec", "hostPID", True),
        ("spec", "volumes", [{"name": "host", "hostPath": {"path": "/"}}]),
    ],
)
def test_a_pod_without_one_of_our_restrictions_is_rejected(
    cluster: None, part: str, setting: str, value: object
) -> None:
    assert "created (server dry run)" in _create_dry_run(_pod())
    pod = _pod()
    spec = pod["spec"]
    changed = {
        "pod": spec["securityContext"],
        "container": spec["containers"][0]["securityContext"],
        "spec": spec,
    }[part]
    changed[setting] = value
    if setting == "privileged":
        changed.pop("allowPrivilegeEscalation")
    rejected = 'violates PodSecurity "restricted:latest"|disallowed by cluster policy'
    with pytest.raises(AssertionError, match=rejected):
        _create_dry_run(pod)


# Prints the addresses that accept a connection; a new pod's policies take a moment
CONNECT = """
import socket, sys, time
time.sleep(5)
for address in sys.argv[1:]:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except OSError:
        continue
    print(address)
"""


# What a decoder's process tries, which damaged pixel data might make it do
ISOLATED = """
import os, socket
from pathlib import Path
from lobar.imaging import isolation
parent = f"/proc/{os.getpid()}/environ"
if os.fork():
    os.wait()
else:
    isolation.isolate()
    for attempt in (socket.socket, Path(parent).read_bytes):
        try:
            attempt()
        except PermissionError:
            print(attempt.__name__)
"""


def _output(namespace: str, program: str, *arguments: str) -> list[str]:
    """The words that a Python program prints in a restricted pod."""
    pod = _pod()
    pod["metadata"] = {"generateName": "restricted-", "namespace": namespace}
    container = pod["spec"]["containers"][0] | {"command": ["python", "-c", program, *arguments]}
    container |= {"image": PARAMETERS["image"]}
    container.pop("resources")
    pod["spec"] |= {
        "containers": [container],
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
    }
    where = f"--namespace={namespace}"
    name = kubectl("create", where, "-f", "-", "-o", "name", text=json.dumps(pod)).strip()
    kubectl("wait", where, name, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s")
    return kubectl("logs", where, name).split()


def test_our_pods_connect_only_to_what_the_network_policies_allow(cluster: None) -> None:
    """By name, so through the cluster's DNS. A pod without policies shows that something listens there."""
    (address,) = kubectl("get", "pods", "--namespace=argo", "-o", "jsonpath={.items[*].status.podIP}").split()
    api_server, store, controller = "kubernetes.default:443", "minio.lobar:9000", f"{address}:9090"
    assert _output("lobar", CONNECT, api_server, store, controller) == [api_server, store]
    assert _output("default", CONNECT, api_server, store, controller) == [api_server, controller]


def test_a_decoder_in_a_pod_can_open_no_socket_and_not_read_the_credentials_of_its_parent(
    cluster: None,
) -> None:
    """The test machine's kernel has Landlock."""
    assert _output("lobar", ISOLATED) == ["socket", "read_bytes"]
