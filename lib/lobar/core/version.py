"""The release of lobar, and a digest of its sources."""

import hashlib
from functools import cache
from pathlib import Path

__version__ = "0.1.0"

PACKAGE = Path(__file__).parents[1]
SUFFIXES = {".py", ".html", ".css", ".md", ".yaml"}


@cache
def code_version() -> str:
    """The release and a digest of every source file: two states of the code never share a version.

    It covers the package with its templates and recipes, and `jobs/`, which is next to `lib/` in a checkout
    and in the images.
    """
    digest = hashlib.sha256()
    for root in (PACKAGE, PACKAGE.parents[1] / "jobs"):
        for file in sorted(root.rglob("*")):
            if file.suffix in SUFFIXES:
                name = file.relative_to(root.parent).as_posix()
                digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return f"{__version__}+{digest.hexdigest()[:12]}"
