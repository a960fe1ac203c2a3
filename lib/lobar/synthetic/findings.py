"""What is added to a synthetic chest: labelled opacities, unlabelled distractors, devices and text marks.

Opacities and distractors have the same sizes, positions and mean brightness. They differ in texture: an
opacity is mottled with bright grains; a distractor is smooth, streaked like a scar, or has dark grains.
"""

import cv2
import numpy as np

from lobar.core.boxes import Box, iou
from lobar.synthetic.anatomy import (
    FINE,
    FloatImage,
    Layer,
    Patient,
    Points,
    Pose,
    blur_layer,
    fill,
    noise_crop,
    round_corners,
    stroke,
)

# mean and standard deviation of RSNA's 9,555 boxes, in fractions of the image side: log of width and height,
# distance of the centre from the midline, y of the centre; sizes are increased, as lung edges clip some boxes
BOX_WIDTH = (np.log(0.225), 0.31)
BOX_HEIGHT = (np.log(0.33), 0.53)
WIDTH_HEIGHT_CORRELATION = 0.61
BOX_OFFSET = (0.191, 0.075)
BOX_Y = (0.56, 0.13)
# shares of images with 1, 2, 3 and 4 boxes among RSNA's 6,012 positives
BOXES_PER_IMAGE = np.array([2614, 3266, 119, 13]) / 6012
# a box encloses the pixels of its opacity whose coverage is above this
VISIBLE = 0.3
# smallest side of a box, in pixels of 512
MIN_SIDE = 20
# the next six set the difficulty: a small network scores 0.4 to 0.5, the baseline detector below 0.1
DISTRACTORS = 2.9  # mean per image
TEXTURES = ("smooth", "streak", "cyst", "cyst", "cyst")
GRAINS = 0.28
HOLES = 0.36
STREAKS = 0.27
STRENGTH = (0.115, 0.235)


def draw_opacities(
    attenuation: FloatImage, lungs: FloatImage, pose: Pose, random: np.random.Generator
) -> tuple[list[Box], FloatImage]:
    """Add 1 to 4 opacities to `attenuation` (512, 512), in place.

    `lungs` is (256, 256) in 0..1. Returns the boxes in pixels of the final image (1024, 1024), and the
    coverage by opacities (512, 512) in 0..1.
    """
    visible, covered = _visible_lungs(lungs), np.zeros_like(attenuation)
    boxes: list[Box] = []
    occupied: list[Box] = []
    side = int(random.integers(2))
    count = 1 + int(random.choice(4, p=BOXES_PER_IMAGE))
    # boxes of one image have similar sizes; they are small if there are more than two
    mean_size = random.standard_normal(2) - (1.5 if count > 2 else 0.0)
    for number in range(count):
        region = _choose_region(pose, (side + number) % 2, mean_size, occupied, random)
        if region is None:
            continue
        pixels = _slices(region)
        coverage = _envelope(region, random) * visible[pixels]
        box = _bounding_box(coverage, region)
        if box is None:
            continue
        attenuation[pixels] += coverage * _texture("mottle", region, random) * random.uniform(*STRENGTH)
        covered[pixels] = np.maximum(covered[pixels], coverage)
        boxes.append(box)
        occupied.append(region)
    return boxes, covered


def draw_distractors(
    attenuation: FloatImage, lungs: FloatImage, pose: Pose, covered: FloatImage, random: np.random.Generator
) -> None:
    """Add smooth, streaked or cystic densities, without boxes, in place and outside `covered`."""
    free = _visible_lungs(lungs) * (1 - covered)
    # somewhat larger than opacities, so that size alone does not separate the two
    mean_size = random.standard_normal(2) + 0.6
    for _ in range(int(random.poisson(DISTRACTORS))):
        region = _choose_region(pose, int(random.integers(2)), mean_size, [], random)
        if region is not None:
            kind = TEXTURES[int(random.integers(len(TEXTURES)))]
            pixels = _slices(region)
            coverage = _envelope(region, random) * free[pixels]
            attenuation[pixels] += coverage * _texture(kind, region, random) * random.uniform(*STRENGTH)


