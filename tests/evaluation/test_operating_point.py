import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lobar.core.boxes import Box
from lobar.data.index import Exam
from lobar.evaluation import operating_point
from lobar.evaluation.bootstrap import Interval, interval
from lobar.evaluation.operating_point import score_map
from lobar.inference import postprocess
from lobar.inference.release import NOTEBOOK, OperatingPoint


def exam(i: int, boxes: tuple[Box, ...] = (), group: str | None = None) -> Exam:
    return Exam(
        f"p{i}",
        f"file:///p{i}.dcm",
        "",
        0,
        128,
        128,
        "PA",
        boxes,
        int(bool(boxes)),
        group or f"g{i}",
        "valid",
    )


def hill(x: int, y: int, peak: float) -> np.ndarray:
    """A map of 64 x 64 with a square of `peak` whose upper left corner is (x, y), and a faint surround."""
    probabilities = np.full((64, 64), 0.02, np.float32)
    probabilities[max(0, y - 4) : y + 20, max(0, x - 4) : x + 20] = peak / 2
    probabilities[y : y + 16, x : x + 16] = peak
    return probabilities


def images(count: int) -> list[operating_point.Scored]:
    """Positives with peaks of 0.4, which the notebook's threshold misses; faint false ones on negatives."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        x, y = (int(value) for value in rng.integers(5, 40, 2))
        truth = (Box(2 * x, 2 * y, 32, 32),) if i % 3 == 0 else ()
        found.append(score_map(exam(i, truth), hill(x, y, 0.45 if truth else 0.25)))
    return found


def test_tuning_finds_boxes_that_the_notebooks_point_misses() -> None:
    scored = images(60)
    exams = [image.exam for image in scored]
    tuned = operating_point.tune(scored)
    assert 0.25 <= tuned.point.threshold < 0.45
    fair = interval(exams, tuned.scores)
    theirs = interval(exams, operating_point.scores(exams, lambda i: scored[i].boxes(NOTEBOOK)))
    assert fair.metric is not None
    assert fair.metric > 0.8
    assert theirs.metric == 0


def test_without_positives_the_notebooks_point_is_kept() -> None:
    scored = [score_map(exam(i), hill(10, 10, 0.1)) for i in range(8)]
    tuned = operating_point.tune(scored)
    assert tuned.point == NOTEBOOK
    assert interval([image.exam for image in scored], tuned.scores) == Interval(None, None, None, 0)


@pytest.mark.parametrize("positives", [0, 1, 4])
def test_a_network_that_never_hits_gets_a_point_without_boxes(positives: int) -> None:
    """All points are equally good then; the notebook's puts a box on every image."""
    truth = (Box(100, 100, 20, 20),)
    scored = [score_map(exam(i, truth if i < positives else ()), hill(5, 5, 0.9)) for i in range(20)]
    assert all(image.boxes(NOTEBOOK) for image in scored)
    tuned = operating_point.tune(scored)
    assert not any(image.boxes(tuned.point) for image in scored)
    assert not any(image.boxes(point) for image, point in zip(scored, tuned.fair_points, strict=True))
    assert operating_point.tune(scored) == tuned


def test_of_equally_good_points_the_one_with_the_fewest_boxes_is_chosen() -> None:
    # a second, smaller box on an image that is missed anyway
    missed = hill(5, 5, 0.9)
    missed[50:54, 50:54] = 0.9
    scored = [score_map(exam(i, (Box(20, 20, 32, 32),)), hill(10, 10, 0.9)) for i in range(20)]
    scored += [score_map(exam(20, (Box(60, 10, 30, 30),)), missed)]
    tuned = operating_point.tune(scored)
    assert len(scored[-1].boxes(tuned.point)) == 1
    assert all(image.boxes(tuned.point) for image in scored[:-1])


def test_an_images_score_is_not_tuned_on_itself() -> None:
    # each group alone is perfect at its own threshold; the fair scores are at the other groups' thresholds
    scored = images(30)
    odd = [
        score_map(exam(100 + i, (Box(20, 20, 32, 32),), "one patient"), hill(10, 10, 0.15)) for i in range(3)
    ]
    tuned = operating_point.tune([*scored, *odd])
    assert tuned.scores[-3:] == [0.0, 0.0, 0.0]


def test_the_interval_is_over_patients_not_images() -> None:
    exams = [exam(i, (Box(0, 0, 9, 9),), f"patient {i // 10}") for i in range(200)]
    values = [float((i // 10) % 2) for i in range(200)]
    ungrouped = [exam(i, (Box(0, 0, 9, 9),)) for i in range(200)]
    over_patients, over_images = interval(exams, values), interval(ungrouped, values)
    assert over_patients.metric == over_images.metric == 0.5
    assert over_patients.high - over_patients.low > 2 * (over_images.high - over_images.low)  # type: ignore[operator]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=20))
def test_the_interval_contains_the_metric_and_is_within_0_and_1(values: list[float | None]) -> None:
    found = interval([exam(i) for i in range(len(values))], values)
    assert found.counted == sum(value is not None for value in values)
    if found.counted:
        assert found.metric is not None
        assert 0 <= found.low <= found.metric + 1e-9  # type: ignore[operator]
        assert found.metric - 1e-9 <= found.high <= 1 + 1e-9  # type: ignore[operator]


@pytest.mark.parametrize("point", [NOTEBOOK, OperatingPoint(0.3, 0.01, 0.9, 0.4)])
def test_tuning_scores_boxes_as_prediction_makes_them(point: OperatingPoint) -> None:
    probabilities = hill(20, 30, 0.8)
    assert score_map(exam(0), probabilities).boxes(point) == postprocess.detect(
        probabilities, 128, 128, point
    )
