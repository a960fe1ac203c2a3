import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobar.core.boxes import Box, iou
from lobar.evaluation.rsna_metric import THRESHOLDS, image_score, metric

TRUTH = Box(100, 100, 100, 100)


def test_perfect_boxes_score_one() -> None:
    assert image_score([TRUTH, Box(400, 100, 50, 50)], [Box(400, 100, 50, 50), TRUTH]) == 1


def test_an_image_without_boxes_counts_only_with_a_prediction() -> None:
    assert image_score([], []) is None
    assert image_score([], [TRUTH]) == 0
    assert image_score([TRUTH], []) == 0


def test_an_overlap_equal_to_a_threshold_is_not_a_hit() -> None:
    half = Box(100, 100, 100, 50)
    assert iou(TRUTH, half) == 0.5
    assert image_score([TRUTH], [half]) == 2 / 8  # only 0.40 and 0.45


def test_a_truth_box_is_hit_once() -> None:
    assert image_score([TRUTH], [TRUTH, TRUTH]) == 0.5


def test_the_prediction_of_higher_confidence_is_matched_first() -> None:
    near, exact = Box(100, 100, 100, 80, 0.9), Box(100, 100, 100, 100, 0.8)
    # the first one overlaps by 0.8 and hits at every threshold; the exact one is then a false positive
    assert image_score([TRUTH], [exact, near]) == 0.5


def test_one_missed_and_one_false_box() -> None:
    assert image_score([TRUTH, Box(400, 400, 60, 60)], [TRUTH, Box(700, 700, 60, 60)]) == pytest.approx(1 / 3)


def test_metric_leaves_out_images_without_boxes() -> None:
    assert metric([None, 1.0, None, 0.0]) == 0.5
    assert metric([None]) is None


small = st.builds(
    Box, st.integers(0, 6), st.integers(0, 6), st.integers(1, 6), st.integers(1, 6),
    st.sampled_from([0.2, 0.5, 0.9]),
)  # fmt: skip


@given(st.lists(small, min_size=1, max_size=3), st.lists(small, min_size=1, max_size=3))
def test_no_matching_finds_more_hits_than_the_best_assignment(truth: list[Box], found: list[Box]) -> None:
    best = []
    for threshold in THRESHOLDS:
        short, long = sorted((truth, found), key=len)
        hits = max(
            sum(iou(a, b) > threshold for a, b in zip(short, order, strict=False))
            for order in itertools.permutations(long)
        )
        best.append(hits / (len(truth) + len(found) - hits))
    score = image_score(truth, found)
    assert score is not None
    assert 0 <= score <= sum(best) / len(best) + 1e-12
