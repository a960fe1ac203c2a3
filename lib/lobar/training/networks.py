"""Segmentation networks: grey image in, probability of an opacity for every pixel out."""

from collections.abc import Callable
from types import MappingProxyType

from lobar.core.errors import InputError
from lobar.training import encoders
from lobar.training.keras_backend import keras, layers
from lobar.training.recipe import Encoder, Network, Recipe


def notebook(image_size: int, channels: int, blocks: int, depth: int) -> keras.Model:
    """The notebook's residual network: (size, size, 1) floats in 0..1 -> probabilities, same shape.

    Each of `depth` stages halves the sides, doubles the channels and has `blocks` residual blocks. The head's
    coarse grid is repeated up to the input's size. 12,727,969 parameters at (256, 32, 2, 4).
    """
    inputs = keras.Input((image_size, image_size, 1))
    x = layers.Conv2D(channels, 3, padding="same", use_bias=False)(inputs)
    x = _stages(x, channels, blocks, depth)[-1]
    # float32 under mixed precision too: 16 bits cannot represent a probability near 1
    x = layers.Conv2D(1, 1, activation="sigmoid", dtype="float32")(_norm_relu(x))
    outputs = layers.UpSampling2D(2**depth, dtype="float32")(x)
    return keras.Model(inputs, outputs, name="notebook")


def unet(image_size: int, channels: int, blocks: int, depth: int) -> keras.Model:
    """A U-Net of residual stages: halved once by its first layer, then by each stage, and back to a quarter.

    At (256, 32, 2, 4) a quarter of the notebook's operations. Source: Ronneberger et al. 2015, with sums
    instead of concatenations.
    """
    inputs = keras.Input((image_size, image_size, 1))
    x = layers.Conv2D(channels, 5, strides=2, padding="same", use_bias=False)(inputs)
    *finer_stages, x = _stages(x, channels, blocks, depth - 1)
    for stage in reversed(finer_stages):
        x = _block(_merged(x, stage))
    return keras.Model(inputs, _smooth_head(_norm_relu(x), image_size), name="unet")


def encoder_unet(encoder: Encoder, image_size: int, channels: int, blocks: int) -> keras.Model:
    """A U-Net whose first half is a known network: from 1/32 of the image back to a quarter.

    `channels` are those of a quarter; the grids at 1/8 and 1/16 have twice and four times as many. Each has
    `blocks` residual blocks. The batch normalization follows its convolution, so that OpenVINO joins them.
    """
    inputs = keras.Input((image_size, image_size, 1))
    *finer, x = encoders.create(encoder, image_size)(inputs)
    for level, fine in reversed(list(enumerate(finer))):
        width = channels * 2**level
        coarse = layers.UpSampling2D(2, interpolation="bilinear")(_conv_norm(x, width, 1))
        x = layers.ReLU()(layers.add([coarse, _conv_norm(fine, width, 1)]))
        for _ in range(blocks):
            residual = _conv_norm(layers.ReLU()(_conv_norm(x, width, 3)), width, 3)
            x = layers.ReLU()(layers.add([residual, x]))
    return keras.Model(inputs, _smooth_head(x, image_size), name="unet")


def _conv_norm(x: keras.KerasTensor, channels: int, kernel: int) -> keras.KerasTensor:
    x = layers.Conv2D(channels, kernel, padding="same", use_bias=False)(x)
    return layers.BatchNormalization(momentum=0.9)(x)


def _stages(x: keras.KerasTensor, channels: int, blocks: int, count: int) -> list[keras.KerasTensor]:
    """The output of each of `count` stages; a stage halves the sides and doubles the channels."""
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


def _merged(coarse: keras.KerasTensor, fine: keras.KerasTensor) -> keras.KerasTensor:
    """The sum of the finer grid and the coarser one, which is half as fine."""
    projected = layers.Conv2D(fine.shape[-1], 1, use_bias=False)(_norm_relu(coarse))
    return layers.add([layers.UpSampling2D(2)(projected), fine])


def _smooth_head(x: keras.KerasTensor, image_size: int) -> keras.KerasTensor:
    """Probabilities at the input's size: the sigmoid of a coarser grid's logits, enlarged bilinearly."""
    logits = layers.Conv2D(1, 1, dtype="float32")(x)
    factor = image_size // x.shape[1]
    logits = layers.UpSampling2D(factor, interpolation="bilinear", dtype="float32")(logits)
    return layers.Activation("sigmoid", dtype="float32")(logits)


def _norm_relu(x: keras.KerasTensor) -> keras.KerasTensor:
    # a leaky ReLU of slope 0, as the notebook wrote it
    return layers.LeakyReLU(negative_slope=0)(layers.BatchNormalization(momentum=0.9)(x))


NETWORKS: MappingProxyType[Network, Callable[[int, int, int, int], keras.Model]] = MappingProxyType(
    {Network.NOTEBOOK: notebook, Network.UNET: unet}
)


def create(recipe: Recipe) -> keras.Model:
    """The network of a recipe with random weights.

    It takes the sampling's integers (uint8 or uint16) and scales them to 0..1. Raises InputError for a size
    that the depth does not divide, or a U-Net without a stage.
    """
    size, depth = recipe.image_size, recipe.depth
    if size % 2**depth:
        raise InputError(f"image_size {size} is not a multiple of 2**depth = {2**depth}; change one of them")
    if recipe.network is Network.UNET and depth < 2:
        raise InputError(f"depth {depth}: a unet needs 2 or more, because its first layer halves the image")
    levels = keras.Input((size, size, 1), dtype=recipe.sampling.dtype)
    scaled = layers.Rescaling(1 / recipe.sampling.max_value)(levels)
    if recipe.encoder is Encoder.NONE:
        network = NETWORKS[recipe.network](size, recipe.channels, recipe.blocks, depth)
    else:
        network = encoder_unet(recipe.encoder, size, recipe.channels, recipe.blocks)
    return keras.Model(levels, network(scaled))


def encoder_of(network: keras.Model, recipe: Recipe) -> keras.Model:
    """The encoder in a network that `create` made of a recipe with one."""
    return network.layers[-1].get_layer(recipe.encoder.value)
