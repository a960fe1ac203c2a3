import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as operations

from lobar.training import openvino_graph


@pytest.mark.parametrize("order", [[0, 3, 1, 2], [0, 2, 1, 3], [0, 3, 2, 1]])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_changed_graph_computes_the_same(order: list[int], channels: int) -> None:
    given = operations.parameter([-1, 3, 5, channels], np.float32)
    sides, axes = np.array([12, 20]), np.array([1, 2])
    larger = operations.interpolate(given, sides, "linear_onnx", "sizes", axes=axes)
    results = [operations.result(larger), operations.result(operations.transpose(given, order))]
    graph = ov.Model(results, [given], "graph")
    maps = np.random.default_rng(0).random((2, 3, 5, channels), np.float32)
    before = _outputs(graph, maps)
    openvino_graph.speed_up(graph)
    for found, expected in zip(_outputs(graph, maps), before, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    remaining = {operation.get_type_name() for operation in graph.get_ordered_ops()}
    assert ("Interpolate" in remaining) == (channels == 2)
    assert ("Transpose" in remaining) == (channels == 2 or order != [0, 3, 1, 2])


def _outputs(graph: ov.Model, maps: np.ndarray) -> list[np.ndarray]:
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    return [np.array(output) for output in ov.Core().compile_model(graph, "CPU", settings)(maps).values()]
