"""Runs a command with a local Kubernetes cluster that has Argo Workflows, MinIO and lobar installed:

python -m dev.cluster FOLDER -- COMMAND …
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from dev.cluster import control_plane, node
from dev.cluster.machine import INSIDE, Machine, in_own_namespaces
from lobar.core import console
from lobar.core.errors import InputError
from lobar.core.version import __version__

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools"
# Required programs, and the Debian packages that contain them
NEEDED = {
    "unshare": "util-linux", "ip": "iproute2", "iptables": "iptables", "conntrack": "conntrack",
    "openssl": "openssl", "etcd": "etcd-server", "containerd": "containerd",
    "runc": "runc", "podman": "podman",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}  # fmt: skip
ARGO = "github.com/argoproj/argo-workflows/v4"
MINIO = "quay.io/minio/minio:RELEASE.2025-04-22T22-12-26Z"


def main(
    folder: Annotated[Path, typer.Argument(help="folder for the cluster's files and logs; emptied first")],
    command: Annotated[list[str], typer.Argument(help="command to run with KUBECONFIG set")],
) -> None:
    """Start a cluster, run COMMAND, and exit with its status; only the cluster's logs remain."""
    missing = sorted(package for program, package in NEEDED.items() if shutil.which(program) is None)
    if missing:
        raise InputError(f"missing Debian packages: apt-get install {' '.join(missing)}")
    if os.geteuid():
        raise InputError("a cluster requires root, for its namespaces")
    folder = folder.absolute()
    if not os.environ.get(INSIDE):
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if path.name != "containerd":  # keeps the images already loaded
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        status = in_own_namespaces("dev.cluster", [str(folder), "--", *command])
        raise SystemExit(status)
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    machine = Machine(folder, TOOLS)
    node.make_network()
    control_plane.start(machine)
    node.start(machine)
    _load_images(machine)
    install_argo(machine)
    install_lobar(machine)
    raise SystemExit(subprocess.run(command, check=False).returncode)


def _load_images(machine: Machine) -> None:
    for name in ("lobar", "lobar-train"):
        node.load(machine, f"localhost/{name}:{__version__}", f"docker.io/library/{name}:{__version__}")
    node.build(machine, node.PAUSE, TOOLS / "kubernetes/pause")
    node.build(machine, MINIO, TOOLS / "minio")
    for name in ("workflow-controller", "argoexec"):
        node.build(machine, f"quay.io/argoproj/{name}:{argo_version()}", TOOLS / "argo/bin" / name)


def argo_version() -> str:
    """The version of Argo in go.mod, which is built."""
    lines = (ROOT / "dev/argo/go.mod").read_text().splitlines()
    return next(line.split()[-1] for line in lines if line.startswith(f"require {ARGO} "))


def install_argo(machine: Machine) -> None:
    """Install Argo from its own manifests, without its server, which cannot be built from the module."""
    manifests = machine.run("go", "list", "-C", ROOT / "dev/argo", "-m", "-f", "{{.Dir}}", ARGO).strip()
    text = machine.run("kubectl", "kustomize", f"{manifests}/manifests/cluster-install")
    text = text.replace("workflow-controller:latest", f"workflow-controller:{argo_version()}")
    machine.run("kubectl", "create", "namespace", "argo")
    machine.run("kubectl", "apply", "--server-side", "-n", "argo", "-f", "-", text=text)
    machine.run("kubectl", "-n", "argo", "scale", "deployment/argo-server", "--replicas=0")
    rollout = ["kubectl", "-n", "argo", "rollout", "status", "deployment/workflow-controller", "--timeout=1s"]
    machine.wait("Argo's controller", lambda: machine.succeeds(*rollout))


def install_lobar(machine: Machine) -> None:
    """Install lobar with `make deploy OVERLAY=minio`."""
    # Argo before 4.1 has no pendingTimeout; the API server drops the field
    options = ["OVERLAY=minio", "KUBECTL=kubectl", "APPLY_OPTIONS=--validate=warn"]
    machine.run("make", "-C", ROOT, "deploy", *options)
    print("lobar is installed", flush=True)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    sys.exit(console.run_job(app, "python -m dev.cluster"))
