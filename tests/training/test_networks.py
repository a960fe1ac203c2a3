from collections import Counter
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import openvino as ov
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import notebook
from lobar.core.errors import InputError
from lobar.imaging.sampling import Sampling
from lobar.inference.engines import OpenVino, TensorFlow
from lobar.storage import records
from lobar.storage.layout import Model
from lobar.training import export, losses, networks
from lobar.training.recipe import Network, Precision, Recipe, load
from lobar.training.record import ModelFiles


def logit(probabilities: np.ndarray) -> np.ndarray:
    return np.log(probabilities / (1 - probabilities))


def small(network: str = "notebook", depth: int = 2, **fields: object) -> Recipe:
    """A recipe of a small network."""
    size = {"sampling": "area", "image_size": 32, "channels": 4, "blocks": 1, "depth": depth}
    fields = {"network": network, **size, **fields}
    return load("notebook", ",".join(f"{name}={value}" for name, value in fields.items()))


ON_ENCODER = {"encoder": "efficientnetlite0", "depth": 5}


def layer_list(model: keras.Model) -> list[tuple[str, tuple[int, ...]]]:
    return [(type(layer).__name__, tuple(layer.output.shape)) for layer in model.layers]


def test_layers_and_parameter_count_equal_the_notebooks() -> None:
    ours, theirs = networks.notebook(256, 32, 2, 4), notebook.create_network(256, 32, 2, 4)
    assert ours.count_params() == 12_727_969
    assert layer_list(ours) == layer_list(theirs)


def test_output_with_the_notebooks_weights_equals_the_notebooks() -> None:
    ours, theirs = networks.notebook(64, 4, 2, 3), notebook.create_network(64, 4, 2, 3)
    ours.set_weights(theirs.get_weights())
    images = np.random.default_rng(0).random((3, 64, 64, 1)).astype(np.float32)
    np.testing.assert_allclose(ours(images), theirs(images), atol=1e-6)


@pytest.mark.parametrize("sampling", Sampling)
def test_the_network_scales_integers_itself(sampling: Sampling) -> None:
    model = networks.create(small(sampling=sampling))
    levels = (
        np.random.default_rng(0).integers(0, sampling.max_value + 1, (2, 32, 32, 1)).astype(sampling.dtype)
    )
    np.testing.assert_allclose(model(levels), model.layers[-1](levels / sampling.max_value), atol=1e-6)


