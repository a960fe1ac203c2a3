"""A node without a kubelet, for workflows with more pods than a test machine can run.

A mock of the node alone: the API server, the scheduler and Argo's controller are real. It reports that each
of its pods has succeeded, with the outputs that Argo's executor would report.
"""

import http.client
import json
import os
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.support.argo import task_of

NAME = "stub"
NODE_SELECTOR = {"kubernetes.io/hostname": NAME}
TOLERATIONS = [{"key": NAME, "operator": "Exists"}]
ROOM = {"cpu": "1000", "memory": "1Ti", "ephemeral-storage": "1Ti", "pods": "10000"}
ARGO = "workflows.argoproj.io"
HEARTBEAT_SECONDS = 5.0
Outputs = Mapping[str, Mapping[str, str]]  # output parameters by task


@contextmanager
def stub_node(outputs: Outputs) -> Iterator[None]:
    """The node exists, and its pods succeed, until the block ends."""
    end = threading.Event()
    api = _Api()
    thread = threading.Thread(target=_run, args=(api, outputs, end))
    metadata = {"name": NAME, "labels": NODE_SELECTOR}
    taint = {"key": NAME, "effect": "NoSchedule"}
    api.call("POST", "/api/v1/nodes", {"metadata": metadata, "spec": {"taints": [taint]}})
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        api.call("DELETE", f"/api/v1/nodes/{NAME}")


def _run(api: "_Api", outputs: Outputs, end: threading.Event) -> None:
    pods = f"/api/v1/pods?fieldSelector=spec.nodeName={NAME},status.phase=Pending"
    beat = datetime.fromtimestamp(0, UTC)
    while not end.wait(0.2):
        if (datetime.now(UTC) - beat).total_seconds() > HEARTBEAT_SECONDS:
            beat = datetime.now(UTC)
            ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": _now(), "reason": "Stub"}
            status = {"conditions": [ready], "capacity": ROOM, "allocatable": ROOM}
            api.call("PATCH", f"/api/v1/nodes/{NAME}/status", {"status": status})
        for pod in api.call("GET", pods)["items"]:
            _succeed(api, pod, outputs)


def _succeed(api: "_Api", pod: dict[str, Any], outputs: Outputs) -> None:
    metadata, spec = pod["metadata"], pod["spec"]
    namespace, name = metadata["namespace"], metadata["name"]
    workflow = metadata["labels"][f"{ARGO}/workflow"]
    labels = {f"{ARGO}/workflow": workflow, f"{ARGO}/report-outputs-completed": "true"}
    parameters = [{"name": key, "value": value} for key, value in outputs.get(task_of(pod), {}).items()]
    result = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTaskResult",
        "metadata": {"name": metadata["annotations"][f"{ARGO}/node-id"], "labels": labels},
        "outputs": {"exitCode": "0", "parameters": parameters, "artifacts": _artifacts(spec)},
    }
    api.call("POST", f"/apis/argoproj.io/v1alpha1/namespaces/{namespace}/workflowtaskresults", result)
    terminated = {"exitCode": 0, "reason": "Completed", "startedAt": _now(), "finishedAt": _now()}

    def statuses(kind: str) -> list[dict[str, Any]]:
        common = {"ready": False, "restartCount": 0, "state": {"terminated": terminated}, "imageID": ""}
        return [common | {"name": item["name"], "image": item["image"]} for item in spec.get(kind, [])]

    status = {
        "phase": "Succeeded",
        "initContainerStatuses": statuses("initContainers"),
        "containerStatuses": statuses("containers"),
    }
    api.call("PATCH", f"/api/v1/namespaces/{namespace}/pods/{name}/status", {"status": status})


def _artifacts(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The output artifacts of the pod's template, without which Argo 3.7 does not end the node."""
    (init,) = spec["initContainers"]
    (template,) = (item["value"] for item in init["env"] if item["name"] == "ARGO_TEMPLATE")
    declared = json.loads(template).get("outputs", {}).get("artifacts", [])
    return [{"name": item["name"], "s3": {"key": f"stub/{item['name']}"}} for item in declared]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Api:
    """The API server of KUBECONFIG, which dev/cluster writes as JSON with a token."""

    def __init__(self) -> None:
        config = json.loads(Path(os.environ["KUBECONFIG"]).read_text())
        cluster = config["clusters"][0]["cluster"]
        context = ssl.create_default_context(cafile=cluster["certificate-authority"])
        address = cluster["server"].removeprefix("https://")
        self._connection = http.client.HTTPSConnection(address, context=context, timeout=30)
        self._token = config["users"][0]["user"]["token"]

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON of the reply; a PATCH merges."""
        kind = "merge-patch+json" if method == "PATCH" else "json"
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": f"application/{kind}"}
        self._connection.request(method, path, json.dumps(body) if body else None, headers)
        reply = self._connection.getresponse()
        text = reply.read()
        assert reply.status < 300 or reply.status in (404, 409), f"{method} {path}: {text.decode()}"
        return json.loads(text)