def _visible_lungs(lungs: FloatImage) -> FloatImage:
    # opacities are faintly visible a little outside the lung edge
    blurred = cv2.resize(cv2.GaussianBlur(lungs, (0, 0), 2), (FINE, FINE), interpolation=cv2.INTER_LINEAR)
    return np.minimum(1.0, 0.1 + 1.1 * blurred)


def _choose_region(
    pose: Pose, side: int, mean_size: Points, occupied: list[Box], random: np.random.Generator
) -> Box | None:
    """A random rectangle at 512 x 512 pixels that overlaps none in `occupied`, or None after six attempts."""
    for _ in range(6):
        first = 0.7 * mean_size[0] + 0.7 * random.standard_normal()
        second = WIDTH_HEIGHT_CORRELATION * first + np.sqrt(1 - WIDTH_HEIGHT_CORRELATION**2) * (
            0.7 * mean_size[1] + 0.7 * random.standard_normal()
        )
        width = float(np.clip(np.exp(BOX_WIDTH[0] + BOX_WIDTH[1] * first), 0.07, 0.34))
        height = float(np.clip(np.exp(BOX_HEIGHT[0] + BOX_HEIGHT[1] * second), 0.08, 0.66))
        offset = float(np.clip(random.normal(*BOX_OFFSET), 0.06 + width / 2, 0.34 - width / 3))
        lowest = max(0.79 + pose.diaphragm - height / 2, 0.15 + height / 2)
        y = float(np.clip(random.normal(*BOX_Y), 0.14 + height / 2, lowest))
        centre = pose.to_pixels(np.array([[0.5 + (offset if side else -offset), y]]), FINE)[0]
        size = np.array([round(width * FINE), round(height * FINE)])
        corner = np.clip(np.round(centre - size / 2).astype(int), 0, FINE - size)
        region = Box(*map(int, (*corner, *size)))
        if not any(iou(region, other) for other in occupied):
            return region
    return None


def _slices(region: Box) -> tuple[slice, slice]:
    return slice(region.y, region.y + region.height), slice(region.x, region.x + region.width)


def _envelope(region: Box, random: np.random.Generator) -> FloatImage:
    """Coverage in 0..1 by a blob that fills its region, with an irregular outline and soft edges."""
    down = np.abs(np.linspace(-1, 1, region.height, dtype=np.float32))[:, None]
    across = np.abs(np.linspace(-1, 1, region.width, dtype=np.float32))[None, :]
    distance = np.sqrt(np.sqrt(down**4 + across**4) * 0.6 + (down**2 + across**2) * 0.4)
    distance += 0.11 * noise_crop("cloud", random, distance.shape)
    coverage = np.clip((1.07 - distance) / 0.45, 0, 1)
    return coverage * coverage * (3 - 2 * coverage)


def _texture(kind: str, region: Box, random: np.random.Generator) -> FloatImage:
    """Texture of a region, with a mean near 1: mottle, streak, cyst or smooth."""
    shape = (region.height, region.width)
    base = 1 + 0.14 * noise_crop("cloud", random, shape)
    if kind == "smooth":
        return base
    if kind == "streak":
        return base + STREAKS * noise_crop("streak", random, shape)
    grains = np.clip(noise_crop("mottle", random, shape), -0.4, 3) - 0.23
    return base + (GRAINS * grains if kind == "mottle" else -HOLES * grains)


def _bounding_box(coverage: FloatImage, region: Box) -> Box | None:
    x, y, width, height = cv2.boundingRect((coverage > VISIBLE).astype(np.uint8))
    if min(width, height) < MIN_SIDE:
        return None
    return Box(2 * (region.x + x), 2 * (region.y + y), 2 * width, 2 * height)


def draw_incidental_findings(
    attenuation: FloatImage, lungs: FloatImage, patient: Patient, pose: Pose, random: np.random.Generator
) -> None:
    """Add effusion, nodules, nipples, devices and text marks in place, with or without pneumonia."""
    if random.random() < 0.22:
        attenuation += cv2.resize(_effusion(lungs, pose, random), (FINE, FINE))
    nodules = np.zeros((FINE, FINE), np.uint8)
    for _ in range(int(random.poisson(0.5))):
        centre = random.uniform((0.2, 0.25), (0.8, 0.7))
        _disc(nodules, pose, centre, int(random.integers(4, 15)), 110)
    attenuation += blur_layer(nodules, 1.5) * np.float32(0.28)
    if patient.breast_size and random.random() < 0.5:
        nipples = np.zeros((FINE, FINE), np.uint8)
        for x in (0.29, 0.71):
            _disc(nipples, pose, np.array([x, 0.66]), 7, 120)
        attenuation += blur_layer(nipples, 1.5) * np.float32(0.2)
    attenuation += _devices(patient, pose, random)


