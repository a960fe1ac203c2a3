"""Settings for the whole process, made before any job starts. Importing a module of lobar changes none."""

import logging
import os
import sys
import warnings
from contextlib import suppress

from lobar.core.concurrency import cpus
from lobar.core.errors import InputError


def prepare() -> None:
    """Turn off telemetry, keep header values out of logs, and limit TensorFlow to this process's CPUs.

    Call it once, before the libraries concerned are imported. Environment variables that are already set are
    kept. Child processes inherit them, so a process that only starts other jobs should not call this.
    """
    # OpenVINO's converter and NNCF would report every use to a web analytics service
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    # both warn by `warnings` and by their loggers, and quote header values, which may identify a patient;
    # pydicom resets the logger's level when it is imported, so a level would not help
    for library in ("pydicom", "highdicom"):
        warnings.filterwarnings("ignore", module=rf"{library}\.")
        logging.getLogger(library).propagate = False
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with suppress(InputError):  # a wrong LOBAR_CPUS is reported by the job itself, as one plain line
        # TensorFlow counts the CPUs of the node, not of the pod
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(cpus()))
        # With two operations at a time, a sum of three gradients begins with whichever memory is free first
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
