"""Segmentation networks: grey image in, probability of an opacity for every pixel out."""

from collections.abc import Callable
from types import MappingProxyType

from lobar.backend import keras, layers
from lobar.dicom import Sampling
from lobar.errors import InputError


def notebook(image_size: int, channels: int, blocks: int, depth: int) -> keras.Model:
    """The notebook's residual network: (size, size, 1) floats in 0..1 -> probabilities, same shape.

    `depth` times the sides are halved and the channels doubled, `blocks` residual blocks each; the head's
    coarse grid is repeated up to the input's size. 12,727,969 parameters at (256, 32, 2, 4).
    """
    inputs = keras.Input((image_size, image_size, 1))
    x = layers.Conv2D(channels, 3, padding="same", use_bias=False)(inputs)
    for _ in range(depth):
        channels *= 2
        x = layers.Conv2D(channels, 1, padding="same", use_bias=False)(_norm_relu(x))
        x = layers.MaxPool2D(2)(x)
        for _ in range(blocks):
            residual = layers.Conv2D(channels, 3, padding="same", use_bias=False)(_norm_relu(x))
            residual = layers.Conv2D(channels, 3, padding="same", use_bias=False)(_norm_relu(residual))
            x = layers.add([residual, x])
    # float32 under mixed precision too: a probability near 1 has no room in 16 bits
    x = layers.Conv2D(1, 1, activation="sigmoid", dtype="float32")(_norm_relu(x))
    outputs = layers.UpSampling2D(2**depth, dtype="float32")(x)
    return keras.Model(inputs, outputs, name="notebook")


def _norm_relu(x: keras.KerasTensor) -> keras.KerasTensor:
    # a leaky ReLU of slope 0, as the notebook wrote it
    return layers.LeakyReLU(negative_slope=0)(layers.BatchNormalization(momentum=0.9)(x))


NETWORKS: MappingProxyType[str, Callable[[int, int, int, int], keras.Model]] = MappingProxyType(
    {"notebook": notebook}
)


def create(
    name: str, sampling: Sampling, image_size: int, channels: int, blocks: int, depth: int
) -> keras.Model:
    """A network that takes the sampling's integers (uint8 or uint16) and scales them to 0..1 itself.

    Raises InputError for an unknown name, or a size that the depth does not divide.
    """
    if name not in NETWORKS:
        raise InputError(f"--network {name}: there is none of that name; choose {', '.join(NETWORKS)}")
    if image_size % 2**depth:
        raise InputError(f"--image-size {image_size} is no multiple of 2**depth = {2**depth}; change either")
    levels = keras.Input((image_size, image_size, 1), dtype=sampling.dtype)
    scaled = layers.Rescaling(1 / sampling.white)(levels)
    return keras.Model(levels, NETWORKS[name](image_size, channels, blocks, depth)(scaled))
