"""Parts of a network's OpenVINO graph replaced by faster ones that give the same values.

OpenVINO handles 16 channels at a time, so a map of one channel, as the image and the probabilities, takes as
long as one of 16. For the default network that was 15 % of the time in int8, and 12 % in bfloat16.
"""

import cv2
import numpy as np
import openvino as ov
from openvino import opset13 as operations

CHANNELS_FIRST = [0, 3, 1, 2]


def speed_up(graph: ov.Model) -> None:
    """Replace the parts that handle one channel slowly. Its maps are (image, row, column, channel)."""
    for operation in graph.get_ordered_ops():
        maps = operation.input_value(0) if operation.get_input_size() else None
        if maps is None or not _has_one_channel(maps):
            continue
        match operation.get_type_name():
            case "Transpose" if list(operation.input_value(1).get_node().data) == CHANNELS_FIRST:
                _replace(operation, _channels_first(maps))
            case "Interpolate" if operation.get_attributes()["mode"] == "linear_onnx":
                _replace(operation, _enlarged(maps, operation.output(0)))
    graph.validate_nodes_and_infer_types()


def _has_one_channel(maps: ov.Output) -> bool:
    shape = maps.get_partial_shape()
    return shape.rank.get_length() == 4 and shape[3] == 1


def _replace(operation: ov.Node, output: ov.Output) -> None:
    for target in operation.output(0).get_target_inputs():
        target.replace_source_output(output)


def _channels_first(maps: ov.Output) -> ov.Output:
    """The same numbers in the same order, with a shape that OpenVINO does not handle channel by channel."""
    rows, columns = _sides(maps)
    return operations.reshape(maps, [-1, 1, rows, columns], special_zero=False).output(0)


def _enlarged(maps: ov.Output, larger: ov.Output) -> ov.Output:
    """Bilinear enlargement to the sides of `larger` by two products of matrices."""
    sides, new_sides = _sides(maps), _sides(larger)
    rows, columns = (_weights(side, new) for side, new in zip(sides, new_sides, strict=True))
    given = operations.reshape(maps, [-1, *sides], special_zero=False)
    wide = operations.matmul(given, columns, transpose_a=False, transpose_b=True)
    large = operations.matmul(rows, wide, transpose_a=False, transpose_b=False)
    return operations.reshape(large, [-1, *new_sides, 1], special_zero=False).output(0)


def _sides(maps: ov.Output) -> tuple[int, int]:
    shape = maps.get_partial_shape()
    return shape[1].get_length(), shape[2].get_length()


def _weights(size: int, length: int) -> np.ndarray:
    """The matrix (length, size) that enlarges a line bilinearly; OpenCV and Keras use the same weights."""
    lines = np.eye(size, dtype=np.float32)
    return cv2.resize(lines, (size, length), interpolation=cv2.INTER_LINEAR)
