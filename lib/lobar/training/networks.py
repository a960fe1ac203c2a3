"""Segmentation networks: grey image in, probability of an opacity for every pixel out."""

from collections.abc import Callable
from types import MappingProxyType

from lobar.core.errors import InputError
from lobar.imaging.sampling import Sampling
from lobar.training.keras_backend import keras, layers


def notebook(image_size: int, channels: int, blocks: int, depth: int) -> keras.Model:
    """The notebook's residual network: (size, size, 1) floats in 0..1 -> probabilities, same shape.

    `depth` times the sides are halved and the channels doubled, `blocks` residual blocks each; the head's
    coarse grid is repeated up to the input's size. 12,727,969 parameters at (256, 32, 2, 4).
    """
    inputs = keras.Input((image_size, image_size, 1))
    x = layers.Conv2D(channels, 3, padding="same", use_bias=False)(inputs)
    x = _stages(x, channels, blocks, depth)[-1]
    # float32 under mixed precision too: a probability near 1 has no room in 16 bits
    x = layers.Conv2D(1, 1, activation="sigmoid", dtype="float32")(_norm_relu(x))
    outputs = layers.UpSampling2D(2**depth, dtype="float32")(x)
    return keras.Model(inputs, outputs, name="notebook")


def finer(image_size: int, channels: int, blocks: int, depth: int) -> keras.Model:
    """The notebook's network with its head on a grid twice as fine, which grows smoothly to full size."""
    inputs = keras.Input((image_size, image_size, 1))
    x = layers.Conv2D(channels, 3, padding="same", use_bias=False)(inputs)
    stages = _stages(x, channels, blocks, depth)
    x = _joined(stages[-1], stages[-2]) if depth > 1 else stages[-1]
    return keras.Model(inputs, _smooth_head(x, image_size), name="finer")


def unet(image_size: int, channels: int, blocks: int, depth: int) -> keras.Model:
    """A U-Net of residual stages: halved once by its first layer, then by each stage, and back to a quarter.

    At (256, 32, 2, 4) a quarter of the notebook's operations. Source: Ronneberger et al. 2015, with sums in
    the place of concatenations.
    """
    inputs = keras.Input((image_size, image_size, 1))
    x = layers.Conv2D(channels, 5, strides=2, padding="same", use_bias=False)(inputs)
    *finer_stages, x = _stages(x, channels, blocks, depth - 1)
    for stage in reversed(finer_stages):
        x = _block(_joined(x, stage))
    return keras.Model(inputs, _smooth_head(x, image_size), name="unet")


def _stages(x: keras.KerasTensor, channels: int, blocks: int, count: int) -> list[keras.KerasTensor]:
    """What leaves each of `count` stages, which halve the sides and double the channels one after another."""
    stages = []
    for _ in range(count):
        channels *= 2
        x = layers.Conv2D(channels, 1, padding="same", use_bias=False)(_norm_relu(x))
        x = layers.MaxPool2D(2)(x)
        for _ in range(blocks):
            x = _block(x)
        stages.append(x)
    return stages


def _block(x: keras.KerasTensor) -> keras.KerasTensor:
    channels = x.shape[-1]
    residual = layers.Conv2D(channels, 3, padding="same", use_bias=False)(_norm_relu(x))
    residual = layers.Conv2D(channels, 3, padding="same", use_bias=False)(_norm_relu(residual))
    return layers.add([residual, x])


def _joined(coarse: keras.KerasTensor, fine: keras.KerasTensor) -> keras.KerasTensor:
    """The finer grid with what the coarser one, half as fine, knows."""
    known = layers.Conv2D(fine.shape[-1], 1, use_bias=False)(_norm_relu(coarse))
    return layers.add([layers.UpSampling2D(2)(known), fine])


def _smooth_head(x: keras.KerasTensor, image_size: int) -> keras.KerasTensor:
    """Probabilities at the input's size from a coarser grid: its logits grow bilinearly, then the sigmoid."""
    logits = layers.Conv2D(1, 1, dtype="float32")(_norm_relu(x))
    factor = image_size // x.shape[1]
    logits = layers.UpSampling2D(factor, interpolation="bilinear", dtype="float32")(logits)
    return layers.Activation("sigmoid", dtype="float32")(logits)


def _norm_relu(x: keras.KerasTensor) -> keras.KerasTensor:
    # a leaky ReLU of slope 0, as the notebook wrote it
    return layers.LeakyReLU(negative_slope=0)(layers.BatchNormalization(momentum=0.9)(x))


NETWORKS: MappingProxyType[str, Callable[[int, int, int, int], keras.Model]] = MappingProxyType(
    {"notebook": notebook, "finer": finer, "unet": unet}
)


def create(
    name: str, sampling: Sampling, image_size: int, channels: int, blocks: int, depth: int
) -> keras.Model:
    """A network that takes the sampling's integers (uint8 or uint16) and scales them to 0..1 itself.

    Raises InputError for an unknown name, a size that the depth does not divide, or a U-Net of no stage.
    """
    if name not in NETWORKS:
        raise InputError(f"--network {name}: there is none of that name; choose {', '.join(NETWORKS)}")
    if image_size % 2**depth:
        raise InputError(f"--image-size {image_size} is no multiple of 2**depth = {2**depth}; change either")
    if name == "unet" and depth < 2:
        raise InputError(f"--depth {depth}: a unet needs 2 or more, since its first layer halves already")
    levels = keras.Input((image_size, image_size, 1), dtype=sampling.dtype)
    scaled = layers.Rescaling(1 / sampling.max_value)(levels)
    return keras.Model(levels, NETWORKS[name](image_size, channels, blocks, depth)(scaled))
