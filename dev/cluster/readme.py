"""The commands of README's section on clusters, with the registry, overlay and bucket of the test cluster."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from dev.cluster.images import REGISTRY

README = Path(__file__).resolve().parents[2] / "README.md"
NAMES = {
    "registry.example.org": REGISTRY,
    "OVERLAY=eks": "OVERLAY=minio",
    "s3://my-bucket/lobar": "s3://lobar",
}


def commands() -> list[list[str]]:
    """Each command as its words: images are built and pushed, lobar is deployed, a workflow is submitted."""
    section = README.read_text().split("\n## On a cluster\n")[1]
    block = section.split("```\n")[1]
    for name, ours in NAMES.items():
        if name not in block:
            raise ValueError(f"README's cluster block has no {name} any more; change NAMES")
        block = block.replace(name, ours)
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines]


def images(submit: Sequence[str]) -> list[str]:
    """The images that a command names in its parameters."""
    return [value for _, _, value in (word.partition("=") for word in submit) if value.startswith(REGISTRY)]
