"""A drawn chest: body, lungs, heart and bones as the attenuation that an X-ray film would show.

Nothing here is measured on a patient. Points are in units of the film (0..1, x to the right, y down); maps
are float32, 0 for air and about 1 for the densest bone; soft parts are drawn at 256 pixels, fine ones at 512.
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

SOFT = 256
FINE = 512
Map = NDArray[np.float32]
Layer = NDArray[np.uint8]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Person:
    """What stays the same in all exams of one person; lengths are relative to an average chest."""

    sex: str
    age: int
    girth: float
    height: float
    lung_width: float
    heart: float
    rib_slope: float
    ribs: int
    bend: float
    breast: float
    pacemaker: bool
    wires: bool


@dataclass(frozen=True)
class Pose:
    """How the person stands in one exam: view, breath (height of the diaphragm) and the place on the film."""

    view: str
    breath: float
    scale: float
    turn: float
    shift: tuple[float, float]

    def place(self, points: Points, size: int) -> Points:
        """Points of the film (n, 2) in units -> pixels of a map of `size`, moved and turned as posed."""
        cos, sin = np.cos(self.turn) * self.scale, np.sin(self.turn) * self.scale
        moved = (np.asarray(points) - 0.5) @ np.array([[cos, sin], [-sin, cos]]) + 0.5 + self.shift
        return moved * size


def draw_person(random: np.random.Generator) -> Person:
    """A person's traits."""
    sex = "M" if random.random() < 0.57 else "F"
    age = int(np.clip(random.normal(47, 17), 2, 92))
    return Person(
        sex=sex,
        age=age,
        girth=float(np.clip(random.normal(1.0, 0.08), 0.85, 1.2)),
        height=float(random.normal(1.0, 0.06)),
        lung_width=float(np.clip(random.normal(1.0, 0.06), 0.86, 1.12)),
        heart=float(np.clip(random.lognormal(0.0, 0.16), 0.75, 1.5)),
        rib_slope=float(random.normal(0.13, 0.04)),
        ribs=int(random.integers(9, 12)),
        bend=float(random.normal(0.0, 0.012)),
        breast=float(random.uniform(0.3, 1.0)) if sex == "F" and age > 14 else 0.0,
        pacemaker=bool(random.random() < 0.06),
        wires=bool(random.random() < 0.08),
    )


def draw_pose(random: np.random.Generator, view: str) -> Pose:
    """One exam's pose: lying (AP) people breathe in less and are placed less well than standing (PA) ones."""
    lying = view == "AP"
    return Pose(
        view=view,
        breath=float(random.normal(-0.045 if lying else 0.0, 0.025)),
        scale=float(random.normal(1.0, 0.05)),
        turn=float(random.normal(0.0, 0.04 if lying else 0.015)),
        shift=(float(random.normal(0.0, 0.02)), float(random.normal(0.0, 0.02))),
    )


def rounded(corners: Points, times: int = 3, closed: bool = True) -> Points:
    """Round the corners of a polygon or a line by cutting them (Chaikin's algorithm)."""
    points = np.asarray(corners, dtype=np.float64)
    for _ in range(times):
        after = np.roll(points, -1, axis=0) if closed else points[1:]
        before = points if closed else points[:-1]
        cut = np.stack([0.75 * before + 0.25 * after, 0.25 * before + 0.75 * after], axis=1).reshape(-1, 2)
        points = cut if closed else np.vstack([points[:1], cut, points[-1:]])
    return points


def fill(pose: Pose, shapes: list[Points], blur: float, size: int = SOFT) -> Map:
    """Filled polygons as a map of 0..1, with edges softened by `blur` pixels."""
    layer = np.zeros((size, size), np.uint8)
    for shape in shapes:
        cv2.fillPoly(layer, [_fixed(pose.place(shape, size))], 255, cv2.LINE_AA, shift=4)
    return soften(layer, blur)


def stroke(pose: Pose, layer: Layer, line: Points, width: int, value: int) -> None:
    """Draw a line of `width` pixels into `layer`."""
    placed = _fixed(pose.place(line, layer.shape[0]))
    cv2.polylines(layer, [placed], False, value, width, cv2.LINE_AA, shift=4)


def soften(layer: Layer, blur: float) -> Map:
    """An 8-bit layer as a map of 0..1, blurred (in 8 bits, which is several times faster than in float)."""
    return cv2.GaussianBlur(layer, (0, 0), blur).astype(np.float32) * np.float32(1 / 255)


def _fixed(pixels: Points) -> NDArray[np.int32]:
    return np.round(pixels * 16).astype(np.int32)


def mirrored(points: Points) -> Points:
    """The same points on the other side of the film's middle."""
    return np.asarray(points) * (-1, 1) + (1, 0)


