"""A network in int8 for OpenVINO. Needs NNCF, which only the image that trains has."""

import io
import logging
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import openvino as ov

CALIBRATION_IMAGES = 300


def to_int8(network: ov.Model, levels: np.ndarray) -> ov.Model:
    """A copy of the network with convolutions in 8-bit integers, except for the head's.

    levels (images, size, size) are training images in the network's own integers; the first
    CALIBRATION_IMAGES of them set the range of each layer's values. The result depends on nothing else.
    """
    import nncf
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        OverflowFix,
        QuantizationParameters,
    )
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    logging.getLogger("nncf").setLevel(logging.ERROR)
    calibration = levels[:CALIBRATION_IMAGES, None, ..., None]
    with redirect_stdout(io.StringIO()):  # NNCF prints progress bars, even in a pod
        operations = network.get_ordered_ops()
        convolutions = [op for op in operations if op.get_type_name() == "Convolution"]
        return nncf.quantize(
            network,
            nncf.Dataset(calibration),
            # not the head: its output is the map, and in float32 it costs little
            ignored_scope=nncf.IgnoredScope(
                names=[op.get_friendly_name() for op in convolutions[-1:]],
                types=["Interpolate"],
                validate=False,
            ),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(calibration),
            # the slower correction halves the error of small networks, and takes seconds
            fast_bias_correction=False,
            advanced_parameters=AdvancedQuantizationParameters(
                # few images have an opacity: the mean of all images' ranges, the default, would clip it
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
                # weights of 7 bits: with 8, the sums of a CPU without VNNI overflow their 16 bits
                overflow_fix=OverflowFix.ENABLE,
                activations_quantization_params=QuantizationParameters(
                    per_channel=False if any(map(_is_transposed, operations)) else None
                ),
            ),
        )


def _is_transposed(operation: Any) -> bool:
    """Whether it is a depthwise convolution of a transposed map, whose rows NNCF takes for channels."""
    if operation.get_type_name() != "GroupConvolution":
        return False
    return bool(operation.input_value(0).get_node().get_type_name() == "Transpose")
