"""lobar finds pneumonia on chest X-rays in batches. Not for clinical use."""

import hashlib
import sys
from functools import cache
from pathlib import Path

__version__ = "0.1.0"

# OpenVINO's converter and NNCF would report each use of theirs to a web analytics service
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


@cache
def code_version() -> str:
    """The release and a digest of this package's sources: two states of the code never share a name."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:12]}"
