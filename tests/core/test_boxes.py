import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from skimage.transform import resize

from lobar.core.boxes import Box, draw_mask, iou, shrink

boxes = st.builds(Box, st.integers(0, 80), st.integers(0, 80), st.integers(1, 60), st.integers(1, 60))


def cells(box: Box) -> set[tuple[int, int]]:
    return {(x, y) for x in range(box.x, box.x + box.width) for y in range(box.y, box.y + box.height)}


@given(boxes, boxes)
def test_iou_is_intersection_over_union_of_pixels(a: Box, b: Box) -> None:
    assert iou(a, b) == len(cells(a) & cells(b)) / len(cells(a) | cells(b))


@given(boxes, st.floats(0.05, 1))
def test_shrink_stays_inside_and_keeps_the_centre(box: Box, factor: float) -> None:
    small = shrink(box, factor)
    assert cells(small) <= cells(box)
    assert small.width == max(1, round(box.width * factor))
    assert abs((2 * small.x + small.width) - (2 * box.x + box.width)) <= 1
    assert small.confidence == box.confidence


@given(boxes)
def test_shrink_by_one_changes_nothing(box: Box) -> None:
    assert shrink(box, 1.0) == box


def test_inside_is_exact_at_the_border() -> None:
    assert Box(0, 0, 10, 20).inside(20, 10)
    assert not Box(1, 0, 10, 20).inside(20, 10)
    assert not Box(0, 1, 10, 20).inside(20, 10)
    assert not Box(-1, 0, 5, 5).inside(20, 10)


def test_scaled_covers_the_same_area_in_a_larger_image() -> None:
    assert Box(1, 2, 3, 4, 0.5).scaled(8, 4) == Box(8, 8, 24, 16, 0.5)


@given(
    st.lists(boxes, max_size=3),
    st.sampled_from([(128, 128, 32), (130, 140, 32), (64, 64, 64), (90, 100, 48)]),
)
def test_masks_equal_the_notebooks(drawn: list[Box], shape: tuple[int, int, int]) -> None:
    rows, columns, size = shape
    full = np.zeros((rows, columns))
    for box in drawn:
        full[box.y : box.y + box.height, box.x : box.x + box.width] = 1
    # both use float32 weights; samples of exactly one half may be rounded differently
    expected = resize(full, (size, size), mode="reflect", anti_aliasing=False)
    mask = draw_mask(drawn, rows, columns, size)
    clear = np.abs(expected - 0.5) > 1e-6
    assert np.array_equal(mask[clear], (expected > 0.5)[clear])