@pytest.mark.parametrize("name", networks.NETWORKS)
@pytest.mark.parametrize("depth", [2, 3])
def test_openvino_output_equals_keras(name: str, depth: int, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = networks.create(small(name, depth))
    levels = np.random.default_rng(0).integers(0, 256, (5, 32, 32), np.uint8)
    folder = Model(str(tmp_path))
    engine = OpenVino(folder, export.export(model, folder, levels), "float32")
    ((_, maps),) = engine.maps([(None, levels)])
    assert maps.std() > 0
    np.testing.assert_allclose(maps, np.asarray(model(levels[..., None]))[..., 0], atol=1e-5)


@pytest.mark.parametrize(
    ("precision", "fields"),
    [
        (Precision.MIXED_BFLOAT16, {"network": "notebook"}),
        (Precision.MIXED_FLOAT16, {"network": "notebook"}),
        (Precision.MIXED_BFLOAT16, {"network": "unet", **ON_ENCODER}),
    ],
)
def test_openvino_computes_in_float32_after_mixed_precision(
    precision: Precision, fields: dict[str, object], tmp_path: Path
) -> None:
    chosen = small(**fields)
    levels = np.random.default_rng(0).integers(0, 256, (5, 32, 32), np.uint8)
    folder = Model(str(tmp_path))
    reference = networks.create(chosen)
    keras.config.set_dtype_policy(precision.value)
    try:
        model = networks.create(chosen)
        model.set_weights(reference.get_weights())
        files = export.export(model, folder, levels)
    finally:
        keras.config.set_dtype_policy("float32")
    ((_, maps),) = OpenVino(folder, files, "float32").maps([(None, levels)])
    np.testing.assert_allclose(maps, np.asarray(reference(levels[..., None]))[..., 0], atol=1e-5)


def on_encoder(encoder: str, image_size: int = 64) -> keras.Model:
    """A small unet on an encoder with random weights."""
    keras.utils.set_random_seed(0)
    return networks.create(small("unet", depth=5, encoder=encoder, image_size=image_size))


@pytest.mark.parametrize("encoder", ["efficientnetlite0", "efficientnetv2b0"])
def test_openvino_output_on_an_encoder_equals_keras(encoder: str, tmp_path: Path) -> None:
    model = on_encoder(encoder)
    levels = np.random.default_rng(0).integers(0, 256, (5, 64, 64), np.uint8)
    folder = Model(str(tmp_path))
    files = export.export(model, folder, levels)
    expected = np.asarray(model(levels[..., None]))[..., 0]
    assert expected.std() > 0
    for engine in (OpenVino(folder, files, "float32"), TensorFlow(folder, files, "float32")):
        ((_, maps),) = engine.maps([(None, levels)])
        np.testing.assert_allclose(maps, expected, atol=1e-5)
    ((_, maps),) = OpenVino(folder, files, "int8").maps([(None, levels)])
    assert np.abs(maps - expected).mean() < 0.1


def test_openvino_joins_the_layers_of_a_unet_on_efficientnet_lite(tmp_path: Path) -> None:
    """Normalizations, sums and activations in the convolutions, padding without an operation of its own."""
    on_encoder("efficientnetlite0").export(str(tmp_path / "network.xml"), format="openvino", verbose=False)
    compiled = ov.Core().compile_model(tmp_path / "network.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kinds = Counter(op.get_rt_info()["layerType"] for op in compiled.get_runtime_model().get_ops())
    assert kinds["Convolution"] == 61
    assert kinds["Eltwise"] <= 1  # the normalization of the image
    assert not {"Pad", "Concatenation", "Tile", "MVN"} & kinds.keys()


def operations_in_int8(folder: Model, files: ModelFiles) -> list[ov.Node]:
    xml, weights = files.openvino("int8")
    graph = records.get(folder.network, xml), records.get(folder.weights, weights)
    return ov.Core().read_model(*graph).get_ordered_ops()


QUANTIZED = [*({"network": name} for name in networks.NETWORKS), {"network": "unet", **ON_ENCODER}]


@pytest.mark.parametrize("fields", QUANTIZED)
def test_the_head_is_not_quantized_in_int8(fields: dict[str, object], tmp_path: Path) -> None:
    """Calibrated on images of which most have no opacity, an int8 head gave no probability above 0.5."""
    folder = Model(str(tmp_path))
    levels = np.random.default_rng(0).integers(0, 256, (20, 32, 32), np.uint8)
    files = export.export(networks.create(small(**fields)), folder, levels)
    operations = operations_in_int8(folder, files)
    kinds = [operation.get_type_name() for operation in operations]
    head = len(kinds) - 1 - kinds[::-1].index("Convolution")
    assert kinds[:head].count("FakeQuantize") > 4
    head_input = operations[head].input_value(0).get_node().get_type_name()
    assert "FakeQuantize" not in [head_input, *kinds[head:]]


@pytest.mark.parametrize("fields", QUANTIZED)
def test_int8_keeps_what_few_calibration_images_have(fields: dict[str, object], tmp_path: Path) -> None:
    """With ranges that fit most images, the error on such an image is as large as the logits."""
    keras.utils.set_random_seed(0)
    generator, folder = np.random.default_rng(0), Model(str(tmp_path))
    levels = generator.integers(0, 16, (20, 32, 32), np.uint8)
    levels[-1] = generator.integers(0, 256, (32, 32), np.uint8)
    files = export.export(networks.create(small(**fields)), folder, levels)
    exact, int8 = (
        logit(maps)
        for name in ("float32", "int8")
        for _, maps in OpenVino(folder, files, name).maps([(None, levels[-1:])])
    )
    assert ((int8 - exact) ** 2).mean() ** 0.5 < 0.3 * exact.std()


def test_int8_weights_cannot_overflow_the_sums_of_a_cpu_without_vnni(tmp_path: Path) -> None:
    """Such a CPU adds two products of a weight and a value of 0..255 in 16 bits; not in depthwise layers."""
    folder = Model(str(tmp_path))
    levels = np.random.default_rng(0).integers(0, 256, (5, 64, 64), np.uint8)
    files = export.export(on_encoder("efficientnetlite0"), folder, levels)
    constants = [op for op in operations_in_int8(folder, files) if op.get_type_name() == "Constant"]
    weights = [op.data for op in constants if op.get_element_type() == ov.Type.i8 and op.data.ndim == 4]
    assert len(weights) > 40
    assert 2 * 255 * max(np.abs(each.astype(int)).max() for each in weights) < 2**15


@pytest.mark.parametrize(("name", "cells"), [(Network.NOTEBOOK, 4), (Network.UNET, 8)])
def test_the_head_has_the_documented_number_of_cells(name: Network, cells: int) -> None:
    model = networks.NETWORKS[name](32, 4, 1, 3)
    (head,) = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D) and layer.use_bias]
    assert head.output.shape == (None, cells, cells, 1)
    assert model.output.shape == (None, 32, 32, 1)


