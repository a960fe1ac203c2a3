"""Known networks without their classifier: grey image in, maps at 1/4, 1/8, 1/16 and 1/32 of its size out."""

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from lobar.core.errors import InputError
from lobar.storage import objects
from lobar.training import efficientnet_lite, torch_weights
from lobar.training.keras_backend import keras, layers
from lobar.training.pretrained import PACKAGES
from lobar.training.recipe import Encoder, Recipe

REDUCTIONS = (4, 8, 16, 32)
applications = keras.applications


@dataclass(frozen=True)
class Colours:
    """How a network normalizes an image of 0..1: times `scale`, plus `offset`, for all colours or each."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]


@dataclass(frozen=True)
class Application:
    """A network of keras.applications, built without a normalization of its own."""

    build: Callable[..., keras.Model]
    colours: Colours


def _bare(build: Callable[..., keras.Model], colours: Colours) -> Application:
    return Application(partial(build, include_preprocessing=False), colours)


LITE = Colours((255 / 128,), (-127 / 128,))
MOBILENET = Colours((2.0,), (-1.0,))
V2S = Colours((255 / 128,), (-1.0,))
IMAGENET = Colours((1 / 0.229, 1 / 0.224, 1 / 0.225), (-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225))
CAFFE = Colours((255.0,) * 3, (-103.939, -116.779, -123.68))  # blue, green, red
APPLICATIONS: MappingProxyType[Encoder, Application] = MappingProxyType(
    {
        Encoder.CONVNEXTTINY: _bare(applications.ConvNeXtTiny, IMAGENET),
        Encoder.EFFICIENTNETV2B0: _bare(applications.EfficientNetV2B0, IMAGENET),
        Encoder.EFFICIENTNETV2S: _bare(applications.EfficientNetV2S, V2S),
        Encoder.MOBILENETV3LARGE: _bare(applications.MobileNetV3Large, MOBILENET),
        Encoder.MOBILENETV3SMALL: _bare(applications.MobileNetV3Small, MOBILENET),
        Encoder.RESNET50: Application(applications.ResNet50, CAFFE),
    }
)


def create(encoder: Encoder, image_size: int) -> keras.Model:
    """An encoder with random weights: (size, size, 1) floats in 0..1 -> a map for each of REDUCTIONS.

    `image_size` is a multiple of 32. A grey image replaces red, green and blue. If all are normalized alike,
    the first kernel's sum over the colours gives the same map from one of them. Otherwise all three stay: one
    kernel and bias for the grey image would be wrong at the border, where zeros are added after the
    normalization.
    """
    grey = keras.Input((image_size, image_size, 1))
    colours = LITE if encoder in PACKAGES else APPLICATIONS[encoder].colours
    if len(colours.scale) == 1:
        normalized = layers.Rescaling(colours.scale[0], colours.offset[0])(grey)
    else:
        normalized = layers.Rescaling(colours.scale, colours.offset)(layers.Concatenate()([grey] * 3))
    network = keras.Model(grey, _maps(encoder, normalized), name=encoder.value)
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.9  # as in our own networks: up to 0.999 is too slow for a short training
    return network


def _maps(encoder: Encoder, normalized: keras.KerasTensor) -> list[keras.KerasTensor]:
    if encoder in PACKAGES:
        return efficientnet_lite.maps(normalized, efficientnet_lite.SIZES[encoder])
    network = APPLICATIONS[encoder].build(include_top=False, weights=None, input_tensor=normalized)
    sizes = [normalized.shape[1] // reduction for reduction in REDUCTIONS]
    outputs = [operation.output for operation in network.operations]
    # the last one of a size is what the network reduces next
    last = {output.shape[1]: output for output in outputs if len(output.shape) == 4}
    return [last[size] for size in sizes]


def initialize(network: keras.Model, recipe: Recipe, data: bytes) -> None:
    """Give the encoder in `network`, made by `create`, the weights of a file.

    Raises InputError if the file is damaged or that of another network.
    """
    if recipe.encoder in PACKAGES:
        found = _lite_weights(recipe.encoder, data)
    else:
        found = _application_weights(recipe.encoder, recipe.encoder_weights, data)
    shapes = [tuple(variable.shape) for variable in network.weights]
    network.set_weights(
        [
            array if array.shape == shape else array.sum(axis=2, keepdims=True)
            for array, shape in zip(found, shapes, strict=True)
        ]
    )


def _lite_weights(encoder: Encoder, data: bytes) -> list[np.ndarray]:
    colours = keras.Input((32, 32, 3))
    size = efficientnet_lite.SIZES[encoder]
    network = keras.Model(colours, efficientnet_lite.maps(colours, size), name=encoder.value)
    file = PACKAGES[encoder].file
    return efficientnet_lite.weights(network, torch_weights.parse(data, file), file)


def _application_weights(encoder: Encoder, url: str, data: bytes) -> list[np.ndarray]:
    """The weights in one of Keras' own files."""
    network = APPLICATIONS[encoder].build(include_top=False, weights=None, input_shape=(224, 224, 3))
    # Keras only warns of some weights that a file lacks: they would keep what they are now
    network.set_weights([np.full(variable.shape, np.nan, np.float32) for variable in network.weights])
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        file = Path(folder, objects.name(url))  # Keras knows the format from the ending of the name
        file.write_bytes(data)
        try:
            network.load_weights(file)
            if missing := [weight.path for weight in network.weights if np.isnan(weight).any()]:
                raise ValueError(f"it lacks {missing[0]}")
        except (ValueError, TypeError, LookupError, OSError) as error:
            reason = str(error).strip().partition("\n")[0].replace(f"{folder}/", "")
            raise InputError(
                f"encoder_weights {url}: not a complete file (_notop.h5 or .weights.h5) with the weights of "
                f"Keras' {encoder} without its classifier: {reason}"
            ) from error
    weights: list[np.ndarray] = network.get_weights()
    return weights
