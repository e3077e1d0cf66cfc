"""Seeded scenes of one or two large solids on a floor under a sky, and their exact ray-cast picture.

World: y up, floor y = 0, camera at (0, height, 0) looking along +z and down by `pitch`. A ray's
parameter t is its depth along the camera's axis, so inverse depth is 1 / t in 1/scene units,
larger = nearer, 0 for the sky.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from tools.embedded_model.palette import BACKGROUND_COLOURS, COLOUR_NAMES, COLOURS, FOG_COLOUR, LIGHT_NAMES, LIGHTS
from tools.shipped_scenes.solids import KINDS, intersect

FloatArray = npt.NDArray[np.float32]

SIDE: Final = 128
OVERSAMPLING: Final = 2
COLOUR_TABLE: Final = np.array([COLOURS[name] for name in COLOUR_NAMES[:BACKGROUND_COLOURS]], dtype=np.float32)
"""Colours that the shipped model knows: neither pink nor black."""
TRAINING_SEEDS: Final = range(0, 6000)
HELD_OUT_SEEDS: Final = range(9_000_000, 9_001_000)


@dataclass(frozen=True)
class Solid:
    """One solid: kind, (half width or radius, height, half length), place on the floor, turn in radians."""

    kind: str
    size: tuple[float, float, float]
    x: float
    z: float
    turn: float

    @property
    def reach(self) -> float:
        """Radius of the circle on the floor that holds the solid's base."""
        wide, _, long = self.size
        return float(np.hypot(wide, long)) if self.kind in ("box", "pyramid") else wide


@dataclass(frozen=True)
class Geometry:
    """Camera and solids, from left to right as the camera sees them."""

    height: float
    pitch: float
    tan_half_view: float
    sun: tuple[float, float, float]
    solids: tuple[Solid, ...]


@dataclass(frozen=True)
class Look:
    """Colours as indices into COLOUR_NAMES (solids in the geometry's order), and the light word."""

    solids: tuple[int, ...]
    floor: int
    sky: int
    light: str


@dataclass(frozen=True)
class Buffers:
    """Geometry per oversampled pixel, (S, S) each.

    Region 0 is sky, 1 floor, 2.. solids; Lambert's cosine is -1 where it does not apply; the flat shade is 0..1,
    inverse depth in 1/scene units.
    """

    region: npt.NDArray[np.int64]
    cosine: FloatArray
    flat_shade: FloatArray
    inverse_depth: FloatArray


def _sample_solid(rng: np.random.Generator, kind: str, tan_half_view: float) -> Solid:
    wide = float(rng.uniform(0.60, 0.95))
    tall = float(rng.uniform(1.0, 2.0))
    long = wide * float(rng.uniform(0.8, 1.2)) if kind == "box" else wide
    if kind == "sphere":
        wide = long = float(rng.uniform(0.70, 1.05))
        tall = 2 * wide
    if kind in ("box", "pyramid"):
        wide, long = wide * 0.85, long * 0.85
    if kind in ("cone", "pyramid"):
        wide, long, tall = wide * 1.15, long * 1.15, tall * 1.15
    z = float(rng.uniform(2.9, 4.8))
    x = float(rng.uniform(-0.8, 0.8)) * tan_half_view * z
    return Solid(kind, (wide, tall, long), x, z, float(rng.uniform(0, np.pi / 2)))


def _well_placed(solids: list[Solid]) -> bool:
    """Check that no bases meet and no solid hides much of another."""
    for index, one in enumerate(solids):
        for two in solids[index + 1 :]:
            if np.hypot(one.x - two.x, one.z - two.z) < one.reach + two.reach + 0.1:
                return False
            gap = abs(one.x / one.z - two.x / two.z)
            if gap < 0.8 * (one.reach / one.z + two.reach / two.z):
                return False
    return True


