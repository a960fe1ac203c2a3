"""A Workflow object as Argo's controller writes it, and an API server from which a pod reads it."""

import base64
import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lobar.workflow import status
from tests.support import http

NAME = "lobar-full-x7k2p"
TOKEN = "token-of-the-pod"
START = datetime(2026, 1, 31, 1, tzinfo=UTC)


def _time(seconds: float | None) -> str | None:
    return (
        None if seconds is None else (START + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
    )


@dataclass
class Attempt:
    """One pod: when it was made, when its containers started, when it ended; seconds after the start."""

    made: float
    started: float | None
    ended: float | None
    message: str = ""
    resources: dict[str, int] | None = None


@dataclass
class Workflow:
    """A workflow whose exit handler is running."""

    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    starts: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.node("", "DAG", "Failed", 0, 0)
        running = self.node(".onExit(0)", "Pod", "Running", 9000, None)
        self.node(".onExit", "Retry", "Running", 9000, None, children=[running])

    def node(self, name: str, kind: str, phase: str, begin: float, end: float | None, **more: object) -> str:
        """Add a node and return its id, which, as Argo's, says nothing about the order."""
        key = f"{NAME}-{len(self.nodes) * 2654435761 % 2**32}"
        node = {"id": key, "name": NAME + name, "displayName": name.removeprefix(".") or NAME, "type": kind}
        node |= {
            "phase": phase,
            "startedAt": _time(begin),
            "finishedAt": _time(end),
            "templateScope": "local/",
        }
        self.nodes[key] = node | {name: value for name, value in more.items() if value}
        return key

    def task(self, name: str, *attempts: Attempt) -> None:
        """Add a task with its pods; it failed if the last one did."""
        keys = []
        for number, pod in enumerate(attempts):
            phase = "Failed" if pod.message else "Succeeded"
            more = {"message": pod.message, "resourcesDuration": pod.resources, "nodeFlag": {"retried": True}}
            keys.append(self.node(f".{name}({number})", "Pod", phase, pod.made, pod.ended, **more))
            if pod.started is not None:
                self.starts[keys[-1]] = pod.started
        message = "No more retries left" if attempts[-1].message else ""
        ended = {"phase": phase, "begin": attempts[0].made, "end": attempts[-1].ended, "message": message}
        self.node(f".{name}", "Retry", children=keys, **ended)

    def document(self) -> dict[str, Any]:
        """The object in the API."""
        return {
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": NAME},
            "spec": {"workflowTemplateRef": {"name": "lobar"}},
            "status": {"phase": "Running", "startedAt": _time(0), "finishedAt": None, "nodes": self.nodes},
        }  # fmt: skip

    def compressed(self) -> dict[str, Any]:
        """The object if it would be larger than 1 MiB."""
        document = self.document()
        nodes = gzip.compress(json.dumps(document["status"].pop("nodes")).encode())
        document["status"]["compressedNodes"] = base64.b64encode(nodes).decode()
        return document

    def offloaded(self) -> dict[str, Any]:
        """The object if Argo keeps the nodes in a database."""
        document = self.document()
        del document["status"]["nodes"]
        document["status"]["offloadNodeStatusVersion"] = "fnv:784444063"
        return document

    def results(self) -> dict[str, Any]:
        """The list of WorkflowTaskResults in the API."""
        items = [
            {"metadata": {"name": key, "creationTimestamp": _time(started)}, "outputs": {}}
            for key, started in self.starts.items()
        ]
        return {"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTaskResultList", "items": items}


@dataclass
class ApiServer:
    """Answers to a pod's requests; each is a status and an object."""

    workflow: tuple[int, object]
    results: tuple[int, object]
    paths: list[str] = field(default_factory=list)

    def answer(self, request: http.Request) -> tuple[int, bytes]:
        self.paths.append(request.path)
        if request.headers["Authorization"] != f"Bearer {TOKEN}":
            return 401, b""
        group, _, resource = request.path.partition("/namespaces/lobar/")
        assert group == "/apis/argoproj.io/v1alpha1"
        answers = {
            f"workflows/{NAME}": self.workflow,
            f"workflowtaskresults?labelSelector=workflows.argoproj.io/workflow={NAME}": self.results,
        }
        code, content = answers[resource]
        return code, json.dumps(content).encode()


@contextmanager
def served(
    folder: Path, workflow: Workflow, document: object = None, codes: tuple[int, int] = (200, 200)
) -> Iterator[ApiServer]:
    """Within the block, this process is as in a pod of the workflow: account and API server are there."""
    api = ApiServer((codes[0], document or workflow.document()), (codes[1], workflow.results()))
    with http.serve(api.answer, folder) as server, pytest.MonkeyPatch.context() as patch:
        (folder / "namespace").write_text("lobar")
        (folder / "token").write_text(TOKEN)
        (folder / "ca.crt").write_bytes(server.certificate.read_bytes())
        patch.setattr(status, "ACCOUNT", folder)
        patch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        patch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
        yield api
