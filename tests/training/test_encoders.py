"""Encoders compared with the networks that their weights come from."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import h5py
import keras
import numpy as np
import pytest
import skimage.data
from keras.src.legacy.saving import legacy_h5_format

from lobar.core.errors import InputError
from lobar.training import efficientnet_lite, encoders, pretrained, torch_weights
from lobar.training.recipe import Encoder, Recipe, load

LITE = tuple(pretrained.PACKAGES)
KERAS = (
    ("convnexttiny", keras.applications.ConvNeXtTiny, keras.applications.convnext),
    ("efficientnetv2b0", keras.applications.EfficientNetV2B0, keras.applications.efficientnet_v2),
    ("efficientnetv2s", keras.applications.EfficientNetV2S, keras.applications.efficientnet_v2),
    ("mobilenetv3large", keras.applications.MobileNetV3Large, keras.applications.mobilenet_v3),
    ("mobilenetv3small", keras.applications.MobileNetV3Small, keras.applications.mobilenet_v3),
    ("resnet50", keras.applications.ResNet50, keras.applications.resnet),
)


def recipe(encoder: str, weights: str = "") -> Recipe:
    fields = f"network=unet,encoder={encoder},depth=5,image_size=64,channels=4,blocks=1"
    return load("demo", f"{fields},encoder_weights={weights}" if weights else fields)


def lite(encoder: Encoder, side: int) -> tuple[keras.Model, Mapping[str, np.ndarray]]:
    """The network for three normalized colours with the package's weights, and all arrays of the package."""
    package = pretrained.PACKAGES[encoder]
    arrays = torch_weights.parse(package.read(), package.file)
    colours = keras.Input((side, side, 3))
    network = keras.Model(colours, efficientnet_lite.maps(colours, efficientnet_lite.SIZES[encoder]))
    network.set_weights(efficientnet_lite.weights(network, arrays, package.file))
    return network, arrays


def save(network: keras.Model, file: Path) -> None:
    """Save weights in Keras' present format, or in that of the files that Keras offers, which is older."""
    if file.name.endswith(".weights.h5"):
        network.save_weights(file)
    else:
        with h5py.File(file, "w") as group:
            legacy_h5_format.save_weights_to_hdf5_group(group, network)


def grey_images(side: int) -> np.ndarray:
    """(2, side, side, 1), 0..1, bright up to the border."""
    return np.random.default_rng(0).uniform(0.3, 1, (2, side, side, 1)).astype(np.float32)


