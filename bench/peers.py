"""A network in other libraries for CPUs, with the same weights: ONNX Runtime, LiteRT and TensorFlow.

Each gets its own conversion and its own int8 quantization after training, as its documentation says.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from onnxruntime import quantization

from lobar.core.concurrency import cpus

LIBRARIES = ("onnxruntime", "ai-edge-litert")
CALIBRATION_IMAGES = 50
Predict = Callable[[np.ndarray], np.ndarray]


def ways(network: keras.Model, levels: np.ndarray, batch: int) -> dict[tuple[str, str], Predict]:
    """Functions by library and precision: levels (batch, size, size) to maps (batch, size, size, 1).

    `levels` (images, size, size), uint8, are what int8 is calibrated on.
    """
    calibration = levels[:CALIBRATION_IMAGES, ..., None]
    with tempfile.TemporaryDirectory() as folder:
        float32 = Path(folder, "float32.onnx")
        network(calibration[:1])  # Keras exports only a network that was called
        network.export(float32, format="onnx", verbose=False)
        return {
            ("ONNX Runtime", "float32"): _onnx_runtime(float32),
            ("ONNX Runtime", "int8"): _onnx_runtime(_onnx_int8(float32, calibration)),
            ("LiteRT", "float32"): _litert(network, None, batch),
            ("LiteRT", "int8"): _litert(network, calibration, batch),
            ("TensorFlow", "float32"): _tensorflow(network, batch),
            ("TensorFlow", "bfloat16"): _tensorflow(_in_bfloat16(network), batch),
        }


def _onnx_runtime(file: Path) -> Predict:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpus()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (name,) = (given.name for given in session.get_inputs())
    return lambda levels: session.run(None, {name: levels[..., None]})[0]


class _Images(quantization.CalibrationDataReader):
    def __init__(self, name: str, images: np.ndarray) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = ({name: image[None]} for image in images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def _onnx_int8(float32: Path, calibration: np.ndarray) -> Path:
    """Static quantization with activations in unsigned and weights in signed bytes, for AVX-512 VNNI."""
    prepared, int8 = float32.with_name("prepared.onnx"), float32.with_name("int8.onnx")
    quantization.shape_inference.quant_pre_process(float32, prepared, skip_symbolic_shape=True)
    name = onnxruntime.InferenceSession(prepared, providers=["CPUExecutionProvider"]).get_inputs()[0].name
    quantization.quantize_static(
        prepared,
        int8,
        _Images(name, calibration),
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    return int8


def _litert(network: keras.Model, calibration: np.ndarray | None, batch: int) -> Predict:
    """LiteRT with XNNPACK; in int8 if there are images (n, size, size, 1) to calibrate on."""
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    if calibration is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in calibration)
    interpreter = Interpreter(model_content=converter.convert(), num_threads=cpus())
    given, found = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(given["index"], [batch, *given["shape"][1:]])
    interpreter.allocate_tensors()

    def predict(levels: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], levels[..., None].astype(given["dtype"]))
        interpreter.invoke()
        return interpreter.get_tensor(found["index"])

    return predict


def _tensorflow(network: keras.Model, batch: int) -> Predict:
    """A graph of TensorFlow, which computes with oneDNN."""
    graph = tf.function(lambda levels: network(levels, training=False))
    shape, dtype = (batch, *network.inputs[0].shape[1:]), network.inputs[0].dtype
    concrete = graph.get_concrete_function(tf.TensorSpec(shape, dtype))
    return lambda levels: concrete(tf.constant(levels[..., None])).numpy()


def _in_bfloat16(network: keras.Model) -> keras.Model:
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    _set_bfloat16(copy)
    return copy


def _set_bfloat16(layer: keras.Layer) -> None:
    layer.dtype_policy = "mixed_bfloat16"
    for part in getattr(layer, "layers", ()):
        _set_bfloat16(part)