def sample_geometry(rng: np.random.Generator) -> Geometry:
    """Draw a camera and one (40 %) or two (60 %) solids of different kinds."""
    tan_half_view = float(rng.uniform(0.50, 0.60))
    height = float(rng.uniform(0.9, 2.1))
    horizon = float(rng.uniform(0.05, 0.55))  # above the middle, in half frames
    count = 1 if rng.random() < 0.4 else 2
    while True:
        kinds = rng.choice(len(KINDS), size=count, replace=False)
        solids = [_sample_solid(rng, KINDS[int(kind)], tan_half_view) for kind in kinds]
        if _well_placed(solids):
            break
    solids.sort(key=lambda solid: solid.x / solid.z)
    bearing, elevation = float(rng.uniform(-np.pi, 0)), float(rng.uniform(0.5, 1.0))
    sun = (
        float(np.cos(elevation) * np.cos(bearing)),
        float(np.sin(elevation)),
        float(np.cos(elevation) * np.sin(bearing)),
    )
    return Geometry(height, float(np.arctan(horizon * tan_half_view)), tan_half_view, sun, tuple(solids))


def sample_look(rng: np.random.Generator, solids: int, light: str | None = None) -> Look:
    """Colours that all differ within the scene, and a light word (day twice as often as each other)."""
    colours = rng.permutation(len(COLOUR_TABLE))[: solids + 2]
    if light is None:
        light = LIGHT_NAMES[int(rng.choice(len(LIGHT_NAMES), p=(0.4, 0.2, 0.2, 0.2)))]
    return Look(tuple(int(c) for c in colours[2:]), int(colours[0]), int(colours[1]), light)


def recolour(rng: np.random.Generator, look: Look) -> Look:
    """Another look under the same light in which every colour differs from the one it replaces."""
    while True:
        other = sample_look(rng, len(look.solids), look.light)
        pairs = zip((*other.solids, other.floor, other.sky), (*look.solids, look.floor, look.sky), strict=True)
        if all(new != old for new, old in pairs):
            return other


def _rays(geometry: Geometry, pixels: int) -> FloatArray:
    """Ray directions (pixels * pixels, 3); their component along the camera's axis is 1."""
    steps = ((np.arange(pixels, dtype=np.float32) + 0.5) / pixels * 2 - 1) * geometry.tan_half_view
    right, down = np.meshgrid(steps, steps)
    cos, sin = np.cos(geometry.pitch), np.sin(geometry.pitch)
    up = -down
    return np.stack([right, up * cos - sin, up * sin + cos], axis=-1).reshape(-1, 3).astype(np.float32)


def _contact_shade(geometry: Geometry, point: FloatArray) -> FloatArray:
    """Soft shadow on the floor around each base, drawn out away from the sun; 0.5..1 for points (N, 3)."""
    shade = np.ones(len(point), dtype=np.float32)
    for solid in geometry.solids:
        shift_x, shift_z = -geometry.sun[0] * 0.35, -geometry.sun[2] * 0.35
        away = np.hypot(point[:, 0] - solid.x - shift_x, point[:, 2] - solid.z - shift_z) / (solid.reach * 1.15)
        shade *= 1.0 - 0.45 * np.clip(1.6 - 1.3 * away, 0.0, 1.0)
    return np.maximum(shade, 0.5).astype(np.float32)


def trace(geometry: Geometry, pixels: int = SIDE * OVERSAMPLING) -> Buffers:
    """Ray-cast the geometry once; colours and light are applied by `shade`."""
    direction = _rays(geometry, pixels)
    sun = np.array(geometry.sun, dtype=np.float32)
    with np.errstate(divide="ignore"):
        floor = -geometry.height / direction[:, 1]
    t = np.where(direction[:, 1] < 0, floor, np.inf).astype(np.float32)
    region = np.where(np.isfinite(t), 1, 0)
    point = np.array([0, geometry.height, 0], dtype=np.float32) + np.where(region == 1, t, 0)[:, None] * direction
    sky = 0.86 + 0.14 * np.clip(1.0 - direction[:, 1] / geometry.tan_half_view, 0.0, 1.0)
    flat_shade = np.where(region == 1, _contact_shade(geometry, point), sky).astype(np.float32)
    cosine = np.full(len(t), -1, dtype=np.float32)
    for index, solid in enumerate(geometry.solids):
        cos, sin = np.float32(np.cos(solid.turn)), np.float32(np.sin(solid.turn))
        turn = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]], dtype=np.float32)
        start = turn @ np.array([-solid.x, geometry.height, -solid.z], dtype=np.float32)
        hit, normal = intersect(solid.kind, solid.size, np.broadcast_to(start, direction.shape), direction @ turn.T)
        nearer = hit < t
        t = np.where(nearer, hit, t)
        region = np.where(nearer, index + 2, region)
        cosine = np.where(nearer, np.clip((normal @ turn) @ sun, 0, 1), cosine)
    shape = (pixels, pixels)
    return Buffers(
        region.reshape(shape),
        cosine.reshape(shape).astype(np.float32),
        flat_shade.reshape(shape),
        np.where(np.isfinite(t), 1.0 / t, 0.0).reshape(shape).astype(np.float32),
    )