@pytest.mark.parametrize(("encoder", "side"), zip(LITE, (224, 240, 260), strict=True))
def test_efficientnet_lite_recognizes_a_cat_and_an_espresso(encoder: Encoder, side: int) -> None:
    """With the classifier of the package: 285 is ImageNet's Egyptian cat, 967 its espresso."""
    network, arrays = lite(encoder, side)
    images = [cv2.resize(image, (side, side)) for image in (skimage.data.chelsea(), skimage.data.coffee())]
    x = np.asarray(network((np.array(images, np.float32) - 127) / 128)[-1])
    x = x @ arrays["_conv_head.weight"][:, :, 0, 0].T
    mean, variance, scale, offset = (
        arrays[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
    )
    x = np.clip((x - mean) / np.sqrt(variance + 1e-3) * scale + offset, 0, 6).mean(axis=(1, 2))
    assert (x @ arrays["_fc.weight"].T + arrays["_fc.bias"]).argmax(axis=1).tolist() == [285, 967]


@pytest.mark.parametrize("encoder", LITE)
def test_a_grey_image_has_the_maps_of_three_equal_colours(encoder: Encoder) -> None:
    network = encoders.create(encoder, 64)
    encoders.initialize(network, recipe(encoder), pretrained.PACKAGES[encoder].read())
    images = grey_images(64)
    colours = np.repeat((images * 255 - 127) / 128, 3, axis=-1)
    for ours, theirs in zip(network(images), lite(encoder, 64)[0](colours), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("encoder", "build", "module", "ending"),
    [(*network, ".weights.h5") for network in KERAS] + [(*KERAS[4], "_notop.h5")],
)
def test_maps_with_a_file_of_keras_equal_those_of_keras_own_network(
    encoder: str, build: type, module: object, ending: str, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(0)
    theirs = build(include_top=False, weights=None, input_shape=(64, 64, 3))
    rng = np.random.default_rng(0)
    theirs.set_weights([w + rng.normal(0, 0.01, w.shape).astype(np.float32) for w in theirs.get_weights()])
    save(theirs, tmp_path / f"w{ending}")
    ours = encoders.create(Encoder(encoder), 64)
    chosen = recipe(encoder, f"{tmp_path}/w{ending}")
    encoders.initialize(ours, chosen, pretrained.read(chosen, pretrained.sha256(chosen)))
    images = grey_images(64)
    expected = theirs(module.preprocess_input(np.repeat(images * 255, 3, axis=-1)))
    maps = ours(images)
    assert [tuple(image.shape[1:3]) for image in maps] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    np.testing.assert_allclose(maps[-1], expected, atol=1e-4 * np.abs(expected).max())
    assert np.std(expected) > 0


def test_the_maps_of_a_resnet_are_the_ends_of_its_stages() -> None:
    names = [output._keras_history.operation.name for output in encoders.create(Encoder.RESNET50, 64).outputs]
    assert names == ["conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"]


@pytest.mark.parametrize("ending", ["_notop.h5", ".weights.h5"])
def test_a_wrong_file_of_weights_names_the_file_and_the_encoder(ending: str, tmp_path: Path) -> None:
    small = keras.applications.MobileNetV3Small(include_top=False, weights=None, input_shape=(64, 64, 3))
    save(small, tmp_path / f"small{ending}")
    whole = (tmp_path / f"small{ending}").read_bytes()
    (tmp_path / f"cut{ending}").write_bytes(whole[:-100_000])
    (tmp_path / f"text{ending}").write_text("not HDF5")
    save(keras.Model(small.input, small.layers[20].output), tmp_path / f"part{ending}")
    for name, encoder in (
        ("small", "mobilenetv3large"),
        ("small", "resnet50"),
        ("cut", "mobilenetv3small"),
        ("part", "mobilenetv3small"),
        ("text", "mobilenetv3small"),
    ):
        chosen = recipe(encoder, f"{tmp_path}/{name}{ending}")
        data = pretrained.read(chosen, pretrained.sha256(chosen))
        url = f"file://{tmp_path}/{name}{ending}"
        with pytest.raises(
            InputError, match=f"encoder_weights {url}: not a .* of Keras' {encoder} "
        ) as error:
            encoders.initialize(small, chosen, data)
        assert "\n" not in str(error.value)


def test_a_file_that_is_replaced_while_a_training_starts_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "w.weights.h5").write_bytes(b"before")
    chosen = recipe("resnet50", f"{tmp_path}/w.weights.h5")
    recorded = pretrained.sha256(chosen)
    (tmp_path / "w.weights.h5").write_bytes(b"after")
    with pytest.raises(InputError, match=r"w\.weights\.h5: it was replaced while this training started"):
        pretrained.read(chosen, recorded)


def test_weights_of_another_efficientnet_lite_are_an_error() -> None:
    package = pretrained.PACKAGES[Encoder.EFFICIENTNETLITE2]
    arrays = torch_weights.parse(package.read(), package.file)
    for encoder, message in (
        (Encoder.EFFICIENTNETLITE0, r"blocks16_bn0 differs"),
        (Encoder.EFFICIENTNETLITE1, r"has the shape \(1, 1, 144, 48\) instead of \(1, 1, 144, 40\)"),
    ):
        colours = keras.Input((64, 64, 3))
        maps = efficientnet_lite.maps(colours, efficientnet_lite.SIZES[encoder])
        with pytest.raises(InputError, match=f"^{package.file}: not the weights of {encoder}: .*{message}"):
            efficientnet_lite.weights(keras.Model(colours, maps, name=encoder.value), arrays, package.file)
