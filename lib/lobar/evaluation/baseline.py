"""A detector without a network: what thresholds on brightness and texture find on the demo data.

It is the yardstick for `phantoms`: data on which it scored well would be too easy to prove anything.
Opacities are grainy in all directions, lungs with their ribs and vessels are not. So it takes the energy of
fine grain, weighs it with how little direction and how many bright grains it has, and keeps what is large
and full enough inside the lungs. Brightness over the background, the difference of the two sides and energy
alone were tried too and found less.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from lobar.core.boxes import Box

Map = NDArray[np.float32]
GRID = 128
# parts of the film where lungs lie: left, top, right, bottom in cells of the grid
FIELDS = ((18, 17, 59, 102), (69, 17, 111, 102))
# rounded from the best of 2,300 random choices on 600 demo images; areas in cells of the grid
SKEW = 0.4
THRESHOLD = 0.019
SMALLEST = 480
FILL = 0.4
CERTAIN = 0.021
MOST = 2


def detect(pixels: NDArray[np.uint8]) -> list[Box]:
    """Boxes of suspected opacities in a square grey image, in its own pixels, surest first.

    `pixels` is (S, S) uint8, MONOCHROME2, of any S (it is brought to GRID first); confidences are in 0..1.
    """
    suspicion = _suspicion(pixels)
    scale = pixels.shape[0] / GRID
    found = [box for field in FIELDS for box in _boxes(suspicion, field, scale)]
    return sorted(found, key=lambda box: -box.confidence)[:MOST]


def _suspicion(pixels: NDArray[np.uint8]) -> Map:
    """How likely each cell of the grid belongs to an opacity: 0 or any number above."""
    small = cv2.resize(pixels, (GRID, GRID), interpolation=cv2.INTER_AREA).astype(np.float32)
    low, high = np.percentile(small, (2, 98))
    level = ((small - low) / max(high - low, 1)).astype(np.float32)
    grain = _blur(level, 0.5) - _blur(level, 1.5)
    power = _blur(grain * grain, 4)
    # the structure tensor: near 1 where all edges run the same way
    across, down = cv2.Sobel(level, cv2.CV_32F, 1, 0), cv2.Sobel(level, cv2.CV_32F, 0, 1)
    xx, xy, yy = (_blur(product, 4) for product in (across * across, across * down, down * down))
    directed = np.sqrt((xx - yy) ** 2 + 4 * xy * xy) / (xx + yy + 1e-6)
    skew = _blur(grain**3, 4) / (power**1.5 + 1e-6)
    return np.asarray(np.sqrt(power) * (1 - directed) * np.clip(1 + SKEW * skew, 0, None), np.float32)


def _boxes(suspicion: Map, field: tuple[int, int, int, int], scale: float) -> list[Box]:
    left, top, right, bottom = field
    part = suspicion[top:bottom, left:right]
    mask = cv2.morphologyEx((part > THRESHOLD).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    found = []
    for label in range(1, count):
        x, y, width, height, area = (int(value) for value in stats[label])
        mean = float(part[labels == label].mean())
        if area >= SMALLEST and area >= FILL * width * height and mean >= CERTAIN:
            found.append(Box(left + x, top + y, width, height, mean / (mean + CERTAIN)).scaled(scale, scale))
    return found


def _blur(plane: Map, sigma: float) -> Map:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma), np.float32)
