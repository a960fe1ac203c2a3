"""Synthetic chest anatomy: X-ray attenuation of body, lungs, heart and bones.

No shape is taken from a patient. Points (n, 2) are fractions of the image side (0..1, x to the right,
y down). Attenuation is float32, 0 for air and about 1 for the densest bone. Soft tissue is drawn at 256 x 256
pixels, bones and vessels at 512 x 512.
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.measure import subdivide_polygon

SOFT = 256
FINE = 512
FloatImage = NDArray[np.float32]
Layer = NDArray[np.uint8]
Points = NDArray[np.float64]
NECK = np.array([(0.43, -0.2), (0.57, -0.2), (0.56, 0.12), (0.44, 0.12)])


@dataclass(frozen=True)
class Patient:
    """Traits shared by all exams of one patient; sizes are relative to an average chest."""

    sex: str
    age: int
    girth: float
    height: float
    lung_width: float
    heart_size: float
    rib_slope: float
    ribs: int
    spine_bend: float
    breast_size: float
    pacemaker: bool
    sternal_wires: bool


@dataclass(frozen=True)
class Pose:
    """Position in one exam: view (AP or PA), height of the diaphragm, scale, rotation and shift."""

    view: str
    diaphragm: float
    scale: float
    rotation: float
    shift: tuple[float, float]

    def to_pixels(self, points: Points, size: int) -> Points:
        """Rotate, scale and shift points (n, 2) in 0..1; the result is in pixels of a size x size image."""
        cos, sin = np.cos(self.rotation) * self.scale, np.sin(self.rotation) * self.scale
        moved = (np.asarray(points) - 0.5) @ np.array([[cos, sin], [-sin, cos]]) + 0.5 + self.shift
        return moved * size


def draw_patient(random: np.random.Generator) -> Patient:
    """Random traits of a patient."""
    sex = "M" if random.random() < 0.57 else "F"
    age = int(np.clip(random.normal(47, 17), 2, 92))
    return Patient(
        sex=sex,
        age=age,
        girth=float(np.clip(random.normal(1.0, 0.08), 0.85, 1.2)),
        height=float(random.normal(1.0, 0.06)),
        lung_width=float(np.clip(random.normal(1.0, 0.06), 0.86, 1.12)),
        heart_size=float(np.clip(random.lognormal(0.0, 0.16), 0.75, 1.5)),
        rib_slope=float(random.normal(0.13, 0.04)),
        ribs=int(random.integers(9, 12)),
        spine_bend=float(random.normal(0.0, 0.012)),
        breast_size=float(random.uniform(0.3, 1.0)) if sex == "F" and age > 14 else 0.0,
        pacemaker=bool(random.random() < 0.06),
        sternal_wires=bool(random.random() < 0.08),
    )


def draw_pose(random: np.random.Generator, view: str) -> Pose:
    """Random pose: in AP views patients inhale less and are positioned less precisely than in PA views."""
    supine = view == "AP"
    return Pose(
        view=view,
        diaphragm=float(random.normal(-0.045 if supine else 0.0, 0.025)),
        scale=float(random.normal(1.0, 0.05)),
        rotation=float(random.normal(0.0, 0.04 if supine else 0.015)),
        shift=(float(random.normal(0.0, 0.02)), float(random.normal(0.0, 0.02))),
    )


def round_corners(corners: Points, closed: bool = True) -> Points:
    """Smooth a polygon or a line by three rounds of corner cutting (Chaikin's algorithm)."""
    points = np.vstack([corners, corners[:1]]) if closed else corners
    for _ in range(3):
        points = subdivide_polygon(points, degree=2, preserve_ends=not closed)
    # for a closed polygon, subdivide_polygon starts 2, 4 and 8 points early and repeats its first point
    return np.roll(points[:-1], -14, axis=0) if closed else points


def fill(pose: Pose, shapes: list[Points], blur: float, size: int = SOFT) -> FloatImage:
    """Filled polygons as a size x size image in 0..1, blurred by a Gaussian of `blur` pixels."""
    layer = np.zeros((size, size), np.uint8)
    for shape in shapes:
        cv2.fillPoly(layer, [_fixed_point(pose.to_pixels(shape, size))], 255, cv2.LINE_AA, shift=4)
    return blur_layer(layer, blur)


def stroke(pose: Pose, layer: Layer, line: Points, width: int, value: int) -> None:
    """Draw a line of `width` pixels into `layer`."""
    pixels = _fixed_point(pose.to_pixels(line, layer.shape[0]))
    cv2.polylines(layer, [pixels], False, value, width, cv2.LINE_AA, shift=4)


def blur_layer(layer: Layer, blur: float) -> FloatImage:
    """An 8-bit layer as a blurred float image in 0..1; blurring 8 bits is several times faster."""
    return cv2.GaussianBlur(layer, (0, 0), blur).astype(np.float32) * np.float32(1 / 255)


def _fixed_point(pixels: Points) -> NDArray[np.int32]:
    return np.round(pixels * 16).astype(np.int32)


def mirror(points: Points) -> Points:
    """The points reflected about the vertical midline of the image."""
    return np.asarray(points) * (-1, 1) + (1, 0)


def lung_outlines(patient: Patient, pose: Pose) -> list[Points]:
    """Outlines of the two lungs, the one on the left of the image first."""
    outlines = []
    for side in (0, 1):
        base = 0.735 + pose.diaphragm - (0.015 if side == 0 else 0.0)
        top = 0.15 - 0.05 * (patient.height - 1)
        width, height = 0.335 * patient.lung_width, base - top
        across = np.array(
            [0.11, 0.19, 0.25, 0.30, 0.33, 0.335, 0.325, 0.25, 0.16, 0.09, 0.075, 0.065, 0.07, 0.085]
        )
        down = np.array([0.0, 0.03, 0.13, 0.33, 0.6, 0.85, 1.06, 0.92, 0.86, 0.9, 0.96, 0.6, 0.3, 0.1])
        left = np.stack([0.5 - across * width / 0.335, top + down * height], axis=1)
        outlines.append(round_corners(left if side == 0 else mirror(left)))
    return outlines


def draw_body(patient: Patient, pose: Pose, random: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """Attenuation (512, 512) of a chest without findings, and its lungs (256, 256) as 0..1."""
    lungs = fill(pose, lung_outlines(patient, pose), 1.6)
    torso = fill(pose, [_torso(patient, pose)], 2.5)
    soft = 0.34 * torso + 0.24 * cv2.GaussianBlur(torso, (0, 0), 16) + 0.10 * fill(pose, [NECK], 4)
    soft -= lungs * (0.37 if pose.view == "PA" else 0.31)
    heart, mediastinum = fill(pose, [_heart(patient, pose)], 2.2), fill(pose, [_mediastinum(patient)], 4)
    abdomen = fill(pose, [_abdomen(pose)], 9) * (1 - lungs)
    soft += np.maximum(0.21 * heart, 0.20 * abdomen) + 0.10 * mediastinum
    if patient.breast_size:
        soft += 0.09 * patient.breast_size * fill(pose, _breasts(patient), 3)
    attenuation = _upsample(soft) + _bones(patient, pose, random)
    mottle = np.float32(0.004 + 0.016 * random.random() ** 2)
    attenuation += (_vessels(pose, random) + mottle * noise_crop("mottle", random)) * _upsample(lungs)
    density = 0.012 * noise_crop("cloud", random) + 0.02 * noise_crop("slow", random)
    attenuation += density * _upsample(torso)
    return attenuation, lungs


def _upsample(image: FloatImage) -> FloatImage:
    return np.asarray(cv2.resize(image, (FINE, FINE), interpolation=cv2.INTER_LINEAR), np.float32)


def _torso(patient: Patient, pose: Pose) -> Points:
    side = 0.42 * patient.girth
    arm = 0.12 if pose.view == "PA" else 0.2
    left = [(0.43, -0.1), (0.43, 0.06), (0.28, 0.11), (0.5 - side - 0.02, 0.17), (0.5 - side - arm, 0.3)]
    left += [(0.5 - side - arm, 0.5), (0.5 - side - 0.02, 0.42), (0.5 - side, 0.6), (0.5 - side - 0.03, 1.2)]
    return round_corners(np.vstack([left, mirror(np.array(left))[::-1]]))


def _heart(patient: Patient, pose: Pose) -> Points:
    size = patient.heart_size * (1.14 if pose.view == "AP" else 1.0)
    bottom = 0.745 + pose.diaphragm
    right = [(0.0, -0.50), (0.03, -0.42), (0.06, -0.33), (0.085, -0.27), (0.075, -0.21), (0.13, -0.13)]
    right += [(0.17, -0.05), (0.15, 0.03)]
    left = [(0.0, 0.04), (-0.06, 0.02), (-0.085, -0.06), (-0.075, -0.14), (-0.055, -0.24), (-0.035, -0.42)]
    return round_corners(np.array(right + left) * (size, 1.0) + (0.5, bottom))


def _mediastinum(patient: Patient) -> Points:
    bend = patient.spine_bend
    left = [(0.45, -0.1), (0.455 + bend, 0.3), (0.45 + bend, 0.6), (0.44, 1.1)]
    right = [(0.56, 1.1), (0.55 + bend, 0.6), (0.545 + bend, 0.3), (0.55, -0.1)]
    return np.array(left + right)


def _abdomen(pose: Pose) -> Points:
    level = 0.715 + pose.diaphragm
    return np.array(
        [(-0.2, level + 0.06), (0.2, level), (0.8, level), (1.2, level + 0.06), (1.2, 1.3), (-0.2, 1.3)]
    )


def _breasts(patient: Patient) -> list[Points]:
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    size = 0.09 + 0.06 * patient.breast_size
    left = np.stack([0.27 + size * 1.05 * np.cos(angle), 0.63 + size * 1.2 * np.sin(angle)], axis=1)
    return [left, mirror(left)]


def _bones(patient: Patient, pose: Pose, random: np.random.Generator) -> FloatImage:
    layer = np.zeros((FINE, FINE), np.uint8)
    half_width = 0.345 * patient.lung_width
    along = np.linspace(0, 1, 12)
    for rib in range(patient.ribs):
        y = 0.12 + rib * 0.63 / patient.ribs
        end = half_width * min(1.0, 0.62 + 0.09 * rib)
        for sign in (-1, 1):
            x = 0.5 + sign * (0.045 + (end - 0.045) * np.sin(along * 1.75) / np.sin(1.57))
            back = np.stack([x, y + patient.rib_slope * along**2.2 - 0.03 * np.sin(along * np.pi)], axis=1)
            stroke(pose, layer, back, 12, 92)
            stroke(pose, layer, back, 8, 66)
            front = np.stack([x[::-1][:7], (y + patient.rib_slope + 0.1 * along**1.3)[:7]], axis=1)
            stroke(pose, layer, front, 11, 48)
    for sign in (-1, 1):
        tilt = random.normal(0.0, 0.012)
        clavicle = np.array([(0.03, 0.175), (0.12, 0.15 + tilt), (0.24, 0.125 + tilt), (0.34, 0.14 + tilt)])
        line = round_corners(clavicle * (sign, 1) + (0.5, 0), closed=False)
        stroke(pose, layer, line, 15, 125)
        stroke(pose, layer, line, 9, 100)
        blade = np.array([(0.30, 0.16), (0.37, 0.22), (0.345, 0.42), (0.315, 0.30)])
        stroke(pose, layer, round_corners(blade * (sign, 1) + (0.5, 0)), 5, 75)
    for y in np.arange(-0.02, 1.05, 0.058):
        bend = patient.spine_bend * np.sin(np.pi * y)
        stroke(pose, layer, np.array([(0.47 + bend, y), (0.53 + bend, y)]), 15, 26)
    return blur_layer(layer, 1.4) * np.float32(0.24)


def _vessels(pose: Pose, random: np.random.Generator) -> FloatImage:
    layer = np.zeros((FINE, FINE), np.uint8)
    steps = np.linspace(0, 1, 6)[:, None]
    for sign in (-1, 1):
        root = np.array([0.5 + sign * 0.085, 0.43 + 0.3 * pose.diaphragm])
        for _ in range(26):
            angle = random.uniform(-1.35, 1.45)
            direction = np.array([sign * np.cos(angle), np.sin(angle)]) * random.uniform(0.08, 0.27)
            curve = np.array([-direction[1], direction[0]]) * random.normal(0, 0.25)
            line = root + random.normal(0, 0.012, 2) + direction * steps + curve * np.sin(np.pi * steps)
            stroke(pose, layer, line[:4], 4, int(random.integers(70, 130)))
            stroke(pose, layer, line[3:], 2, int(random.integers(70, 130)))
    return blur_layer(layer, 1.5) * np.float32(0.22)


@cache
def noise_plane(kind: str) -> FloatImage:
    """Noise (1024, 1024) with mean 0 and standard deviation 1, the same in every process.

    `mottle` is grainy like filled alveoli, `streak` has slanted lines, `cloud` and `slow` are smooth.
    """
    random = np.random.default_rng([20240, ["mottle", "streak", "cloud", "slow"].index(kind)])
    white = random.standard_normal((1536, 1536)).astype(np.float32)
    if kind == "mottle":
        plane = _blurred(white, 3.0) - _blurred(white, 7.5)
    elif kind == "streak":
        horizontal = cv2.GaussianBlur(white, (0, 0), sigmaX=16, sigmaY=2.2)
        rotation = cv2.getRotationMatrix2D((768, 768), 38, 1)
        plane = np.asarray(cv2.warpAffine(horizontal, rotation, (1536, 1536)), np.float32)
    else:
        plane = _blurred(white, 9 if kind == "cloud" else 26)
    plane = plane[256:1280, 256:1280]
    return np.asarray((plane - plane.mean()) / plane.std(), np.float32)


def _blurred(plane: FloatImage, sigma: float) -> FloatImage:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma), np.float32)


def noise_crop(kind: str, random: np.random.Generator, shape: tuple[int, int] = (FINE, FINE)) -> FloatImage:
    """A random crop of `noise_plane`, flipped at random in each direction."""
    plane = noise_plane(kind)
    y, x = (int(random.integers(whole - part)) for whole, part in zip(plane.shape, shape, strict=True))
    crop = plane[y : y + shape[0], x : x + shape[1]]
    return crop[:: 1 if random.random() < 0.5 else -1, :: 1 if random.random() < 0.5 else -1]
