"""A network in int8 for OpenVINO. Needs NNCF, which only the image that trains has."""

import io
import logging
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

CALIBRATION_IMAGES = 300


def to_int8(network: Path, levels: np.ndarray, out: Path) -> None:
    """Write a network's twin whose convolutions multiply 8-bit integers.

    levels (images, size, size) are training images in the network's own integers; their first
    CALIBRATION_IMAGES say how far each layer's values reach. What is written depends on nothing else.
    """
    import nncf
    import openvino as ov

    nncf.set_log_level(logging.ERROR)
    chosen = levels[:CALIBRATION_IMAGES, None, ..., None]
    with redirect_stdout(io.StringIO()):  # NNCF draws progress bars, in a pod too
        quantized = nncf.quantize(
            ov.Core().read_model(network),
            nncf.Dataset(chosen),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(chosen),
            # the slower correction halves the error of small networks, and takes seconds
            fast_bias_correction=False,
        )
    ov.save_model(quantized, out, compress_to_fp16=False)
