"""What lies on a drawn chest: labelled opacities, densities that are none, devices and the film's marks.

An opacity and the patches that only look like one have the same sizes, places and brightness. They differ in
their grain: an opacity is mottled with bright grains; a film is smooth, a scar streaked, a cystic patch has
dark grains. Mean brightness does not tell them apart.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from lobar.core.boxes import Box, iou
from lobar.synthetic.anatomy import (
    FINE,
    Layer,
    Map,
    Person,
    Points,
    Pose,
    fill,
    piece,
    rounded,
    soften,
    stroke,
)

# after RSNA's 9,555 boxes, in units of the film: log of width and height, distance from the middle, height of
# the centre, each as mean and spread; a little larger, because the lung's edge cuts some of it off
BOX_WIDTH = (np.log(0.225), 0.31)
BOX_HEIGHT = (np.log(0.33), 0.53)
WIDTH_HEIGHT_CORRELATION = 0.61
BOX_OFFSET = (0.191, 0.075)
BOX_MIDDLE = (0.56, 0.13)
# images with 1, 2, 3 and 4 boxes among RSNA's 6,012 positives
BOXES_PER_IMAGE = np.array([2614, 3266, 119, 13]) / 6012
# a box ends where the cover of its opacity falls below this
VISIBLE = 0.3
# the next six set how hard the data are: a small network scores 0.4 to 0.5 on them, `heuristic` below 0.1
PATCHES = 2.9
KINDS = ("film", "streak", "cyst", "cyst", "cyst")
GRAINS = 0.28
HOLES = 0.36
STREAKS = 0.27
STRENGTH = (0.115, 0.235)


def draw_opacities(map_: Map, inside: Map, pose: Pose, random: np.random.Generator) -> tuple[list[Box], Map]:
    """Add 1 to 4 opacities to the 512 map; return their boxes at 1024 pixels and their cover, 0..1 at 512."""
    lung, covered = _reach(inside), np.zeros_like(map_)
    boxes: list[Box] = []
    taken: list[Box] = []
    side = int(random.integers(2))
    count = 1 + int(random.choice(4, p=BOXES_PER_IMAGE))
    # boxes of one image are alike in size, and small where there are more than two
    like = random.standard_normal(2) - (1.5 if count > 2 else 0.0)
    for turn in range(count):
        place = _free_place(pose, (side + turn) % 2, like, taken, random)
        if place is None:
            continue
        cover = _envelope(place, random) * lung[_cut(place)]
        box = _visible(cover, place)
        if box is None:
            continue
        map_[_cut(place)] += cover * _grain("mottle", place, random) * random.uniform(*STRENGTH)
        covered[_cut(place)] = np.maximum(covered[_cut(place)], cover)
        boxes.append(box)
        taken.append(place)
    return boxes, covered


def draw_patches(map_: Map, inside: Map, pose: Pose, covered: Map, random: np.random.Generator) -> None:
    """Add densities that no box names: smooth, streaked or cystic ones, beside and around the opacities."""
    free = _reach(inside) * (1 - covered)
    # somewhat larger than opacities, so that size does not tell either
    like = random.standard_normal(2) + 0.6
    for _ in range(int(random.poisson(PATCHES))):
        place = _free_place(pose, int(random.integers(2)), like, [], random)
        if place is not None:
            kind = KINDS[int(random.integers(len(KINDS)))]
            cover = _envelope(place, random) * free[_cut(place)]
            map_[_cut(place)] += cover * _grain(kind, place, random) * random.uniform(*STRENGTH)


def _reach(inside: Map) -> Map:
    # opacities show a little beyond the lung's edge, faintly
    wide = cv2.resize(cv2.GaussianBlur(inside, (0, 0), 2), (FINE, FINE), interpolation=cv2.INTER_LINEAR)
    return np.minimum(1.0, 0.1 + 1.1 * wide)


def _free_place(
    pose: Pose, side: int, like: NDArray[np.float64], taken: list[Box], random: np.random.Generator
) -> Box | None:
    for _ in range(6):
        first = 0.7 * like[0] + 0.7 * random.standard_normal()
        second = WIDTH_HEIGHT_CORRELATION * first + np.sqrt(1 - WIDTH_HEIGHT_CORRELATION**2) * (
            0.7 * like[1] + 0.7 * random.standard_normal()
        )
        wide = float(np.clip(np.exp(BOX_WIDTH[0] + BOX_WIDTH[1] * first), 0.07, 0.34))
        tall = float(np.clip(np.exp(BOX_HEIGHT[0] + BOX_HEIGHT[1] * second), 0.08, 0.66))
        offset = float(np.clip(random.normal(*BOX_OFFSET), 0.06 + wide / 2, 0.34 - wide / 3))
        lowest = 0.79 + pose.breath - tall / 2
        middle = float(np.clip(random.normal(*BOX_MIDDLE), 0.14 + tall / 2, max(lowest, 0.15 + tall / 2)))
        centre = pose.place(np.array([[0.5 + (offset if side else -offset), middle]]), FINE)[0]
        width, height = round(wide * FINE), round(tall * FINE)
        x, y = (np.round(centre - (width / 2, height / 2))).astype(int)
        place = Box(int(np.clip(x, 0, FINE - width)), int(np.clip(y, 0, FINE - height)), width, height)
        if not any(iou(place, other) for other in taken):
            return place
    return None


def _cut(place: Box) -> tuple[slice, slice]:
    return slice(place.y, place.y + place.height), slice(place.x, place.x + place.width)


def _envelope(place: Box, random: np.random.Generator) -> Map:
    """Cover 0..1 of a patch that fills its place, with rounded corners, a wavy rim and soft edges."""
    down = np.abs(np.linspace(-1, 1, place.height, dtype=np.float32))[:, None]
    across = np.abs(np.linspace(-1, 1, place.width, dtype=np.float32))[None, :]
    distance = np.sqrt(np.sqrt(down**4 + across**4) * 0.6 + (down**2 + across**2) * 0.4)
    distance += 0.11 * piece("cloud", random, distance.shape)
    cover = np.clip((1.07 - distance) / 0.45, 0, 1)
    return cover * cover * (3 - 2 * cover)


def _grain(kind: str, place: Box, random: np.random.Generator) -> Map:
    """Grain of a patch with a mean near 1: bright grains, dark ones, streaks or almost none."""
    shape = (place.height, place.width)
    base = 1 + 0.14 * piece("cloud", random, shape)
    if kind == "film":
        return base
    if kind == "streak":
        return base + STREAKS * piece("streak", random, shape)
    grains = np.clip(piece("mottle", random, shape), -0.4, 3) - 0.23
    return base + (GRAINS * grains if kind == "mottle" else -HOLES * grains)


def _visible(cover: Map, place: Box) -> Box | None:
    rows, columns = np.flatnonzero(cover.max(axis=1) > VISIBLE), np.flatnonzero(cover.max(axis=0) > VISIBLE)
    if len(rows) < 20 or len(columns) < 20:
        return None
    x, y = 2 * (place.x + int(columns[0])), 2 * (place.y + int(rows[0]))
    return Box(x, y, 2 * int(columns[-1] - columns[0] + 1), 2 * int(rows[-1] - rows[0] + 1))


def draw_others(map_: Map, inside: Map, person: Person, pose: Pose, random: np.random.Generator) -> None:
    """Add what is seen on films with and without pneumonia: effusion, nodules, nipples, devices, marks."""
    if random.random() < 0.22:
        map_ += cv2.resize(_effusion(inside, pose, random), (FINE, FINE))
    layer = np.zeros((FINE, FINE), np.uint8)
    for _ in range(int(random.poisson(0.5))):
        centre = pose.place(random.uniform((0.2, 0.25), (0.8, 0.7), (1, 2)), FINE)[0]
        cv2.circle(
            layer, tuple(centre.astype(int).tolist()), int(random.integers(4, 15)), 110, -1, cv2.LINE_AA
        )
    map_ += soften(layer, 1.5) * np.float32(0.28)
    if person.breast and random.random() < 0.5:
        nipples = np.zeros((FINE, FINE), np.uint8)
        for x in (0.29, 0.71):
            spot = pose.place(np.array([[x, 0.66]]), FINE)[0].astype(int)
            cv2.circle(nipples, tuple(spot.tolist()), 7, 120, -1, cv2.LINE_AA)
        map_ += soften(nipples, 1.5) * np.float32(0.2)
    map_ += _devices(person, pose, random)


def _effusion(inside: Map, pose: Pose, random: np.random.Generator) -> Map:
    # fluid stands highest at the chest wall: a smooth shadow under a slanting edge
    high = 0.715 + pose.breath - random.uniform(0.03, 0.2)
    wall, middle = (-0.05, 0.5) if random.random() < 0.5 else (1.05, 0.5)
    across = np.linspace(wall, middle, 8)
    rim = high + 0.12 * np.linspace(0, 1, 8) ** 0.6
    shape = np.vstack([np.stack([across, rim], axis=1), [(middle, 1.0), (wall, 1.0)]])
    return fill(pose, [shape], 2.5) * inside * np.float32(random.uniform(0.18, 0.32))


def _devices(person: Person, pose: Pose, random: np.random.Generator) -> Map:
    layer = np.zeros((FINE, FINE), np.uint8)
    lying = pose.view == "AP"
    if person.pacemaker:
        _pacemaker(layer, pose)
    if person.wires:
        for y in np.linspace(0.24, 0.56, 6):
            loop = np.array([(0.475, y), (0.5, y - 0.012), (0.525, y), (0.5, y + 0.012), (0.475, y)])
            stroke(pose, layer, loop + random.normal(0, 0.004, 2), 2, 200)
    for _ in range(int(random.poisson(1.7 if lying else 0.1))):
        electrode = random.uniform((0.22, 0.22), (0.78, 0.75))
        outside = (random.choice([0.02, 0.98]), random.uniform(0.2, 1.0))
        _cord(layer, pose, np.array([outside, electrode]), 2, random)
        spot = pose.place(electrode[None], FINE)[0].astype(int)
        cv2.circle(layer, tuple(spot.tolist()), 6, 175, -1, cv2.LINE_AA)
    if lying and random.random() < 0.35:
        windpipe = np.array([(0.5, -0.05), (0.5, random.uniform(0.25, 0.33))])
        _cord(layer, pose, windpipe, 4, random)
    if lying and random.random() < 0.35:
        vein = np.array([(random.choice([0.1, 0.9]), 0.2), (0.47, 0.45)])
        _cord(layer, pose, vein, 2, random)
    _marks(layer, lying, random)
    return soften(layer, 0.6) * np.float32(0.6)


def _marks(layer: Layer, lying: bool, random: np.random.Generator) -> None:
    side, mark = (40, "R") if random.random() < 0.2 else (455, "L")
    cv2.putText(layer, mark, (side, 50), cv2.FONT_HERSHEY_SIMPLEX, 0.9, 255, 2, cv2.LINE_AA)
    if lying and random.random() < 0.5:
        cv2.putText(layer, "PORTABLE", (30, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 220, 1, cv2.LINE_AA)


def _cord(layer: Layer, pose: Pose, ends: Points, width: int, random: np.random.Generator) -> None:
    way = np.linspace(0, 1, 5)[:, None]
    line = ends[0] + (ends[1] - ends[0]) * way + random.normal(0, 0.03, (5, 2)) * np.sin(np.pi * way)
    stroke(pose, layer, rounded(line, closed=False), width, 150)


def _pacemaker(layer: Layer, pose: Pose) -> None:
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    case = np.stack([0.74 + 0.045 * np.cos(turn), 0.27 + 0.052 * np.sin(turn)], axis=1)
    cv2.fillPoly(layer, [np.round(pose.place(case, FINE)).astype(np.int32)], (235,), cv2.LINE_AA)
    lead = np.array([(0.72, 0.25), (0.62, 0.22), (0.53, 0.3), (0.5, 0.5), (0.57, 0.66)])
    stroke(pose, layer, rounded(lead, closed=False), 3, 200)