def _lit(colour: FloatArray, light_name: str, inverse_depth: FloatArray) -> FloatArray:
    """Shaded colours (H, W, 3) 0..1 and inverse depth (H, W) -> colours seen under the light."""
    light = LIGHTS[light_name]
    share = np.zeros_like(inverse_depth)
    if light.fog_density:
        depth = 1.0 / np.maximum(inverse_depth, 1e-6)
        share = np.minimum(1.0 - np.exp(-light.fog_density * depth), light.fog_limit).astype(np.float32)
    fog, tint = np.array(FOG_COLOUR, np.float32), np.array(light.tint, np.float32)
    return ((1.0 - share[..., None]) * (colour * tint) + share[..., None] * fog).astype(np.float32)


def _pool(values: FloatArray) -> FloatArray:
    """Mean over OVERSAMPLING x OVERSAMPLING blocks of the first two axes."""
    side = values.shape[0] // OVERSAMPLING
    blocks = values.reshape(side, OVERSAMPLING, side, OVERSAMPLING, *values.shape[2:])
    return blocks.mean(axis=(1, 3)).astype(np.float32)


def shade(buffers: Buffers, look: Look) -> npt.NDArray[np.uint8]:
    """Anti-aliased picture, uint8 (SIDE, SIDE, 3)."""
    light = LIGHTS[look.light]
    table = COLOUR_TABLE[[look.sky, look.floor, *look.solids]]
    lambert = light.ambient + light.diffuse * buffers.cosine
    brightness = np.where(buffers.region >= 2, lambert, buffers.flat_shade)
    colour = _lit(table[buffers.region] * brightness[..., None], look.light, buffers.inverse_depth)
    return np.round(np.clip(_pool(colour), 0, 1) * 255).astype(np.uint8)


def relative_depth(buffers: Buffers) -> FloatArray:
    """Compute exact inverse depth (SIDE, SIDE) relative to the nearest point, 0..1, mean over the pixel's samples.

    The shipped estimator was trained to see this.
    """
    values = _pool(buffers.inverse_depth)
    return np.asarray(values / values.max(), np.float32)


def mean_depth(seeds: range) -> FloatArray:
    """Mean of the relative depth (SIDE, SIDE) of the scenes of some seeds: what all scenes have in common."""
    total = np.zeros((SIDE, SIDE))
    for seed in seeds:
        total += relative_depth(sample_visible(seed)[1])
    return (total / len(seeds)).astype(np.float32)


def caption(geometry: Geometry, look: Look) -> str:
    """Describe a scene in words."""
    solids = " and ".join(
        f"a {COLOUR_NAMES[colour]} {solid.kind}" for solid, colour in zip(geometry.solids, look.solids, strict=True)
    )
    return f"{solids} on a {COLOUR_NAMES[look.floor]} floor, {COLOUR_NAMES[look.sky]} sky, {look.light}"


def visible(buffers: Buffers, solids: int) -> bool:
    """Check that every solid covers at least 5 % of the picture."""
    share = [float((buffers.region == index + 2).mean()) for index in range(solids)]
    return min(share) >= 0.05


def sample_visible(seed: int) -> tuple[Geometry, Buffers, np.random.Generator]:
    """Draw the scene of a seed: geometries, until every solid shows well."""
    rng = np.random.default_rng(seed)
    while True:
        geometry = sample_geometry(rng)
        buffers = trace(geometry)
        if visible(buffers, len(geometry.solids)):
            return geometry, buffers, rng
