import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import notebook
from lobar import losses, network
from lobar.dicom import Sampling
from lobar.errors import InputError


def layer_list(model: keras.Model) -> list[tuple[str, tuple[int, ...]]]:
    return [(type(layer).__name__, tuple(layer.output.shape)) for layer in model.layers]


def test_the_notebooks_layers_and_parameters() -> None:
    ours, theirs = network.notebook(256, 32, 2, 4), notebook.create_network(256, 32, 2, 4)
    assert ours.count_params() == 12_727_969
    assert layer_list(ours) == layer_list(theirs)


def test_the_notebooks_weights_give_the_notebooks_output() -> None:
    ours, theirs = network.notebook(64, 4, 2, 3), notebook.create_network(64, 4, 2, 3)
    ours.set_weights(theirs.get_weights())
    images = np.random.default_rng(0).random((3, 64, 64, 1)).astype(np.float32)
    np.testing.assert_allclose(ours(images), theirs(images), atol=1e-6)


@pytest.mark.parametrize("sampling", Sampling)
def test_integers_are_scaled_inside(sampling: Sampling) -> None:
    model = network.create("notebook", sampling, 32, 4, 1, 2)
    levels = np.random.default_rng(0).integers(0, sampling.white + 1, (2, 32, 32, 1)).astype(sampling.dtype)
    np.testing.assert_allclose(model(levels), model.layers[-1](levels / sampling.white), atol=1e-6)


def test_wrong_shapes_and_names_are_refused() -> None:
    with pytest.raises(InputError, match="--network unet: there is none of that name; choose notebook"):
        network.create("unet", Sampling.AREA, 64, 4, 1, 2)
    with pytest.raises(InputError, match=r"--image-size 100 is no multiple of 2\*\*depth = 8"):
        network.create("notebook", Sampling.AREA, 100, 4, 1, 3)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(0, 100), st.booleans())
def test_losses_and_metric_equal_the_notebooks(batch: int, seed: int, empty: bool) -> None:
    rng = np.random.default_rng(seed)
    truth = tf.constant((rng.random((batch, 8, 8, 1)) > (1 if empty else 0.6)).astype(np.float32))
    predicted = tf.constant(rng.random((batch, 8, 8, 1)).astype(np.float32))
    for name in ("iou_loss", "iou_bce_loss", "mean_iou"):
        found = np.asarray(getattr(losses, name)(truth, predicted))
        np.testing.assert_allclose(found, getattr(notebook, name)(truth, predicted), rtol=1e-6)


def test_an_empty_mask_scores_well_by_the_notebooks_metric() -> None:
    truth = np.zeros((10, 8, 8, 1), np.float32)
    truth[0, :4] = 1
    assert float(losses.mean_iou(truth, np.zeros_like(truth))) > 0.9
