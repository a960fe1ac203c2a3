"""A network converted for other libraries for CPUs: ONNX Runtime, LiteRT and TensorFlow.

Each gets its own int8 quantization after training, as its documentation says.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import tensorflow as tf
from onnxruntime import quantization

LIBRARIES = ("onnxruntime", "ai-edge-litert")
CALIBRATION_IMAGES = 50


def convert(network: keras.Model, levels: np.ndarray, folder: Path) -> dict[tuple[str, str], str]:
    """The files of a network in `folder`, by library and precision.

    `levels` (images, size, size), uint8, are what int8 is calibrated on.
    """
    calibration = levels[:CALIBRATION_IMAGES, ..., None]
    network.save(folder / "network.keras")
    network(calibration[:1])  # Keras exports only a network that was called
    network.export(folder / "float32.onnx", format="onnx", verbose=False)
    _onnx_int8(folder / "float32.onnx", calibration, folder / "int8.onnx")
    (folder / "float32.tflite").write_bytes(_litert(network, None))
    (folder / "int8.tflite").write_bytes(_litert(network, calibration))
    return {
        ("ONNX Runtime", "float32"): f"{folder}/float32.onnx",
        ("ONNX Runtime", "int8"): f"{folder}/int8.onnx",
        ("LiteRT", "float32"): f"{folder}/float32.tflite",
        ("LiteRT", "int8"): f"{folder}/int8.tflite",
        ("TensorFlow", "float32"): f"{folder}/network.keras",
        ("TensorFlow", "bfloat16"): f"{folder}/network.keras",
    }


class _Images(quantization.CalibrationDataReader):
    def __init__(self, name: str, images: np.ndarray) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = ({name: image[None]} for image in images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def _onnx_int8(float32: Path, calibration: np.ndarray, int8: Path) -> None:
    """Static quantization with activations in unsigned and weights in signed bytes, for AVX-512 VNNI."""
    prepared = float32.with_name("prepared.onnx")
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


def _litert(network: keras.Model, calibration: np.ndarray | None) -> bytes:
    """In int8 if there are images (n, size, size, 1) to calibrate on."""
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    if calibration is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in calibration)
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return bytes(converter.convert())
