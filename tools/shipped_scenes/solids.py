"""Exact ray intersections with the five solids, each standing on the floor y = 0.

Rays are given in the solid's own frame (its base centred on the origin, y up). An intersection
returns `(t, normal)`: t (N,) in ray parameters, inf where the ray misses, and the outward unit
normal (N, 3), undefined where it misses. Formulae: slab and half-space clipping for the convex
polyhedra (Kay and Kajiya 1986), the quadratic of the implicit surface for the round ones.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Hit = tuple[FloatArray, FloatArray]

KINDS: Final = ("box", "cylinder", "sphere", "cone", "pyramid")
_FAR: Final = np.float32(np.inf)


def _polyhedron(origin: FloatArray, direction: FloatArray, normals: FloatArray, offsets: FloatArray) -> Hit:
    """Convex solid {p : normals @ p <= offsets}; normals (P, 3) of unit length, offsets (P,)."""
    speed = direction @ normals.T
    gap = offsets - origin @ normals.T
    with np.errstate(divide="ignore", invalid="ignore"):
        cross = gap / speed
    enter = np.where(speed < 0, cross, -_FAR)
    leave = np.where(speed > 0, cross, _FAR)
    face = np.argmax(enter, axis=1)
    first = np.take_along_axis(enter, face[:, None], axis=1)[:, 0]
    hit = (first < leave.min(axis=1)) & (first > 0)
    return np.where(hit, first, _FAR).astype(np.float32), normals[face]


def _box(origin: FloatArray, direction: FloatArray, size: tuple[float, float, float]) -> Hit:
    width, height, length = size
    normals = np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32)
    offsets = np.array([width, height, length, width, 0.0, length], dtype=np.float32)
    return _polyhedron(origin, direction, normals, offsets)


def _pyramid(origin: FloatArray, direction: FloatArray, size: tuple[float, float, float]) -> Hit:
    width, height, _ = size
    slope = np.array([height, width], dtype=np.float32) / np.hypot(height, width)
    out, up = float(slope[0]), float(slope[1])
    normals = np.array([[out, up, 0], [-out, up, 0], [0, up, out], [0, up, -out], [0, -1, 0]], dtype=np.float32)
    offsets = np.array([width * out] * 4 + [0.0], dtype=np.float32)
    return _polyhedron(origin, direction, normals, offsets)


def _smaller_root(a: FloatArray, half_b: FloatArray, c: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Both roots of a t^2 + 2 half_b t + c = 0, in rising order; NaN where there are none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(half_b * half_b - a * c)
        one, two = (-half_b - root) / a, (-half_b + root) / a
    return np.minimum(one, two), np.maximum(one, two)


def _sphere(origin: FloatArray, direction: FloatArray, size: tuple[float, float, float]) -> Hit:
    radius = size[0]
    start = origin - np.array([0, radius, 0], dtype=np.float32)
    first, _ = _smaller_root(
        (direction**2).sum(axis=1), (start * direction).sum(axis=1), (start**2).sum(axis=1) - radius**2
    )
    hit = np.isfinite(first) & (first > 0)
    t = np.where(hit, first, _FAR).astype(np.float32)
    return t, (start + np.where(hit, first, 0)[:, None] * direction) / np.float32(radius)


def _round_side(origin: FloatArray, direction: FloatArray, size: tuple[float, float, float], taper: float) -> Hit:
    """Side of x^2 + z^2 = (radius - taper * y)^2 for 0 <= y <= height (taper 0: a cylinder)."""
    radius, height, _ = size
    x, y, z = origin.T
    u, v, w = direction.T
    reach = radius - taper * y
    roots = _smaller_root(
        u * u + w * w - (taper * v) ** 2, x * u + z * w + taper * v * reach, x * x + z * z - reach * reach
    )
    t = np.full(len(origin), _FAR, dtype=np.float32)
    for root in reversed(roots):
        level = y + root * v
        t = np.where((root > 0) & (level >= 0) & (level <= height), root, t)
    point = origin + np.where(np.isfinite(t), t, 0)[:, None] * direction
    normal = np.stack([point[:, 0], taper * (radius - taper * point[:, 1]), point[:, 2]], axis=1)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return t.astype(np.float32), (normal / np.maximum(length, 1e-6)).astype(np.float32)


def _cylinder(origin: FloatArray, direction: FloatArray, size: tuple[float, float, float]) -> Hit:
    radius, height, _ = size
    t, normal = _round_side(origin, direction, size, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        cap = (height - origin[:, 1]) / direction[:, 1]
        point = origin + cap[:, None] * direction
    better = (cap > 0) & (cap < t) & (point[:, 0] ** 2 + point[:, 2] ** 2 <= radius**2)
    normal = np.where(better[:, None], np.array([0, 1, 0], dtype=np.float32), normal)
    return np.where(better, cap, t).astype(np.float32), normal


def _cone(origin: FloatArray, direction: FloatArray, size: tuple[float, float, float]) -> Hit:
    return _round_side(origin, direction, size, size[0] / size[1])


_BY_KIND: Final = {"box": _box, "cylinder": _cylinder, "sphere": _sphere, "cone": _cone, "pyramid": _pyramid}


def intersect(kind: str, size: tuple[float, float, float], origin: FloatArray, direction: FloatArray) -> Hit:
    """First hit of rays (N, 3) with a solid; `size` = half width or radius, height, half length."""
    with np.errstate(over="ignore", invalid="ignore"):
        return _BY_KIND[kind](origin, direction, size)