def lungs(person: Person, pose: Pose) -> list[Points]:
    """Outlines of the two lungs, the one at the film's left first."""
    outlines = []
    for side in (0, 1):
        base = 0.735 + pose.breath - (0.015 if side == 0 else 0.0)
        top = 0.15 - 0.05 * (person.height - 1)
        wide = 0.335 * person.lung_width
        tall = base - top
        across = np.array(
            [0.11, 0.19, 0.25, 0.30, 0.33, 0.335, 0.325, 0.25, 0.16, 0.09, 0.075, 0.065, 0.07, 0.085]
        )
        down = np.array([0.0, 0.03, 0.13, 0.33, 0.6, 0.85, 1.06, 0.92, 0.86, 0.9, 0.96, 0.6, 0.3, 0.1])
        left = np.stack([0.5 - across * wide / 0.335, top + down * tall], axis=1)
        outlines.append(rounded(left if side == 0 else mirrored(left)))
    return outlines


def draw_body(person: Person, pose: Pose, random: np.random.Generator) -> tuple[Map, Map]:
    """The chest without findings as an attenuation map at 512, and the lungs as a map of 0..1 at 256."""
    inside = fill(pose, lungs(person, pose), 1.6)
    torso = fill(pose, [_torso(person, pose)], 2.5)
    map_ = 0.34 * torso + 0.24 * cv2.GaussianBlur(torso, (0, 0), 16) + 0.10 * fill(pose, [_neck(person)], 4)
    map_ -= inside * (0.37 if pose.view == "PA" else 0.31)
    heart, middle = fill(pose, [_heart(person, pose)], 2.2), fill(pose, [_middle(person)], 4)
    belly = fill(pose, [_abdomen(pose)], 9) * (1 - inside)
    map_ += np.maximum(0.21 * heart, 0.20 * belly) + 0.10 * middle
    if person.breast:
        map_ += 0.09 * person.breast * fill(pose, _breasts(person), 3)
    fine = cv2.resize(map_, (FINE, FINE), interpolation=cv2.INTER_LINEAR)
    fine += _bones(person, pose, random)
    grainy = 0.004 + 0.016 * random.random() ** 2
    fine += (_vessels(pose, random) + np.float32(grainy) * piece("mottle", random)) * cv2.resize(
        inside, (FINE, FINE)
    )
    fine += (0.012 * piece("cloud", random) + 0.02 * piece("slow", random)) * cv2.resize(torso, (FINE, FINE))
    return fine, inside


def _torso(person: Person, pose: Pose) -> Points:
    out = 0.42 * person.girth
    arm = 0.12 if pose.view == "PA" else 0.2
    left = [(0.43, -0.1), (0.43, 0.06), (0.28, 0.11), (0.5 - out - 0.02, 0.17), (0.5 - out - arm, 0.3)]
    left += [(0.5 - out - arm, 0.5), (0.5 - out - 0.02, 0.42), (0.5 - out, 0.6), (0.5 - out - 0.03, 1.2)]
    return rounded(np.vstack([left, mirrored(np.array(left))[::-1]]))


def _neck(person: Person) -> Points:
    return np.array([(0.43, -0.2), (0.57, -0.2), (0.56, 0.12), (0.44, 0.12)])


def _heart(person: Person, pose: Pose) -> Points:
    size = person.heart * (1.14 if pose.view == "AP" else 1.0)
    low = 0.745 + pose.breath
    right = [(0.0, -0.50), (0.03, -0.42), (0.06, -0.33), (0.085, -0.27), (0.075, -0.21), (0.13, -0.13)]
    right += [(0.17, -0.05), (0.15, 0.03)]
    left = [(0.0, 0.04), (-0.06, 0.02), (-0.085, -0.06), (-0.075, -0.14), (-0.055, -0.24), (-0.035, -0.42)]
    return rounded(np.array(right + left) * (size, 1.0) + (0.5, low))


def _middle(person: Person) -> Points:
    bend = person.bend
    left = [(0.45, -0.1), (0.455 + bend, 0.3), (0.45 + bend, 0.6), (0.44, 1.1)]
    right = [(0.56, 1.1), (0.55 + bend, 0.6), (0.545 + bend, 0.3), (0.55, -0.1)]
    return np.array(left + right)


def _abdomen(pose: Pose) -> Points:
    level = 0.715 + pose.breath
    return np.array(
        [(-0.2, level + 0.06), (0.2, level), (0.8, level), (1.2, level + 0.06), (1.2, 1.3), (-0.2, 1.3)]
    )