def test_the_head_on_an_encoder_has_a_quarter_of_the_cells() -> None:
    network = on_encoder("efficientnetlite0").layers[-1]
    (head,) = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D) and layer.use_bias]
    assert head.output.shape == (None, 16, 16, 1)
    assert network.output.shape == (None, 64, 64, 1)


def test_wrong_shapes_and_names_are_rejected() -> None:
    with pytest.raises(InputError, match="network is 'vgg'; it must be notebook or unet"):
        small("vgg")
    with pytest.raises(InputError, match="depth 1: a unet needs 2 or more"):
        networks.create(small("unet", depth=1, image_size=64))
    with pytest.raises(InputError, match=r"image_size 100 is not a multiple of 2\*\*depth = 8"):
        networks.create(small(image_size=100, depth=3))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(0, 100), st.booleans())
def test_losses_and_metric_equal_the_notebooks(batch: int, seed: int, empty: bool) -> None:
    rng = np.random.default_rng(seed)
    truth = tf.constant((rng.random((batch, 8, 8, 1)) > (1 if empty else 0.6)).astype(np.float32))
    predicted = tf.constant(rng.random((batch, 8, 8, 1)).astype(np.float32))
    for name in ("iou_loss", "iou_bce_loss", "mean_iou"):
        value = np.asarray(getattr(losses, name)(truth, predicted))
        np.testing.assert_allclose(value, getattr(notebook, name)(truth, predicted), rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(0, 100))
def test_image_loss_equals_the_notebooks_loss_of_each_image_alone(batch: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = (rng.random((batch, 8, 8, 1)) > 0.6).astype(np.float32)
    predicted = rng.random((batch, 8, 8, 1)).astype(np.float32)
    together = np.asarray(losses.image_iou_bce_loss(truth, predicted))
    alone = [losses.iou_bce_loss(truth[i : i + 1], predicted[i : i + 1])[0] for i in range(batch)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


@pytest.mark.parametrize("loss", losses.LOSSES.values())
def test_losses_do_not_overflow_in_half_precision(loss: Callable[..., object]) -> None:
    """The sum of 512 x 512 pixels exceeds the range of half precision."""
    truth = np.ones((2, 512, 512, 1), np.float16)
    values = np.asarray(loss(truth, truth))
    assert np.isfinite(values).all()
    assert abs(values).max() < 1e-2


def test_the_notebooks_metric_is_high_for_an_always_empty_mask() -> None:
    truth = np.zeros((10, 8, 8, 1), np.float32)
    truth[0, :4] = 1
    assert float(losses.mean_iou(truth, np.zeros_like(truth))) > 0.9
