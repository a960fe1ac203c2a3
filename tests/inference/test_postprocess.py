from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bench import notebook
from lobar.core.boxes import Box
from lobar.inference.postprocess import Enlarged, components, detect, enlarge, image_score
from lobar.inference.release import NOTEBOOK, OperatingPoint
from lobar.inference.rows import parse_prediction_string


def coarse_map(seed: int, grid: int = 16, size: int = 256) -> np.ndarray:
    cells = np.random.default_rng(seed).beta(0.4, 0.8, (grid, grid)).astype(np.float32)
    return cells.repeat(size // grid, 0).repeat(size // grid, 1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_boxes_order_and_confidences_equal_the_notebooks(seed: int) -> None:
    probabilities = coarse_map(seed)
    expected = parse_prediction_string(notebook.prediction_string(probabilities[..., None]))
    found = detect(probabilities, 1024, 1024, NOTEBOOK)
    assert [(b.x, b.y, b.width, b.height) for b in found] == [(b.x, b.y, b.width, b.height) for b in expected]
    assert [b.confidence for b in found] == pytest.approx([b.confidence for b in expected], abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from([1, 4, 16, 64]), st.integers(1, 300), st.integers(1, 300),
    st.floats(0.05, 0.95), st.booleans(),
)  # fmt: skip
@example(seed=0, grid=4, rows=2, columns=1, threshold=0.75, blank=True)  # reads no line that exceeds it
def test_a_map_with_equal_lines_kept_once_is_the_whole_map(
    seed: int, grid: int, rows: int, columns: int, threshold: float, blank: bool
) -> None:
    """Against OpenCV's enlargement of every pixel, at any size, of maps with and without equal lines."""
    probabilities = coarse_map(seed, grid, 64)
    if blank:  # wide margins, as around an opacity
        probabilities[:20] = probabilities[:, 40:] = 0
    whole = cv2.resize(probabilities, (columns, rows), interpolation=cv2.INTER_LINEAR)
    enlarged = enlarge(probabilities, rows, columns, -1)
    heights, widths = np.diff(enlarged.tops), np.diff(enlarged.lefts)
    np.testing.assert_allclose(enlarged.values.repeat(heights, 0).repeat(widths, 1), whole, atol=1e-5)
    assume(np.abs(whole - threshold).min() > 1e-5)
    expected = components(Enlarged(whole, np.arange(rows + 1), np.arange(columns + 1)), threshold)
    found = components(enlarge(probabilities, rows, columns, threshold), threshold)
    assert [replace(box, confidence=0) for box in found] == [replace(box, confidence=0) for box in expected]
    assert [box.confidence for box in found] == pytest.approx([box.confidence for box in expected], abs=1e-5)


def test_a_coarse_head_leaves_few_rows() -> None:
    assert enlarge(coarse_map(0), 1024, 1024, 0).values.shape == (76, 76)


def test_what_stays_below_the_threshold_is_not_enlarged() -> None:
    probabilities = np.zeros((64, 64), np.float32)
    assert enlarge(probabilities, 1024, 1024, 0.5).values.size == 0
    probabilities[20:24, 30:32] = 0.6
    enlarged = enlarge(probabilities, 1024, 1024, 0.5)
    assert enlarged.values.shape < (100, 70)
    assert (enlarged.tops[0], enlarged.tops[-1]) == (312, 392)


def test_boxes_are_in_the_images_own_pixels() -> None:
    probabilities = np.zeros((64, 64), np.float32)
    probabilities[16:32, 32:48] = 1
    (box,) = components(enlarge(probabilities, 640, 320, 0.5), 0.5)
    assert (box.x, box.y, box.width, box.height) == (160, 160, 80, 160)


def test_diagonal_neighbours_are_one_region() -> None:
    probabilities = np.zeros((4, 4), np.float32)
    probabilities[0, 0] = probabilities[1, 1] = 1
    assert components(enlarge(probabilities, 4, 4, 0.25), 0.5) == [Box(0, 0, 2, 2, 0.5)]


def test_a_region_in_the_hole_of_another_has_its_own_box() -> None:
    probabilities = np.ones((9, 9), np.float32)
    probabilities[1:8, 1:8] = 0
    probabilities[3:6, 3:6] = 1
    probabilities[4, 4] = 0
    boxes = components(enlarge(probabilities, 9, 9, 0.5), 0.5)
    assert [(box.x, box.y, box.width, box.height) for box in boxes] == [(0, 0, 9, 9), (3, 3, 3, 3)]


def test_each_part_of_an_operating_point_has_its_effect() -> None:
    probabilities = np.zeros((100, 100), np.float32)
    probabilities[10:50, 10:50], probabilities[80:84, 80:84] = 0.9, 0.6
    assert len(detect(probabilities, 100, 100, OperatingPoint(0.5, 0, 1, 0))) == 2
    assert len(detect(probabilities, 100, 100, OperatingPoint(0.7, 0, 1, 0))) == 1
    assert len(detect(probabilities, 100, 100, OperatingPoint(0.5, 0.01, 1, 0))) == 1
    assert detect(probabilities, 100, 100, OperatingPoint(0.5, 0.01, 0.5, 0))[0].area == 20 * 20
    assert detect(probabilities, 100, 100, OperatingPoint(0.5, 0, 1, 0.95)) == []


def test_the_image_score_is_the_mean_of_the_highest_pixels() -> None:
    probabilities = np.zeros((100, 100), np.float32)
    assert image_score(probabilities) == 0
    probabilities[:10, :10] = 1
    assert image_score(probabilities) == pytest.approx(0.5)
    probabilities[:20, :10] = 1
    assert image_score(probabilities) == 1
