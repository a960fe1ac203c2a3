"""Runs a command with a local Kubernetes cluster that has Argo Workflows, MinIO and lobar installed:

python -m dev.cluster FOLDER -- COMMAND …
"""

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from dev.cluster import argo, control_plane, images, network, node, readme
from dev.cluster.machine import INSIDE, Machine, in_own_namespaces
from lobar.core import console
from lobar.core.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools"
# Required programs, and the Debian packages that contain them
NEEDED = {
    "unshare": "util-linux", "ip": "iproute2", "iptables": "iptables", "conntrack": "conntrack",
    "openssl": "openssl", "etcd": "etcd-server", "containerd": "containerd",
    "runc": "runc", "podman": "podman", "docker-registry": "docker-registry", "ipset": "ipset",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}  # fmt: skip
FREE_GB = 12  # the images once in the registry and twice, packed and unpacked, on the node
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
            if path.name != "registry":  # keeps the images already pushed
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if (free := shutil.disk_usage(folder).free / 1e9) < FREE_GB:
            raise InputError(f"{folder}: {free:.0f} GB are free; a cluster needs {FREE_GB} GB for its images")
        status = in_own_namespaces("dev.cluster", [str(folder), "--", *command])
        raise SystemExit(status)
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    machine = Machine(folder, TOOLS)
    network.make_bridge()
    control_plane.start(machine)
    images.start_registry(machine)
    node.start(machine)
    images.build(machine, node.PAUSE, TOOLS / "kubernetes/pause")
    network.start(machine)
    images.build(machine, MINIO, TOOLS / "minio")
    argo.install(machine)
    install_lobar(machine)
    raise SystemExit(subprocess.run(command, check=False).returncode)


def install_lobar(machine: Machine) -> None:
    """Run README's commands up to `make deploy`; the tests run the last one, which submits a workflow.

    There is no way out of these namespaces, so the images must have been built before.
    """
    *commands, submit = readme.commands()
    for name in readme.images(submit):  # before the tests, whose time limits are for workflows
        commands.append(images.pull_command(machine, name))
    for command in commands:
        start = time.monotonic()
        machine.run(*command)
        print(f"{shlex.join(command)}: {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    sys.exit(console.run_job(app, "python -m dev.cluster"))
