"""Runs a command beside a Kubernetes with Argo Workflows, MinIO and lobar in it:

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
# Each program by the package of Debian that has it
NEEDED = {
    "unshare": "util-linux", "ip": "iproute2", "iptables": "iptables", "conntrack": "conntrack",
    "openssl": "openssl", "etcd": "etcd-server", "containerd": "containerd",
    "runc": "runc", "podman": "podman",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}  # fmt: skip
ARGO = "github.com/argoproj/argo-workflows/v4"
MINIO = "quay.io/minio/minio:RELEASE.2025-04-22T22-12-26Z"


def main(
    folder: Annotated[Path, typer.Argument(help="where the cluster keeps its files and logs; emptied first")],
    command: Annotated[list[str], typer.Argument(help="to run with KUBECONFIG set")],
) -> None:
    """Bring up a cluster, run COMMAND, and end with its status; nothing of the cluster stays but its logs."""
    missing = sorted(package for program, package in NEEDED.items() if shutil.which(program) is None)
    if missing:
        raise InputError(f"a cluster needs Debian's packages: apt-get install {' '.join(missing)}")
    if os.geteuid():
        raise InputError("a cluster needs root, for its namespaces")
    folder = folder.absolute()
    if not os.environ.get(INSIDE):
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.iterdir():
            if left.name != "containerd":  # images are brought to the node once
                shutil.rmtree(left) if left.is_dir() else left.unlink()
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
    """The version of Argo that is built, as its go.mod says."""
    lines = (ROOT / "dev/argo/go.mod").read_text().splitlines()
    return next(line.split()[-1] for line in lines if line.startswith(f"require {ARGO} "))


def install_argo(machine: Machine) -> None:
    """Argo as its own manifests install it, without its server, which cannot be built from the module."""
    manifests = machine.run("go", "list", "-C", ROOT / "dev/argo", "-m", "-f", "{{.Dir}}", ARGO).strip()
    text = machine.run("kubectl", "kustomize", f"{manifests}/manifests/cluster-install")
    text = text.replace("workflow-controller:latest", f"workflow-controller:{argo_version()}")
    machine.run("kubectl", "create", "namespace", "argo")
    machine.run("kubectl", "apply", "--server-side", "-n", "argo", "-f", "-", text=text)
    machine.run("kubectl", "-n", "argo", "scale", "deployment/argo-server", "--replicas=0")
    rollout = ["kubectl", "-n", "argo", "rollout", "status", "deployment/workflow-controller", "--timeout=1s"]
    machine.wait("Argo's controller", lambda: machine.succeeds(*rollout))


def install_lobar(machine: Machine) -> None:
    """lobar as `make deploy OVERLAY=minio` does."""
    # Argo before 4.1 does not know pendingTimeout, which the API server then leaves out
    options = ["OVERLAY=minio", "KUBECTL=kubectl", "APPLY_OPTIONS=--validate=warn"]
    machine.run("make", "-C", ROOT, "deploy", *options)
    print("lobar is installed", flush=True)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    sys.exit(console.run_job(app, "python -m dev.cluster"))
