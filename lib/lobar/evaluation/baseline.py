"""Baseline detector without a network: thresholds on texture.

It also measures how hard the images of `lobar.synthetic` are: data on which it scored well would be too easy.
Opacities have fine grain without a main direction; lungs are crossed by ribs and vessels, which have one. The
detector multiplies the energy of the fine grain by its lack of direction and by its skewness (bright grains),
and keeps large, compact regions inside the lungs. Brightness above the background, the difference between the
two sides and energy alone scored lower.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.feature import structure_tensor, structure_tensor_eigenvalues
from skimage.filters import gaussian
from skimage.measure import label, regionprops
from skimage.morphology import opening

from lobar.core.boxes import Box

GRID = 128  # the image is reduced to GRID x GRID cells
# the two rectangles that hold the lungs
LUNGS = np.zeros((GRID, GRID), bool)
LUNGS[17:102, 18:59] = LUNGS[17:102, 69:111] = True
# rounded from the best of 2,300 random settings on 600 synthetic images; areas in cells
SKEW_WEIGHT = 0.4
THRESHOLD = 0.019
MIN_AREA = 480
MIN_EXTENT = 0.4
MIN_MEAN = 0.021
MAX_BOXES = 2


def detect(pixels: NDArray[np.uint8]) -> list[Box]:
    """Boxes of suspected opacities in a square image, in its own pixels, the most confident first.

    `pixels` is (S, S) uint8, MONOCHROME2, for any S; confidences are in 0..1.
    """
    scores = _opacity_scores(pixels)
    scale = pixels.shape[0] / GRID
    mask = opening((scores > THRESHOLD) & LUNGS, np.ones((3, 3)))
    boxes = []
    for region in regionprops(label(mask), scores):
        mean = float(region.intensity_mean)
        if region.area >= MIN_AREA and region.extent >= MIN_EXTENT and mean >= MIN_MEAN:
            top, left, bottom, right = region.bbox
            box = Box(left, top, right - left, bottom - top, mean / (mean + MIN_MEAN))
            boxes.append(box.scaled(scale, scale))
    return sorted(boxes, key=lambda box: -box.confidence)[:MAX_BOXES]


def _opacity_scores(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Score of each cell, (GRID, GRID), at least 0: the higher, the more like an opacity."""
    small = cv2.resize(pixels, (GRID, GRID), interpolation=cv2.INTER_AREA).astype(np.float32)
    low, high = np.percentile(small, (2, 98))
    level = (small - low) / max(high - low, 1)
    grain = gaussian(level, 0.5, mode="mirror") - gaussian(level, 1.5, mode="mirror")
    power, cubed = (gaussian(grain**exponent, 4, mode="mirror") for exponent in (2, 3))
    skewness = cubed / (power**1.5 + 1e-6)
    # 0 where edges have no main direction, near 1 where all run the same way
    larger, smaller = structure_tensor_eigenvalues(structure_tensor(level, sigma=4, mode="mirror"))
    coherence = (larger - smaller) / (larger + smaller + 1e-6)
    return np.sqrt(power) * (1 - coherence) * np.clip(1 + SKEW_WEIGHT * skewness, 0, None)
