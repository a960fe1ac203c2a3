"""The baseline detector: the boxes that it returns, and its low score on the synthetic images."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from lobar.core.boxes import Box
from lobar.evaluation.baseline import detect
from lobar.evaluation.rsna_metric import image_score, metric
from lobar.synthetic.phantoms import Options, draw_image, list_exams

SIZE = 256
Images = list[tuple[np.ndarray, list[Box]]]


@pytest.fixture(scope="module")
def images() -> Images:
    drawn = [draw_image(exam) for exam in list_exams("train", 150, Options(150, 0, 0.36, seed=0))]
    return [(cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA), boxes) for image, boxes in drawn]


def test_baseline_scores_low_but_not_zero_on_synthetic_images(images: Images) -> None:
    scale = 1024 / SIZE
    scores = [
        image_score(truth, [box.scaled(scale, scale) for box in detect(image)]) for image, truth in images
    ]
    score = metric(scores)
    assert score is not None
    assert 0.03 < score <= 0.10


def test_boxes_are_inside_the_image_and_sorted_by_confidence(images: Images) -> None:
    boxes_per_image = [detect(image) for image, _ in images]
    assert sum(map(len, boxes_per_image)) > 50
    for boxes in boxes_per_image:
        assert all(box.inside(SIZE, SIZE) and 0 < box.confidence < 1 for box in boxes)
        assert boxes == sorted(boxes, key=lambda box: -box.confidence)


def test_boxes_are_in_pixels_of_the_input_image(images: Images) -> None:
    image = next(image for image, _ in images if detect(image))
    enlarged = image.repeat(2, axis=0).repeat(2, axis=1)
    for large, small in zip(detect(enlarged), detect(image), strict=True):
        assert replace(large, confidence=1) == replace(small.scaled(2, 2), confidence=1)


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_uniform_image_has_no_box(grey: int) -> None:
    assert detect(np.full((128, 128), grey, np.uint8)) == []
