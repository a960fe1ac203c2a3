"""EfficientNet-Lite 0, 1 and 2 without their classifier, and their weights from PyTorch's files.

Source: tensorflow/tpu, models/official/efficientnet/lite. Unlike EfficientNet they have ReLU6 and no squeeze
and excitation, so that they stay exact in int8.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from lobar.core.errors import InputError
from lobar.training.keras_backend import keras, layers
from lobar.training.recipe import Encoder

KERNELS = (3, 3, 5, 3, 5, 5, 3)  # of each stage
STRIDES = (1, 2, 2, 2, 1, 2, 1)
ENDS = (1, 2, 4, 6)  # the last stages at a quarter of the image, an eighth, a sixteenth and half of that
CLASSIFIER = ("_conv_head", "_bn1", "_fc")
BATCH_NORMALIZATION = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Size:
    """Blocks and output channels of each stage."""

    blocks: tuple[int, ...]
    channels: tuple[int, ...]


SIZES: MappingProxyType[Encoder, Size] = MappingProxyType(
    {
        Encoder.EFFICIENTNETLITE0: Size((1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 80, 112, 192, 320)),
        Encoder.EFFICIENTNETLITE1: Size((1, 3, 3, 4, 4, 5, 1), (16, 24, 40, 80, 112, 192, 320)),
        Encoder.EFFICIENTNETLITE2: Size((1, 3, 3, 4, 4, 5, 1), (16, 24, 48, 88, 120, 208, 352)),
    }
)


def maps(x: keras.KerasTensor, size: Size) -> list[keras.KerasTensor]:
    """The maps at a quarter, an eighth, 1/16 and 1/32 of a normalized image (rows, columns, colours).

    The layers have the names of the modules in the weights' file, as `_layer_name` writes them.
    """
    # padding "same" at stride 2 adds zeros at the bottom and the right only, as in the original
    x = layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False, name="conv_stem")(x)
    x = _norm_relu6(x, "bn0")
    ends, number = [], 0
    for stage, (blocks, channels) in enumerate(zip(size.blocks, size.channels, strict=True)):
        for i in range(blocks):
            stride = STRIDES[stage] if i == 0 else 1
            x = _block(x, f"blocks{number}", channels, KERNELS[stage], stride, 6 if stage else 1)
            number += 1
        if stage in ENDS:
            ends.append(x)
    return ends


def _block(
    x: keras.KerasTensor, name: str, channels: int, kernel: int, stride: int, expansion: int
) -> keras.KerasTensor:
    """An inverted residual block: wider, convolved channel by channel, narrower."""
    inputs, width = x, x.shape[-1]
    if expansion > 1:
        x = layers.Conv2D(width * expansion, 1, use_bias=False, name=f"{name}_expand_conv")(x)
        x = _norm_relu6(x, f"{name}_bn0")
    convolution = layers.DepthwiseConv2D(
        kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
    )
    x = _norm_relu6(convolution(x), f"{name}_bn1")
    x = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn2")(x)
    return layers.add([x, inputs]) if stride == 1 and channels == width else x


def _norm_relu6(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.ReLU(6)(layers.BatchNormalization(epsilon=1e-3, name=name)(x))


def weights(network: keras.Model, arrays: Mapping[str, np.ndarray], name: str) -> list[np.ndarray]:
    """The weights of `network`, made by `maps` for three colours, from the arrays of a file called `name`.

    Raises InputError if the file has other names than the network and its classifier, or other shapes.
    """
    ours = [layer for layer in network.layers if layer.weights]
    modules = {_layer_name(module): module for module in (key.rpartition(".")[0] for key in arrays)}
    head = {_layer_name(module) for module in CLASSIFIER}
    if (missing := {layer.name for layer in ours} ^ modules.keys()) != head:
        raise InputError(f"{name}: not the weights of {network.name}: {sorted(missing ^ head)[0]} differs")
    found = [array for layer in ours for array in _of_layer(layer, arrays, modules[layer.name], name)]
    for array, variable in zip(found, network.weights, strict=True):
        if array.shape != tuple(variable.shape):
            raise InputError(
                f"{name}: not the weights of {network.name}: {variable.path} has the shape {array.shape} "
                f"instead of {tuple(variable.shape)}"
            )
    return found


def _of_layer(
    layer: keras.Layer, arrays: Mapping[str, np.ndarray], module: str, name: str
) -> list[np.ndarray]:
    """A layer's arrays in Keras' order and layout."""
    normalization = isinstance(layer, layers.BatchNormalization)
    parts = BATCH_NORMALIZATION if normalization else ("weight",)
    if {key for key in arrays if key.startswith(f"{module}.")} != {f"{module}.{part}" for part in parts}:
        raise InputError(f"{name}: {module} does not consist of {', '.join(parts)}")
    if normalization:
        return [arrays[f"{module}.{part}"] for part in parts[:4]]
    kernel = arrays[f"{module}.weight"]  # (out, in, rows, columns)
    if kernel.ndim != 4:
        raise InputError(f"{name}: {module} is no kernel of a convolution: {kernel.shape}")
    depthwise = isinstance(layer, layers.DepthwiseConv2D)
    return [kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))]


def _layer_name(module: str) -> str:
    """`_blocks.3._expand_conv` -> `blocks3_expand_conv`: Keras allows no name that starts with `_`."""
    return module.replace(".", "").lstrip("_")
