"""Seeded scenes: jointed figures and solids on a plain floor, in a room or in a landscape, framed large.

World: y up, floor y = 0, camera at (0, height, 0) looking along +z and down by `pitch`, x to the right; metres. A ray's
parameter is its depth along the camera's axis, so inverse depth is 1 / t in 1/metres, larger = nearer, 0 for the sky.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from tools.embedded_model.figures import PARTS, Array, Primitive, build_body, moved
from tools.embedded_model.poses import POSE_NAMES, POSES, Rng, holding, sample_build

TRAINING_SEEDS: Final = range(0, 1_000_000)
HELD_OUT_SEEDS: Final = range(9_000_000, 9_001_000)

SOLIDS: Final = ("box", "cylinder", "sphere", "cone", "pyramid")
SETTINGS: Final = ("plain", "room", "landscape")
SURROUNDINGS: Final = ("sky", "floor", "wall", "window", "hill", "leaf", "trunk", "furniture")
MOST_ITEMS: Final = 3
SLOTS: Final = len(SURROUNDINGS) + MOST_ITEMS * len(PARTS)
SLOT: Final = {name: index for index, name in enumerate(SURROUNDINGS)}
UPRIGHT: Final = np.eye(3)
UP: Final = np.array([0.0, 1.0, 0.0])


def part_slots(item: int) -> dict[str, int]:
    """Slot of each part of item 1, 2, ...; a solid takes the first."""
    first = len(SURROUNDINGS) + (item - 1) * len(PARTS)
    return {part: first + index for index, part in enumerate(PARTS)}


@dataclass(frozen=True)
class Item:
    """Item that a caption names: a solid of a kind, or a figure (`kind` "figure") in a pose."""

    kind: str
    pose: str = ""
    woman: bool = False
    skirt: bool = False


@dataclass(frozen=True)
class Plane:
    """Points p with normal . p = offset, seen from the side that the normal points to."""

    normal: Array
    offset: float
    slot: int


@dataclass(frozen=True)
class Scene:
    """Geometry alone; colours, light and style are a `Look`.

    Attributes:
        items: from left to right as the camera sees them.
        together: "wrestling" or "dancing" for a pair that acts together, else "".
        blobs: (x, z, radius, item) of soft shadows on the floor.
        joints: (figures, 14, 3) in the world.
        trees, window, hills: what the surroundings hold.
    """

    height: float
    pitch: float
    tan_half_view: float
    sun: Array
    setting: str
    items: tuple[Item, ...]
    together: str
    primitives: tuple[Primitive, ...]
    planes: tuple[Plane, ...]
    blobs: tuple[tuple[float, float, float, int], ...]
    joints: Array
    trees: int = 0
    window: bool = False
    hills: int = 0

    def camera(self) -> Array:
        """Rotation (3, 3) from the world to the camera's frame: x right, y up, z ahead."""
        c, s = np.cos(self.pitch), np.sin(self.pitch)
        return np.array([[1, 0, 0], [0, c, s], [0, -s, c]])

    def project(self, points: Array) -> Array:
        """World points (..., 3) -> (..., 2) in the picture, 0..1 from the left and from the top."""
        seen = (points - np.array([0, self.height, 0])) @ self.camera().T
        flat = seen[..., :2] / np.maximum(seen[..., 2:], 0.05) / self.tan_half_view
        return np.stack([(flat[..., 0] + 1) / 2, (1 - flat[..., 1]) / 2], axis=-1)

    def first(self, count: int) -> Scene:
        """Leave out the items, with their shadows, after the first `count` from the left."""
        figures = sum(item.kind == "figure" for item in self.items[:count])
        primitives = tuple(p for p in self.primitives if p.item <= count)
        blobs = tuple(blob for blob in self.blobs if blob[3] <= count)
        return replace(self, items=self.items[:count], together="", primitives=primitives, blobs=blobs,
                       joints=self.joints[:figures])  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """One item before the camera is set: its primitives around the place where it stands."""

    item: Item
    primitives: list[Primitive]
    blobs: list[tuple[float, float, float]]
    joints: Array | None = None

    def placed(self, yaw: float, x: float, z: float) -> Subject:
        """Turn the subject by `yaw` about the vertical and move it."""
        c, s = np.cos(yaw), np.sin(yaw)
        turn, shift = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]), np.array([x, 0, z])
        blobs = [(c * bx + s * bz + x, -s * bx + c * bz + z, r) for bx, bz, r in self.blobs]
        joints = None if self.joints is None else self.joints @ turn.T + shift
        return Subject(self.item, [moved(p, turn, shift) for p in self.primitives], blobs, joints)

    def corners(self) -> Array:
        """Corners (N, 3) of the boxes around its primitives."""
        return np.concatenate([p.corners() for p in self.primitives])


