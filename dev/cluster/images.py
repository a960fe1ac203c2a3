"""Container images: a registry on loopback, and images that contain one program."""

import os
import shutil
import tempfile
from pathlib import Path

from dev.cluster.machine import Machine

REGISTRY = "127.0.0.1:5000"
CONFIGURATION = """version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}/registry}}}}
http: {{addr: "{address}"}}
"""
# Unlike docker, podman requires TLS on loopback too
PLAIN_HTTP = f'[[registry]]\nlocation = "{REGISTRY}"\ninsecure = true\n'


def start_registry(machine: Machine) -> None:
    """Start a registry for `make push`, from which the node pulls; podman and containerd use plain HTTP."""
    folder = machine.folder
    (folder / "registry.yaml").write_text(CONFIGURATION.format(folder=folder, address=REGISTRY))
    (folder / "registries.conf").write_text(PLAIN_HTTP)
    os.environ["CONTAINERS_REGISTRIES_CONF"] = str(folder / "registries.conf")
    machine.start("registry", "docker-registry", "serve", folder / "registry.yaml")


def pull_command(machine: Machine, name: str) -> list[str]:
    """The command that loads an image of the registry into the node."""
    return ["ctr", *_node(machine), "images", "pull", "--plain-http", name]


def build(machine: Machine, name: str, program: Path) -> None:
    """Build an image that contains and runs one static program of Go, and load it into the node as `name`."""
    with tempfile.TemporaryDirectory(dir=machine.folder) as scratch:
        lines = [
            "FROM scratch",
            "ENV PATH=/bin ZONEINFO=/zoneinfo.zip",
            "COPY zoneinfo.zip /",
            "USER 8737",
            f"COPY {program.name} /bin/",
            f'ENTRYPOINT ["{program.name}"]',
        ]
        Path(scratch, "Dockerfile").write_text("\n".join(lines) + "\n")
        Path(scratch, program.name).hardlink_to(program)
        shutil.copy(Path(machine.run("go", "env", "GOROOT").strip(), "lib/time/zoneinfo.zip"), scratch)
        machine.run("podman", "build", "--quiet", "--tag", name, scratch)
        machine.run("podman", "save", "--quiet", "--format=docker-archive", "-o", f"{scratch}/image", name)
        machine.run("ctr", *_node(machine), "images", "import", f"{scratch}/image")


def _node(machine: Machine) -> tuple[str, str]:
    """Options that select the containerd of the node, and the images that the kubelet sees."""
    return f"--address={machine.folder}/containerd.sock", "--namespace=k8s.io"
