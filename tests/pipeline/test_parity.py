"""The notebook's system with one set of weights, compared with the port of the notebook in `bench`."""

import gzip
from pathlib import Path

import keras
import numpy as np
import pytest

from bench import notebook
from jobs.__main__ import main
from lobar.core.boxes import Box, iou
from lobar.data.labels import read_labels
from lobar.imaging import dicom
from lobar.imaging.sampling import Sampling
from lobar.inference import postprocess
from lobar.inference.engines import OpenVino
from lobar.inference.release import NOTEBOOK
from lobar.inference.rows import parse_prediction_string, prediction_string
from lobar.storage.layout import Model
from lobar.training import export, networks, recipe

CALIBRATION = np.random.default_rng(0).integers(0, 1021, (4, 256, 256), np.uint16)


@pytest.fixture(scope="module")
def weights() -> keras.Model:
    """The notebook's network with random weights and a bias at which about a third of a map is opacity."""
    keras.utils.set_random_seed(5)
    chosen = recipe.load("notebook", "channels=4")
    assert (chosen.image_size, chosen.sampling, chosen.blocks, chosen.depth) == (256, Sampling.NOTEBOOK, 2, 4)
    model = networks.create(chosen)
    core = model.layers[-1]
    for layer in core.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # the initial statistics, which are not trained here, would make all maps equal
            layer.moving_variance.assign(0.05 * np.ones(layer.moving_variance.shape))
    head = next(layer for layer in core.layers if layer.name.startswith("conv2d") and layer.use_bias)
    logits = keras.Model(core.input, head.input)(np.random.default_rng(0).random((4, 256, 256, 1)))
    values = np.asarray(logits) @ np.asarray(head.kernel)[0, 0]
    head.bias.assign([-np.quantile(values, 0.65)])
    return model


@pytest.fixture
def engine(weights: keras.Model, tmp_path: Path) -> OpenVino:
    model = Model(str(tmp_path))
    return OpenVino(model, export.export(weights, model, CALIBRATION), "float32")


@pytest.fixture(params=["synthetic", "real"])
def images(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    """DICOMs of 1024 x 1024."""
    if request.param == "real":
        folder = request.getfixturevalue("real_data") / "rsna_sample/stage_2_train_images"
    else:
        assert main(["demo-data", f"--out={tmp_path}", "--train=1", "--test=6"]) == 0
        folder = tmp_path / "test_images"
    return sorted(folder.glob("*.dcm"))


def boxes_of(engine: OpenVino, levels: np.ndarray) -> list[list[Box]]:
    ((_, maps),) = engine.maps([(None, levels)])
    return [
        parse_prediction_string(prediction_string(postprocess.detect(m, 1024, 1024, NOTEBOOK))) for m in maps
    ]


def corners(box: Box) -> tuple[int, int, int, int]:
    return box.x, box.y, box.width, box.height


def test_labels_equal_the_notebooks_dictionary(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(
        "patientId,x,y,width,height,Target\na,264.0,152.0,213.0,379.0,1\nb,,,,,0\na,562.7,152.0,256.0,453.0,1\n"
    )
    check_labels(table)


def test_all_real_labels_equal_the_notebooks_dictionary(real_data: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_bytes(gzip.decompress((real_data / "rsna_tables/stage_2_train_labels.csv.gz").read_bytes()))
    assert check_labels(table) == (26_684, 6_012, 9_555)


def check_labels(table: Path) -> tuple[int, int, int]:
    """Compare both readers of label tables; returns the numbers of patients, positives and boxes."""
    truth = read_labels(table.read_bytes(), table.name)
    positive = {patient: [list(corners(box)) for box in boxes] for patient, boxes in truth.items() if boxes}
    assert positive == notebook.read_locations(table)
    assert not truth.rejected
    return len(truth), len(positive), sum(map(len, positive.values()))


def test_boxes_on_the_same_decoded_pixels_equal_the_notebooks(
    weights: keras.Model, engine: OpenVino, images: list[Path]
) -> None:
    expected_rows = notebook.predict(weights.layers[-1], images)
    detected = boxes_of(
        engine, np.stack([dicom.notebook_sampling(notebook.decode(path), 256) for path in images])
    )
    assert sum(map(len, detected)) > len(images) / 2
    for path, boxes in zip(images, detected, strict=True):
        expected = parse_prediction_string(expected_rows[path.stem])
        assert [corners(box) for box in boxes] == [corners(box) for box in expected]
        assert [b.confidence for b in boxes] == pytest.approx([b.confidence for b in expected], abs=1e-5)


def test_boxes_with_lobars_jpeg_decoder_nearly_equal_the_notebooks(
    weights: keras.Model, engine: OpenVino, images: list[Path]
) -> None:
    expected_rows = notebook.predict(weights.layers[-1], images)
    levels = [dicom.network_input(path.read_bytes(), 256, Sampling.NOTEBOOK)[0] for path in images]
    for path, boxes in zip(images, boxes_of(engine, np.stack(levels)), strict=True):
        expected = parse_prediction_string(expected_rows[path.stem])
        assert len(boxes) == len(expected)
        for box, other in zip(boxes, expected, strict=True):
            assert iou(box, other) >= 0.98
            assert box.confidence == pytest.approx(other.confidence, abs=1e-3)
