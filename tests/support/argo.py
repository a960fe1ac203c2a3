"""Workflows on a cluster: submitted with `argo`, watched with kubectl."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
WORKFLOW_SECONDS = 1200.0


def kubectl(*arguments: str, text: str | None = None) -> str:
    """Output of kubectl in lobar's namespace."""
    return _output("kubectl", "--namespace=lobar", *arguments, text=text)


def _output(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def until(what: str, check: Callable[[], Any], seconds: float = WORKFLOW_SECONDS, every: float = 0.5) -> Any:
    """The first true result of `check`, which is called again after `every` seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := check():
            return result
        time.sleep(every)
    raise AssertionError(f"{what}: not within {seconds:g} s\n{state()}")


def state() -> str:
    """What may explain that a workflow does not end: failed attempts, pods, and the cluster's warnings."""
    lines = [f"load {os.getloadavg()[0]:.1f}, {shutil.disk_usage(REPOSITORY).free / 2**30:.1f} GiB free"]
    for run in runs():
        for node in run.nodes().values():
            if node["type"] == "Pod" and node["phase"] != "Succeeded":
                lines.append(f"{node['displayName']}: {node['phase']}, {node.get('message', '')}"[:300])
    lines += kubectl("get", "pods", "-o", "wide").splitlines()[-8:]
    lines += kubectl("get", "events", "--field-selector=type=Warning").splitlines()[-8:]
    return "\n".join(lines)


@dataclass
class Run:
    """One workflow on the cluster. `arguments` are those of its pods, by task."""

    name: str
    arguments: dict[str, list[str]] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return json.loads(kubectl("get", "workflow", self.name, "-o", "json"))

    def nodes(self) -> dict[str, dict[str, Any]]:
        return self.document().get("status", {}).get("nodes", {})

    def of(self, task: str) -> dict[str, Any]:
        """The node of a task, or of one of its shards: `predict(0:0)`."""
        (node,) = (node for node in self.nodes().values() if node["displayName"] == task)
        return node

    def attempts(self, task: str) -> list[dict[str, Any]]:
        """The nodes of a task's attempts, in order."""
        nodes = self.nodes()
        return [nodes[child] for child in self.of(task)["children"] if nodes[child]["type"] == "Pod"]

    def attempts_at_exit(self) -> list[dict[str, Any]]:
        """The nodes of the attempts of the onExit template, in order."""
        return self.attempts(f"{self.name}.onExit")

    def pods(self) -> list[dict[str, Any]]:
        label = f"--selector=workflows.argoproj.io/workflow={self.name}"
        return json.loads(kubectl("get", "pods", label, "-o", "json"))["items"]

    def running(self, task: str) -> dict[str, Any]:
        """The running pod of a task; empty if there is none."""
        for pod in self.pods():
            if task_of(pod).startswith(task) and pod["status"]["phase"] == "Running":
                return pod
        return {}

    def ended(self) -> str:
        """Wait for the end, record the pods' arguments, and return the phase."""

        def phase_at_end() -> str:
            for pod in self.pods():
                (main,) = (each for each in pod["spec"]["containers"] if each["name"] == "main")
                self.arguments[task_of(pod)] = main["args"]
            phase = self.document().get("status", {}).get("phase", "")
            return phase if phase in ("Succeeded", "Failed", "Error") else ""

        return str(until(f"the end of {self.name}", phase_at_end))

    def expect_success(self) -> None:
        """Wait for the end. Raises AssertionError with what happened if it was another one."""
        if (phase := self.ended()) != "Succeeded":
            message = self.document()["status"].get("message", "")
            raise AssertionError(f"{self.name}: {phase}, {message}\n{state()}")

    def waits_for(self) -> dict[str, list[str]]:
        """Each task with the tasks that it waits for, as in the controller's graph."""
        nodes = self.nodes()
        parents: dict[str, set[str]] = {}
        for node in nodes.values():
            for child in node.get("children", []):
                parents.setdefault(_plain(nodes[child]), set()).add(_plain(node))
        (root,) = (node for node in nodes.values() if node["displayName"] == self.name)
        own = {_plain(root)}
        return {task: sorted(before - {task} - own) for task, before in sorted(parents.items()) if task}


def _plain(node: dict[str, Any]) -> str:
    """The task of a node, without the number of a shard or an attempt."""
    return str(node["displayName"]).split("(")[0]


def task_of(pod: dict[str, Any]) -> str:
    """The task and shard of a pod: the last part of its node's name, without the number of the attempt."""
    name = pod["metadata"]["annotations"]["workflows.argoproj.io/node-name"].split(".")[-1]
    return str(name.rpartition("(")[0] or name)


def argo(*arguments: str) -> str:
    """Output of Argo's command in lobar's namespace; it needs only the API server, not Argo's."""
    return _output("argo", "--namespace=lobar", *arguments)


def artifact(node: dict[str, Any], name: str) -> str:
    """The key of a node's output artifact in the bucket."""
    return str(next(item["s3"]["key"] for item in node["outputs"]["artifacts"] if item["name"] == name))


def submit(source: str, parameters: dict[str, str]) -> Run:
    """`argo submit SOURCE -p NAME=VALUE …`; the source is a file or `--from=KIND/NAME`."""
    return Run(argo("submit", source, *options(parameters), "--output=name").strip())


def options(parameters: dict[str, str]) -> list[str]:
    """Parameters as options of `argo` and of the local runner."""
    return [word for name, value in parameters.items() for word in ("-p", f"{name}={value}")]


def runs() -> Iterator[Run]:
    """All workflows on the cluster."""
    for document in json.loads(kubectl("get", "workflows", "-o", "json"))["items"]:
        yield Run(document["metadata"]["name"])


def metric(name: str) -> float:
    """The current value of one of the controller's metrics for Prometheus."""
    pod = kubectl("get", "pods", "--namespace=argo", "-o", "jsonpath={.items[0].metadata.name}")
    page = kubectl("get", "--raw", f"/api/v1/namespaces/argo/pods/https:{pod}:9090/proxy/metrics")
    values = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    return float(values[f"argo_workflows_{name}"])
