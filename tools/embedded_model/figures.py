"""Jointed figures: a pose gives every limb's direction, a build its lengths and radii; both become primitives.

Frame: x to the figure's right, y up, z the way it faces; metres. Limbs are round, so that a direction each is all that
a pose needs. A figure stands with its lowest point on the floor y = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from tools.embedded_model.primitives import extents

Array = npt.NDArray[np.float64]
PARTS: Final = ("skin", "hair", "chest", "upper_arm", "forearm", "pelvis", "thigh", "shin", "foot", "skirt")
"""Parts of a figure that have a colour of their own."""

JOINTS: Final = ("head", "neck", "shoulder", "shoulder", "elbow", "elbow", "wrist", "wrist",
                 "hip", "hip", "knee", "knee", "ankle", "ankle")  # fmt: skip
CORNERS: Final = np.array([[bool(bit >> axis & 1) for axis in range(3)] for bit in range(8)])
JOINT_KINDS: Final = tuple(dict.fromkeys(JOINTS))


@dataclass(frozen=True)
class Primitive:
    """One solid of a scene.

    Attributes:
        kind: one of `primitives.KINDS`, with `size` as described there.
        centre: origin of its frame, in the world (3,).
        axes: its axes in the world, one a row (3, 3).
        slot: what colour it takes, an index into the scene's table of colours.
        item: 0 for the surroundings, else 1 + the index of the solid or figure it belongs to.
    """

    kind: str
    size: tuple[float, float, float]
    centre: Array
    axes: Array
    slot: int
    item: int

    def corners(self) -> Array:
        """Corners (8, 3) of the box around it, in the world."""
        low, high = extents(self.kind, self.size)
        return np.where(CORNERS, high, low) @ self.axes + self.centre


@dataclass(frozen=True)
class Build:
    """Proportions of a body; `height` in metres."""

    height: float = 1.75
    shoulders: float = 0.20
    hips: float = 0.10
    girth: float = 1.0
    long_hair: bool = False
    skirt: float = 0.0
    """Length of a skirt as a share of the height; 0 for none."""


@dataclass(frozen=True)
class Pose:
    """Angles in degrees. A limb is (forward, outward) from hanging straight down; right first, then left."""

    upper_arms: tuple[tuple[float, float], tuple[float, float]] = ((0, 12), (0, 12))
    forearms: tuple[tuple[float, float], tuple[float, float]] = ((12, 8), (12, 8))
    thighs: tuple[tuple[float, float], tuple[float, float]] = ((0, 6), (0, 6))
    shins: tuple[tuple[float, float], tuple[float, float]] = ((0, 4), (0, 4))
    lean: tuple[float, float] = (0, 0)
    """Of the trunk: forward, to the right."""
    nod: float = 0.0
    lying: float = 0.0
    """0 upright, 1 on the back, -1 on the face."""


@dataclass(frozen=True)
class Body:
    """A figure as solids, with its joints (14, 3) in the order of JOINTS."""

    primitives: list[Primitive]
    joints: Array


def _direction(angles: tuple[float, float], side: float) -> Array:
    forward, outward = np.radians(angles[0]), np.radians(angles[1])
    return np.array([side * np.sin(outward), -np.cos(forward) * np.cos(outward), np.sin(forward) * np.cos(outward)])


def frame_along(axis: Array, near: Array) -> Array:
    """Rows x, y, z of a frame whose y is `axis` and whose z is as near to `near` as can be."""
    y = axis / max(float(np.linalg.norm(axis)), 1e-9)
    x = np.cross(y, near)
    if float(np.linalg.norm(x)) < 1e-3:
        x = np.cross(y, np.array([0.3, 0.4, 0.86]))
    x /= np.linalg.norm(x)
    return np.stack([x, y, np.cross(x, y)])


def _limb(one: Array, two: Array, radii: tuple[float, float], slot: int, item: int) -> Primitive:
    along = two - one
    length = max(float(np.linalg.norm(along)), 1.05 * abs(radii[0] - radii[1]) + 1e-3)
    return Primitive("rounded", (*radii, length), one, frame_along(along, np.array([0.0, 0.0, 1.0])), slot, item)


def _joints(build: Build, pose: Pose) -> dict[str, Array]:
    """Named points of the skeleton, the pelvis at the origin."""
    h = build.height
    lean, side = np.radians(pose.lean[0]), np.radians(pose.lean[1])
    spine = np.array([np.sin(side), np.cos(side) * np.cos(lean), np.cos(side) * np.sin(lean)])
    across = np.array([np.cos(side), -np.sin(side), 0.0])
    points = {"pelvis": np.zeros(3), "chest": 0.25 * h * spine, "neck": 0.325 * h * spine}
    bend = lean + np.radians(pose.nod)
    up = np.array([np.sin(side) * 0.7, np.cos(bend), np.sin(bend)])
    points["head"] = points["neck"] + 0.105 * h * up / np.linalg.norm(up)
    points["spine"], points["across"], points["up"] = spine, across, up / np.linalg.norm(up)
    for index, sign in enumerate((1.0, -1.0)):
        shoulder = 0.285 * h * spine + sign * build.shoulders * across
        elbow = shoulder + 0.175 * h * _direction(pose.upper_arms[index], sign)
        wrist = elbow + 0.155 * h * _direction(pose.forearms[index], sign)
        hip = sign * build.hips * np.array([1.0, 0.0, 0.0]) - 0.03 * h * spine
        knee = hip + 0.235 * h * _direction(pose.thighs[index], sign)
        ankle = knee + 0.225 * h * _direction(pose.shins[index], sign)
        for name, point in zip(("shoulder", "elbow", "wrist", "hip", "knee", "ankle"),
                               (shoulder, elbow, wrist, hip, knee, ankle), strict=True):  # fmt: skip
            points[f"{name}{index}"] = point
    return points


def _trunk(p: dict[str, Array], build: Build, slot: dict[str, int], item: int) -> list[Primitive]:
    h, g = build.height, build.girth
    frame = np.stack([p["across"], p["spine"], np.cross(p["across"], p["spine"])])
    wide = build.shoulders
    ribs = (0.86 * wide, 0.125 * h, 0.074 * h * g)
    belt = (max(1.35 * build.hips, 0.6 * wide), 0.085 * h, 0.068 * h * g)
    seat = (build.hips + 0.058 * h * g, 0.075 * h, 0.072 * h * g)
    out = [
        Primitive("ellipsoid", ribs, 0.215 * h * p["spine"], frame, slot["chest"], item),
        Primitive("ellipsoid", belt, 0.105 * h * p["spine"], frame, slot["chest"], item),
        Primitive("ellipsoid", seat, p["pelvis"] - 0.005 * h * p["spine"], frame, slot["pelvis"], item),
        _limb(p["shoulder0"], p["shoulder1"], (0.038 * h * g, 0.038 * h * g), slot["chest"], item),
        _limb(p["neck"] - 0.02 * h * p["spine"], p["head"], (0.034 * h, 0.030 * h), slot["skin"], item),
    ]
    if build.skirt:
        lowest = 0.5 * (p["knee0"] + p["knee1"]) - p["pelvis"]
        down = lowest / max(float(np.linalg.norm(lowest)), 1e-6)
        spread = 0.5 * float(np.linalg.norm(p["knee0"] - p["knee1"]))
        length = build.skirt * h
        hem = max(seat[0] * 1.25, min(0.35, spread * length / (0.235 * h)) + 0.075 * h)
        frame = frame_along(-down, np.array([0.0, 0.0, 1.0]))
        low = p["pelvis"] + 0.05 * h * p["spine"] + down * length
        out.append(Primitive("frustum", (hem, 0.7 * seat[0], length), low, frame, slot["skirt"], item))
    return out


def _head(p: dict[str, Array], build: Build, slot: dict[str, int], item: int) -> list[Primitive]:
    h = build.height
    frame = frame_along(p["up"], np.array([0.0, 0.0, 1.0]))
    face = frame[2]
    crown = p["head"] + 0.026 * h * p["up"] - 0.020 * h * face
    out = [
        Primitive("ellipsoid", (0.056 * h, 0.073 * h, 0.062 * h), p["head"], frame, slot["skin"], item),
        Primitive("ellipsoid", (0.062 * h, 0.062 * h, 0.062 * h), crown, frame, slot["hair"], item),
    ]
    if build.long_hair:
        low = p["head"] - 0.13 * h * p["up"] - 0.055 * h * face
        out.append(_limb(crown - 0.008 * h * face, low, (0.058 * h, 0.045 * h), slot["hair"], item))
    return out


def _limbs(p: dict[str, Array], build: Build, slot: dict[str, int], item: int) -> list[Primitive]:
    h, g = build.height, build.girth
    out = []
    for index in "01":
        shoulder, elbow, wrist = p["shoulder" + index], p["elbow" + index], p["wrist" + index]
        hip, knee, ankle = p["hip" + index], p["knee" + index], p["ankle" + index]
        hand = wrist + 0.045 * h * (wrist - elbow) / np.linalg.norm(wrist - elbow)
        shin = (ankle - knee) / np.linalg.norm(ankle - knee)
        ahead = np.array([0.0, 0.0, 1.0]) - shin[2] * shin
        ahead = ahead / np.linalg.norm(ahead) if np.linalg.norm(ahead) > 0.3 else np.array([0.0, 1.0, 0.0])
        toe = ankle + 0.105 * h * (0.93 * ahead + 0.35 * shin)
        out += [
            _limb(shoulder, elbow, (0.036 * h * g, 0.030 * h * g), slot["upper_arm"], item),
            _limb(elbow, wrist, (0.030 * h * g, 0.023 * h), slot["forearm"], item),
            _limb(wrist, hand, (0.026 * h, 0.024 * h), slot["skin"], item),
            _limb(hip, knee, (0.058 * h * g, 0.040 * h * g), slot["thigh"], item),
            _limb(knee, ankle, (0.040 * h * g, 0.028 * h), slot["shin"], item),
            _limb(ankle - 0.02 * h * ahead + 0.012 * h * shin, toe, (0.033 * h, 0.024 * h), slot["foot"], item),
        ]
    return out


def lowest(primitive: Primitive) -> float:
    """Height of the lowest point of a primitive (of a box's corner, of the others' round hull)."""
    a, b, c = primitive.size
    up = primitive.axes[:, 1]
    if primitive.kind == "ellipsoid":
        return float(primitive.centre[1] - np.linalg.norm(np.array([a, b, c]) * up))
    if primitive.kind == "box":
        return float(primitive.centre[1] - np.abs(np.array([a, b, c]) * up).sum())
    top = primitive.centre[1] + c * up[1]
    if primitive.kind == "rounded":
        return float(min(primitive.centre[1] - a, top - b))
    flat = float(np.sqrt(max(0.0, 1 - up[1] ** 2)))
    return float(min(primitive.centre[1] - a * flat, top - b * flat))


def moved(primitive: Primitive, turn: Array, shift: Array) -> Primitive:
    """Turn a primitive by the rotation (3, 3), then shift it."""
    p = primitive
    return Primitive(p.kind, p.size, turn @ p.centre + shift, p.axes @ turn.T, p.slot, p.item)


def build_body(build: Build, pose: Pose, slots: dict[str, int], item: int, *, raised: float = 0.0) -> Body:
    """Build a figure at the origin that faces +z, its lowest point at y = `raised`."""
    p = _joints(build, pose)
    primitives = _trunk(p, build, slots, item) + _limbs(p, build, slots, item) + _head(p, build, slots, item)
    order = [
        "head",
        "neck",
        *(name + side for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in "01"),
    ]
    joints = np.stack([p[name] for name in order])
    turn = np.eye(3)
    if pose.lying:
        angle = -np.pi / 2 * pose.lying
        turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    primitives = [moved(primitive, turn, np.zeros(3)) for primitive in primitives]
    shift = np.array([0.0, raised - min(map(lowest, primitives)), 0.0])
    primitives = [moved(primitive, np.eye(3), shift) for primitive in primitives]
    return Body(primitives, joints @ turn.T + shift)