def _breasts(person: Person) -> list[Points]:
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    size = 0.09 + 0.06 * person.breast
    left = np.stack([0.27 + size * 1.05 * np.cos(turn), 0.63 + size * 1.2 * np.sin(turn)], axis=1)
    return [left, mirrored(left)]


def _bones(person: Person, pose: Pose, random: np.random.Generator) -> Map:
    layer = np.zeros((FINE, FINE), np.uint8)
    reach = 0.345 * person.lung_width
    along = np.linspace(0, 1, 12)
    for rib in range(person.ribs):
        y = 0.12 + rib * 0.63 / person.ribs
        out = reach * min(1.0, 0.62 + 0.09 * rib)
        for sign in (-1, 1):
            x = 0.5 + sign * (0.045 + (out - 0.045) * np.sin(along * 1.75) / np.sin(1.57))
            back = np.stack([x, y + person.rib_slope * along**2.2 - 0.03 * np.sin(along * np.pi)], axis=1)
            stroke(pose, layer, back, 12, 92)
            stroke(pose, layer, back, 8, 66)
            front = np.stack([x[::-1][:7], (y + person.rib_slope + 0.1 * along**1.3)[:7]], axis=1)
            stroke(pose, layer, front, 11, 48)
    for sign in (-1, 1):
        rise = random.normal(0.0, 0.012)
        clavicle = np.array([(0.03, 0.175), (0.12, 0.15 + rise), (0.24, 0.125 + rise), (0.34, 0.14 + rise)])
        line = rounded(clavicle * (sign, 1) + (0.5, 0), closed=False)
        stroke(pose, layer, line, 15, 125)
        stroke(pose, layer, line, 9, 100)
        blade = np.array([(0.30, 0.16), (0.37, 0.22), (0.345, 0.42), (0.315, 0.30)])
        stroke(pose, layer, rounded(blade * (sign, 1) + (0.5, 0)), 5, 75)
    for y in np.arange(-0.02, 1.05, 0.058):
        bend = person.bend * np.sin(np.pi * y)
        stroke(pose, layer, np.array([(0.47 + bend, y), (0.53 + bend, y)]), 15, 26)
    return soften(layer, 1.4) * np.float32(0.24)


def _vessels(pose: Pose, random: np.random.Generator) -> Map:
    layer = np.zeros((FINE, FINE), np.uint8)
    steps = np.linspace(0, 1, 6)[:, None]
    for sign in (-1, 1):
        root = np.array([0.5 + sign * 0.085, 0.43 + 0.3 * pose.breath])
        for _ in range(26):
            angle = random.uniform(-1.35, 1.45)
            way = np.array([sign * np.cos(angle), np.sin(angle)]) * random.uniform(0.08, 0.27)
            sag = np.array([-way[1], way[0]]) * random.normal(0, 0.25)
            line = root + random.normal(0, 0.012, 2) + way * steps + sag * np.sin(np.pi * steps)
            stroke(pose, layer, line[:4], 4, int(random.integers(70, 130)))
            stroke(pose, layer, line[3:], 2, int(random.integers(70, 130)))
    return soften(layer, 1.5) * np.float32(0.22)


@cache
def noise(kind: str) -> Map:
    """A plane of 1024x1024 noise of unit spread, the same in every process; pieces are cut from it.

    `mottle` has grains like filled air sacs, `streak` slanting lines as scars have, `cloud` and `slow` waves.
    """
    random = np.random.default_rng([20240, ["mottle", "streak", "cloud", "slow"].index(kind)])
    white = random.standard_normal((1536, 1536)).astype(np.float32)
    if kind == "mottle":
        plane = _blurred(white, 3.0) - _blurred(white, 7.5)
    elif kind == "streak":
        level = cv2.GaussianBlur(white, (0, 0), sigmaX=16, sigmaY=2.2)
        turn = cv2.getRotationMatrix2D((768, 768), 38, 1)
        plane = np.asarray(cv2.warpAffine(level, turn, (1536, 1536)), np.float32)
    else:
        plane = _blurred(white, 9 if kind == "cloud" else 26)
    plane = plane[256:1280, 256:1280]
    return np.asarray((plane - plane.mean()) / plane.std(), np.float32)


def _blurred(plane: Map, sigma: float) -> Map:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma), np.float32)


def piece(kind: str, random: np.random.Generator, shape: tuple[int, int] = (FINE, FINE)) -> Map:
    """A rectangle cut anywhere from the plane of noise of that kind, flipped or not."""
    plane = noise(kind)
    y, x = (int(random.integers(whole - part)) for whole, part in zip(plane.shape, shape, strict=True))
    cut = plane[y : y + shape[0], x : x + shape[1]]
    return cut[:: 1 if random.random() < 0.5 else -1, :: 1 if random.random() < 0.5 else -1]
