import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobar.core.boxes import Box
from lobar.data.index import Exam
from lobar.evaluation import analysis, gallery, operating_point
from lobar.evaluation.analysis import calibration, froc, roc
from tests.evaluation.test_operating_point import exam, hill

CALLS = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9]), st.booleans()), min_size=1)


@given(CALLS)
def test_the_area_under_the_roc_is_the_share_of_pairs_in_order(calls: list[tuple[float, bool]]) -> None:
    scores, positive = np.array([score for score, _ in calls]), np.array([truth for _, truth in calls])
    found = roc(scores, positive)
    pairs = list(itertools.product(scores[positive], scores[~positive]))
    if not pairs:
        assert found is None
        return
    assert found is not None
    assert found.area == pytest.approx(np.mean([(a > b) + (a == b) / 2 for a, b in pairs]))
    assert (found.x[0], found.y[0], found.x[-1], found.y[-1]) == (0, 0, 1, 1)


def test_the_froc_counts_each_truth_box_once_and_false_boxes_by_image() -> None:
    truth = [[Box(0, 0, 20, 20)], []]
    exact, near, false = Box(0, 0, 20, 20, 0.9), Box(1, 0, 20, 20, 0.8), Box(50, 50, 9, 9, 0.95)
    found = froc(truth, [[near, exact], [false]])
    assert found is not None
    assert list(zip(found.x, found.y, strict=True)) == [(0, 0), (0.5, 0), (0.5, 1), (1, 1)]
    assert froc([[], []], [[], [false]]) is None


def test_a_score_equal_to_the_share_of_positives_is_on_the_diagonal() -> None:
    scores = np.repeat(np.arange(10) / 10, 10)
    positive = np.tile(np.arange(10), 10) < np.repeat(np.arange(10), 10)
    found = calibration(scores, positive)
    assert found.x == pytest.approx(found.y)
    assert len(found.x) == 10
    assert calibration(scores[:1], positive[:1]).x == [0]


def test_each_kind_of_image_has_its_own_figures() -> None:
    large = tuple(Box(x, 20, 32, 32) for x in (20, 70))
    exams = [exam(i, (Box(20, 20, 32, 32),) if i < 3 else large if i < 6 else ()) for i in range(12)]
    images = [operating_point.score_map(each, hill(10, 10, 0.9 if each.boxes else 0.01)) for each in exams]
    tuned = operating_point.tune(images)
    found = [[] if i == 0 else list(each.boxes) for i, each in enumerate(exams)]
    subsets = analysis.analyse(images, tuned, found).subsets
    assert subsets["all"].images == subsets["view PA"].images == 12
    assert subsets["all"].sensitivity == pytest.approx(5 / 6)
    assert subsets["all"].specificity == 1
    assert subsets["1 box"].sensitivity == pytest.approx(2 / 3)
    assert subsets["2 boxes"].sensitivity == 1
    assert subsets["2 boxes"].specificity is None
    assert subsets["3 boxes or more"].images == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.floats(0, 1)), max_size=60))
def test_no_image_is_shown_twice_or_under_a_wrong_kind(calls: list[tuple[int, int, float]]) -> None:
    exams: list[Exam] = [exam(i, (Box(0, 0, 9, 9),) * truth) for i, (truth, _, _) in enumerate(calls)]
    found = [[Box(0, 0, 9, 9, score)] * count for _, count, score in calls]
    scores = [score for _, _, score in calls]
    chosen = gallery.choose(exams, found, scores)
    shown = [i for kind in chosen.values() for i in kind]
    assert len(shown) == len(set(shown))
    for kind, places in chosen.items():
        assert len(places) <= gallery.OF_EACH_KIND
        for i in places:
            assert (bool(exams[i].boxes), bool(found[i])) == (kind != "false", kind != "missed")
    ordered = [scores[i] for i in (*chosen["best"], *chosen["typical"], *chosen["worst"][::-1])]
    assert ordered == sorted(ordered, reverse=True)
    judged = sum(bool(truth and count) for truth, count, _ in calls)
    assert len(ordered) == min(judged, 3 * gallery.OF_EACH_KIND)
