"""How the pods of a workflow on a cluster went, as its Workflow object in the Kubernetes API says."""

import gzip
import os
import ssl
import zlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from lobar.core.errors import InputError, OutsideError
from lobar.core.request import request

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # where Kubernetes mounts it in a pod
T = TypeVar("T")


class Node(msgspec.Struct, frozen=True, rename="camel"):
    """A node of Argo's graph (NodeStatus): a pod, or a Retry, TaskGroup or DAG with its children's ids.

    `resources_duration` is the sum over a pod's containers of request x run time, in seconds; of memory, in
    units of 100 MiB x seconds. It is empty if Kubernetes did not report the end of the containers.
    """

    name: str
    type: str
    display_name: str = ""
    phase: str = ""
    message: str = ""
    started_at: datetime | None = None  # the controller created the node, and with it the pod
    finished_at: datetime | None = None
    resources_duration: dict[str, float] = {}
    children: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """The name of its task, the same for all shards and attempts."""
        return self.display_name.partition("(")[0]


class _Status(msgspec.Struct, rename="camel"):
    nodes: dict[str, Node] = {}
    compressed_nodes: bytes = b""  # gzip of JSON, if the object would be larger than 1 MiB
    offload_node_status_version: str = ""  # set if the nodes are in Argo's database


class _Workflow(msgspec.Struct):
    status: _Status


class _Metadata(msgspec.Struct, rename="camel"):
    name: str
    creation_timestamp: datetime


class _TaskResult(msgspec.Struct):
    metadata: _Metadata


class _TaskResults(msgspec.Struct):
    items: list[_TaskResult]


def nodes(workflow: str) -> dict[str, Node]:
    """The nodes of a workflow by id, in order of their start, without those of its exit handler, which asks.

    Raises LobarError if they cannot be read.
    """
    status = _decode(_get(f"workflows/{workflow}"), _Workflow).status
    found = status.nodes
    if status.compressed_nodes:
        try:
            text = gzip.decompress(status.compressed_nodes)
        except (OSError, EOFError, zlib.error) as error:
            raise OutsideError(f"its compressed nodes are damaged: {error}") from error
        found = _decode(text, dict[str, Node])
    elif status.offload_node_status_version:
        raise InputError("its nodes are in Argo's database")
    in_order = sorted(found.items(), key=lambda item: (str(item[1].started_at), item[1].name))
    return {key: node for key, node in in_order if not node.name.startswith(f"{workflow}.onExit")}


def attempts(nodes: Mapping[str, Node], node: Node) -> list[str]:
    """The ids of a task's pods, of which each but the last failed and was retried; for other nodes, none."""
    return [key for key in node.children if key in nodes] if node.type == "Retry" else []


def container_starts(workflow: str) -> dict[str, datetime]:
    """When the containers of each pod started, by the id of its node; pods that never started are absent.

    The first of them, Argo's executor, creates a WorkflowTaskResult with the node's id as its name. Raises
    LobarError if they cannot be read.
    """
    selector = f"labelSelector=workflows.argoproj.io/workflow={workflow}"
    results = _decode(_get(f"workflowtaskresults?{selector}"), _TaskResults).items
    return {each.metadata.name: each.metadata.creation_timestamp for each in results}


def _get(resource: str) -> bytes:
    """Objects of Argo in the pod's namespace as JSON, read with the pod's service account."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    try:
        namespace, token = ((ACCOUNT / name).read_text() for name in ("namespace", "token"))
        context = ssl.create_default_context(cafile=ACCOUNT / "ca.crt")
    except OSError as error:
        raise InputError(f"no service account in this pod: {error}") from error
    server = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    url = f"{server}/apis/argoproj.io/v1alpha1/namespaces/{namespace}/{resource}"
    return request(url, {"Authorization": f"Bearer {token}"}, context=context)


def _decode(text: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise OutsideError(f"the API server's reply is not one about a workflow: {error}") from error