def _solid(rng: Rng, kind: str, item: int, scale: float = 1.0) -> Subject:
    wide = float(rng.uniform(0.60, 0.95)) * scale
    tall = float(rng.uniform(1.0, 2.0)) * scale
    long = wide * float(rng.uniform(0.8, 1.2)) if kind == "box" else wide
    if kind in ("box", "pyramid"):
        wide, long = wide * 0.85, long * 0.85
    if kind in ("cone", "pyramid"):
        wide, long, tall = wide * 1.15, long * 1.15, tall * 1.15
    slot, base = part_slots(item)[PARTS[0]], np.zeros(3)
    made = {
        "box": ("box", (wide, tall / 2, long), np.array([0, tall / 2, 0])),
        "cylinder": ("frustum", (wide, wide, tall), base),
        "sphere": ("ellipsoid", (wide, wide, wide), np.array([0, wide, 0])),
        "cone": ("frustum", (wide, 0.0, tall), base),
        "pyramid": ("pyramid", (wide, wide, tall), base),
    }[kind]
    reach = float(np.hypot(wide, long)) if kind in ("box", "pyramid") else wide
    primitive = Primitive(made[0], made[1], made[2], UPRIGHT, slot, item)
    return Subject(Item(kind), [primitive], [(0.0, 0.0, reach * 1.15)])


def _seat(rng: Rng, height: float, depth: float) -> list[Primitive]:
    """Build a chair or a stool under a figure that sits at the origin, facing +z."""
    slot = SLOT["furniture"]
    out = [Primitive("box", (0.27, height / 2, 0.27), np.array([0, height / 2, depth]), UPRIGHT, slot, 0)]
    if rng.random() < 0.5:
        out.append(Primitive("box", (0.27, 0.30, 0.03), np.array([0, height + 0.28, depth - 0.25]), UPRIGHT, slot, 0))
    return out


def _figure(rng: Rng, pose: str, item: int, *, arm: int | None = None) -> Subject:
    build = sample_build(rng)
    if pose in ("lying", "wrestling", "kneeling"):
        build = replace(build, skirt=0.0)
    if pose in ("sitting", "running", "walking"):
        build = replace(build, skirt=min(build.skirt, 0.2))
    its_pose = holding(rng, arm) if arm is not None else POSES[pose](rng)
    body = build_body(build, its_pose, part_slots(item), item)
    primitives, joints = list(body.primitives), body.joints
    low = joints[:, [0, 2]]
    if pose == "lying":
        blobs = [(float(x), float(z), 0.24) for x, z in (low[0], low[1], low[8], low[10], low[12])]
    elif pose == "sitting":
        pelvis = (joints[8] + joints[9]) / 2
        primitives += _seat(rng, float(pelvis[1]) - 0.05 * build.height, float(pelvis[2]))
        blobs = [(0.0, float(pelvis[2]), 0.42), *((float(x), float(z), 0.2) for x, z in low[12:])]
    else:
        heights = joints[12:, 1]
        blobs = [(float(x), float(z), 0.26) for (x, z), y in zip(low[12:], heights, strict=True) if y < 0.5]
        blobs.append((0.0, 0.0, 0.34))
    return Subject(Item("figure", pose, build.long_hair, build.skirt > 0), primitives, blobs, joints)


def _yaw(rng: Rng, pose: str) -> float:
    """Mostly towards the camera; walking, running, bowing and kneeling rather from the side."""
    if pose == "lying":
        return float(rng.choice([-1, 1]) * np.pi / 2 + rng.normal(0, 0.35))
    if pose in ("walking", "running", "bowing", "kneeling", "sitting", "wrestling"):
        return float(np.pi + rng.choice([-1, 1]) * rng.uniform(0.35, 1.75))
    if rng.random() < 0.08:
        return float(rng.normal(0, 0.4))
    return float(np.pi + rng.normal(0, 0.45))


def _pair(rng: Rng, together: str) -> list[Subject]:
    if together == "wrestling":
        gap = float(rng.uniform(0.38, 0.52))
        one = _figure(rng, "wrestling", 1).placed(np.pi / 2 + rng.normal(0, 0.25), -gap, rng.normal(0, 0.05))
        two = _figure(rng, "wrestling", 2).placed(-np.pi / 2 + rng.normal(0, 0.25), gap, rng.normal(0, 0.05))
        return [one, two]
    gap = float(rng.uniform(0.52, 0.66))
    one = _figure(rng, "dancing", 1, arm=1).placed(np.pi + rng.normal(0, 0.3), -gap, rng.normal(0, 0.1))
    two = _figure(rng, "dancing", 2, arm=0).placed(np.pi + rng.normal(0, 0.3), gap, rng.normal(0, 0.1))
    return [one, two]