def _disc(layer: Layer, pose: Pose, centre: Points, radius: int, value: int) -> None:
    x, y = pose.to_pixels(centre[None], FINE)[0].astype(int).tolist()
    cv2.circle(layer, (x, y), radius, value, -1, cv2.LINE_AA)


def _effusion(lungs: FloatImage, pose: Pose, random: np.random.Generator) -> FloatImage:
    # a smooth shadow with a slanted upper edge, highest at the chest wall
    level = 0.715 + pose.diaphragm - random.uniform(0.03, 0.2)
    wall, middle = (-0.05, 0.5) if random.random() < 0.5 else (1.05, 0.5)
    across = np.linspace(wall, middle, 8)
    edge = level + 0.12 * np.linspace(0, 1, 8) ** 0.6
    shape = np.vstack([np.stack([across, edge], axis=1), [(middle, 1.0), (wall, 1.0)]])
    return fill(pose, [shape], 2.5) * lungs * np.float32(random.uniform(0.18, 0.32))


def _devices(patient: Patient, pose: Pose, random: np.random.Generator) -> FloatImage:
    layer = np.zeros((FINE, FINE), np.uint8)
    supine = pose.view == "AP"
    if patient.pacemaker:
        _pacemaker(layer, pose)
    if patient.sternal_wires:
        for y in np.linspace(0.24, 0.56, 6):
            loop = np.array([(0.475, y), (0.5, y - 0.012), (0.525, y), (0.5, y + 0.012), (0.475, y)])
            stroke(pose, layer, loop + random.normal(0, 0.004, 2), 2, 200)
    for _ in range(int(random.poisson(1.7 if supine else 0.1))):
        electrode = random.uniform((0.22, 0.22), (0.78, 0.75))
        outside = (random.choice([0.02, 0.98]), random.uniform(0.2, 1.0))
        _cable(layer, pose, np.array([outside, electrode]), 2, random)
        _disc(layer, pose, electrode, 6, 175)
    if supine and random.random() < 0.35:
        trachea = np.array([(0.5, -0.05), (0.5, random.uniform(0.25, 0.33))])
        _cable(layer, pose, trachea, 4, random)
    if supine and random.random() < 0.35:
        vein = np.array([(random.choice([0.1, 0.9]), 0.2), (0.47, 0.45)])
        _cable(layer, pose, vein, 2, random)
    _text_marks(layer, supine, random)
    return blur_layer(layer, 0.6) * np.float32(0.6)


def _text_marks(layer: Layer, supine: bool, random: np.random.Generator) -> None:
    side, mark = (40, "R") if random.random() < 0.2 else (455, "L")
    cv2.putText(layer, mark, (side, 50), cv2.FONT_HERSHEY_SIMPLEX, 0.9, 255, 2, cv2.LINE_AA)
    if supine and random.random() < 0.5:
        cv2.putText(layer, "PORTABLE", (30, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 220, 1, cv2.LINE_AA)


def _cable(layer: Layer, pose: Pose, ends: Points, width: int, random: np.random.Generator) -> None:
    steps = np.linspace(0, 1, 5)[:, None]
    line = ends[0] + (ends[1] - ends[0]) * steps + random.normal(0, 0.03, (5, 2)) * np.sin(np.pi * steps)
    stroke(pose, layer, round_corners(line, closed=False), width, 150)


def _pacemaker(layer: Layer, pose: Pose) -> None:
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    case = np.stack([0.74 + 0.045 * np.cos(angle), 0.27 + 0.052 * np.sin(angle)], axis=1)
    cv2.fillPoly(layer, [np.round(pose.to_pixels(case, FINE)).astype(np.int32)], (235,), cv2.LINE_AA)
    lead = np.array([(0.72, 0.25), (0.62, 0.22), (0.53, 0.3), (0.5, 0.5), (0.57, 0.66)])
    stroke(pose, layer, round_corners(lead, closed=False), 3, 200)
