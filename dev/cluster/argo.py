"""Argo Workflows from its Go module: controller, executor, CRDs, and the `argo` command on PATH."""

import os
from pathlib import Path

from dev.cluster import images
from dev.cluster.machine import Machine


def folder(tools: Path) -> Path:
    """Where the Argo to test is built: LOBAR_ARGO, such as v3.7.4, or the newest version."""
    if chosen := os.environ.get("LOBAR_ARGO"):
        return tools / "argo" / chosen
    versions = (tools / "argo").glob("v*")
    return max(versions, key=lambda path: [int(number) for number in path.name[1:].split(".")])


def install(machine: Machine) -> None:
    """Install Argo from its own manifests, without its server, which cannot be built from the module."""
    built = folder(machine.tools)
    os.environ["PATH"] = f"{built}:{os.environ['PATH']}"
    for name in ("workflow-controller", "argoexec"):
        images.build(machine, f"quay.io/argoproj/{name}:{built.name}", built / name)
    text = machine.run("kubectl", "kustomize", built / "src/manifests/cluster-install")
    text = text.replace("workflow-controller:latest", f"workflow-controller:{built.name}")
    machine.run("kubectl", "create", "namespace", "argo")
    machine.run("kubectl", "apply", "--server-side", "-n", "argo", "-f", "-", text=text)
    machine.run("kubectl", "-n", "argo", "scale", "deployment/argo-server", "--replicas=0")
    rollout = ["kubectl", "-n", "argo", "rollout", "status", "deployment/workflow-controller", "--timeout=1s"]
    machine.wait(f"Argo {built.name}", lambda: machine.succeeds(*rollout))