def _row(rng: Rng, subjects: list[Subject]) -> list[Subject]:
    """Side by side with a small gap, some a little behind."""
    out: list[Subject] = []
    edge = 0.0
    for subject in subjects:
        yaw = _yaw(rng, subject.item.pose) if subject.item.kind == "figure" else float(rng.uniform(0, np.pi / 2))
        turned = subject.placed(yaw, 0.0, float(rng.uniform(-0.35, 0.35)))
        across = turned.corners()[:, 0]
        gap = float(rng.uniform(0.02, 0.22)) if len(subjects) == 1 else float(rng.uniform(-0.18, 0.10))
        out.append(turned.placed(0.0, edge + gap - float(across.min()), 0.0))
        edge = float(out[-1].corners()[:, 0].max())
    return out


def _subjects(rng: Rng, together: str = "") -> tuple[list[Subject], str]:
    roll = rng.random()
    if together:
        return _pair(rng, together), together
    if roll < 0.14:
        return _pair(rng, "wrestling"), "wrestling"
    if roll < 0.26:
        return _pair(rng, "dancing"), "dancing"
    if roll < 0.50:
        kinds = ["figure"]
    elif roll < 0.62:
        kinds = ["figure"] * 2
    elif roll < 0.68:
        kinds = ["figure"] * 3
    elif roll < 0.90:
        count = 1 if rng.random() < 0.4 else 2
        kinds = [SOLIDS[int(kind)] for kind in rng.choice(len(SOLIDS), size=count, replace=False)]
    else:
        kinds = ["figure", SOLIDS[int(rng.integers(len(SOLIDS)))]]
        rng.shuffle(kinds)
    weights = np.array([1.5, 1.6, 1, 1, 1.2, 1, 1.2, 0.8, 1.6, 0.5, 0.8 if len(kinds) == 1 else 0.0, 0.5])
    made = []
    for index, kind in enumerate(kinds):
        if kind == "figure":
            made.append(
                _figure(rng, POSE_NAMES[int(rng.choice(len(POSE_NAMES), p=weights / weights.sum()))], index + 1)
            )
        else:
            made.append(_solid(rng, kind, index + 1, 0.62 if "figure" in kinds else 1.0))
    return _row(rng, made), ""


def _framed(rng: Rng, points: Array, height: float, tan_half_view: float) -> tuple[Array, float]:
    """Shift (3,) of the subjects and pitch such that they fill most of the frame."""
    fill = float(rng.uniform(0.74, 0.95))
    aim = rng.uniform(-1, 1, 2) * (0.98 - fill) * 0.8
    shift, pitch = np.array([0.0, 0.0, 3.5]), 0.2
    for _ in range(12):
        moved_points = points + shift - np.array([0, height, 0])
        c, s = np.cos(pitch), np.sin(pitch)
        ahead = np.maximum(moved_points @ np.array([0, -s, c]), 0.3)
        across = moved_points[:, 0] / ahead / tan_half_view
        up = moved_points @ np.array([0, c, s]) / ahead / tan_half_view
        half = max(float(np.ptp(across)), float(np.ptp(up))) / 2
        shift[0] -= ((across.max() + across.min()) / 2 - aim[0]) * float(np.median(ahead)) * tan_half_view * 0.9
        pitch -= ((up.max() + up.min()) / 2 - aim[1]) * tan_half_view * 0.8
        pitch = float(np.clip(pitch, -0.02, 0.75))
        shift[2] = float(np.clip(shift[2] * (half / fill) ** 0.9, 1.2, 14.0))
    return shift, pitch


def _room(rng: Rng, subjects: Array) -> tuple[list[Plane], list[Primitive], bool]:
    """Back wall, now and then a side wall, a window, a table; subjects (corners, (N, 3)) and camera are inside."""
    turn = float(rng.normal(0, 0.22))
    normal = np.array([np.sin(turn), 0.0, -np.cos(turn)])
    across = np.array([np.cos(turn), 0, np.sin(turn)])
    foot = np.array([0, 0, float(subjects[:, 2].max()) + float(rng.uniform(0.8, 2.0))])
    planes = [Plane(normal, float(normal @ foot), SLOT["wall"])]
    inside = np.concatenate([subjects, np.zeros((1, 3))])
    for side in (-1.0, 1.0):
        if rng.random() < 0.3:
            out = -side * across
            planes.append(Plane(out, float((inside @ out).min() - rng.uniform(0.15, 0.9)), SLOT["wall"]))
    things: list[Primitive] = []
    axes = np.stack([across, np.array([0, 1.0, 0]), -normal])
    window = rng.random() < 0.45
    if window:
        place = foot + across * rng.uniform(-1.2, 1.2) + np.array([0, rng.uniform(1.4, 1.8), 0])
        wide, tall = float(rng.uniform(0.35, 0.6)), float(rng.uniform(0.4, 0.6))
        things.append(Primitive("box", (wide + 0.07, tall + 0.07, 0.03), place, axes, SLOT["furniture"], 0))
        things.append(Primitive("box", (wide, tall, 0.05), place, axes, SLOT["window"], 0))
    if rng.random() < 0.3:
        side = float(rng.choice([-1, 1])) * rng.uniform(0.9, 1.5)
        place = foot + across * side + normal * 0.45
        tall = float(rng.uniform(0.6, 0.8))
        things.append(Primitive("box", (0.5, 0.035, 0.35), place + UP * tall, axes, SLOT["furniture"], 0))
        things += [
            Primitive("frustum", (0.035, 0.035, tall), place + across * x + normal * z, UPRIGHT, SLOT["furniture"], 0)
            for x in (-0.42, 0.42) for z in (-0.28, 0.28)
        ]  # fmt: skip
    return planes, things, window


