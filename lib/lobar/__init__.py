"""lobar finds pneumonia on chest X-rays in batches. Not for clinical use."""

import sys

# OpenVINO's converter and NNCF would report each use of theirs to a web analytics service
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
