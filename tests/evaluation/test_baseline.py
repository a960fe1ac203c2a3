"""The detector without a network: what it returns, and that the demo data are too hard for it."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from lobar.core.boxes import Box
from lobar.evaluation.baseline import detect
from lobar.evaluation.rsna_metric import image_score, metric
from lobar.synthetic.phantoms import Options, draw_film, list_exams

SIZE = 256
Films = list[tuple[np.ndarray, list[Box]]]


@pytest.fixture(scope="module")
def films() -> Films:
    drawn = [draw_film(exam) for exam in list_exams("train", 150, Options(150, 0, 0.36, seed=0))]
    return [(cv2.resize(film, (SIZE, SIZE), interpolation=cv2.INTER_AREA), boxes) for film, boxes in drawn]


def test_demo_data_are_too_hard_for_thresholds_but_not_beyond_them(films: Films) -> None:
    scale = 1024 / SIZE
    scores = [image_score(truth, [box.scaled(scale, scale) for box in detect(film)]) for film, truth in films]
    score = metric(scores)
    assert score is not None
    assert 0.03 < score <= 0.10


def test_boxes_lie_inside_and_come_surest_first(films: Films) -> None:
    found = [detect(film) for film, _ in films]
    assert sum(map(len, found)) > 50
    for boxes in found:
        assert all(box.inside(SIZE, SIZE) and 0 < box.confidence < 1 for box in boxes)
        assert boxes == sorted(boxes, key=lambda box: -box.confidence)


def test_boxes_are_in_the_pixels_of_the_image_given(films: Films) -> None:
    film = next(film for film, _ in films if detect(film))
    twice = film.repeat(2, axis=0).repeat(2, axis=1)
    for box, same in zip(detect(twice), detect(film), strict=True):
        assert replace(box, confidence=1) == replace(same.scaled(2, 2), confidence=1)


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_an_even_image_has_no_box(grey: int) -> None:
    assert detect(np.full((128, 128), grey, np.uint8)) == []