def _landscape(rng: Rng, nearest: float) -> tuple[list[Primitive], int, int]:
    """Hills at the horizon and trees behind the subjects."""
    things: list[Primitive] = []
    hills, trees = int(rng.integers(0, 4)), int(rng.integers(0, 4))
    for _ in range(hills):
        wide = float(rng.uniform(6, 12))
        place = np.array([rng.uniform(-14, 14), -0.4, nearest + rng.uniform(16, 26)])
        things.append(
            Primitive("ellipsoid", (wide, float(rng.uniform(2.0, 4.5)), 5.0), place, UPRIGHT, SLOT["hill"], 0)
        )
    for _ in range(trees):
        z = nearest + float(rng.uniform(1.2, 6.0))
        place = np.array([float(rng.choice([-1, 1])) * rng.uniform(0.15, 0.55) * z, 0.0, z])
        tall, trunk = float(rng.uniform(1.8, 3.4)), float(rng.uniform(0.4, 0.9))
        things.append(Primitive("frustum", (0.13, 0.10, trunk + 0.3), place, UPRIGHT, SLOT["trunk"], 0))
        wide = float(rng.uniform(0.5, 0.85))
        if rng.random() < 0.5:
            things.append(Primitive("frustum", (wide, 0.0, tall), place + UP * trunk, UPRIGHT, SLOT["leaf"], 0))
        else:
            crown = (wide, wide * 1.15, wide)
            things.append(Primitive("ellipsoid", crown, place + UP * (trunk + wide), UPRIGHT, SLOT["leaf"], 0))
    return things, trees, hills


def sample_scene(rng: Rng, together: str = "") -> Scene:
    """Draw a scene, or a pair that acts together; it may hide an item (see `dataset.showing`)."""
    subjects, together = _subjects(rng, together)
    tan_half_view = float(rng.uniform(0.42, 0.60))
    figures = any(subject.item.kind == "figure" for subject in subjects)
    height = float(rng.uniform(0.8, 1.9) if figures else rng.uniform(0.9, 2.1))
    shift, pitch = _framed(rng, np.concatenate([s.corners() for s in subjects]), height, tan_half_view)
    subjects = [s.placed(0.0, float(shift[0]), float(shift[2])) for s in subjects]
    order = np.argsort([s.corners()[:, 0].mean() / s.corners()[:, 2].mean() for s in subjects])
    corners = np.concatenate([s.corners() for s in subjects])
    setting = SETTINGS[int(rng.choice(3, p=(0.36, 0.34, 0.30)))]
    planes = [Plane(np.array([0, 1.0, 0]), 0.0, SLOT["floor"])]
    things: list[Primitive] = []
    window, trees, hills = False, 0, 0
    if setting == "room":
        walls, things, window = _room(rng, corners)
        planes += walls
    elif setting == "landscape":
        things, trees, hills = _landscape(rng, float(corners[:, 2].max()))
    bearing, elevation = float(rng.uniform(-np.pi, 0)), float(rng.uniform(0.5, 1.0))
    sun = np.array([np.cos(elevation) * np.cos(bearing), np.sin(elevation), np.cos(elevation) * np.sin(bearing)])
    joints = [subjects[i].joints for i in order]
    return Scene(
        height, pitch, tan_half_view, sun, setting, tuple(subjects[i].item for i in order), together,
        tuple(things) + tuple(p for i in order for p in _renumbered(subjects[i], list(order).index(i) + 1)),
        tuple(planes), tuple((*blob, n + 1) for n, i in enumerate(order) for blob in subjects[i].blobs),
        np.array([j for j in joints if j is not None]).reshape(-1, 14, 3), trees, window, hills,
    )  # fmt: skip


def _renumbered(subject: Subject, item: int) -> list[Primitive]:
    """Return the subject's primitives with the slots of another place in the row."""
    out = []
    for p in subject.primitives:
        if p.item:
            offset = (item - p.item) * len(PARTS)
            out.append(replace(p, item=item, slot=p.slot + offset))
        else:
            out.append(p)
    return out
