"""Exact ray intersections with the five primitives that every scene is made of, batched in torch.

Rays start at the origin of the camera's frame and are given in the primitive's own frame: `start` (M, 1) per axis,
`toward` (M, N) per axis, for M primitives and N rays each. An intersection returns the ray parameter (M, N), inf where
the ray misses. Every primitive has y as its axis:

    ellipsoid   half axes a, b, c, centred
    box         half sides a, b, c, centred
    rounded     hull of a sphere of radius a at y = 0 and one of radius b at y = c (Quilez 2018)
    frustum     0 <= y <= c, radius a at the bottom, b at the top: cylinder, cone, skirt
    pyramid     square base of half side a at y = 0, apex at y = c
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

KINDS: Final = ("ellipsoid", "box", "rounded", "frustum", "pyramid")
Axes = tuple[Tensor, Tensor, Tensor]
INF: Final = float("inf")


def _first(one: Tensor, two: Tensor) -> Tensor:
    """Smaller of two parameters, those that are not positive or not a number counting as misses."""
    return torch.minimum(torch.where(one > 0, one, INF), torch.where(two > 0, two, INF))


def _ellipsoid(start: Axes, toward: Axes, size: Axes) -> Tensor:
    x, y, z = (s / a for s, a in zip(start, size, strict=True))
    u, v, w = (d / a for d, a in zip(toward, size, strict=True))
    a = u * u + v * v + w * w
    b = x * u + y * v + z * w
    root = (b * b - a * (x * x + y * y + z * z - 1)).sqrt()  # NaN: a miss
    t = (-b - root) / a
    return torch.where(t > 0, t, INF)


def _slabs(start: Axes, toward: Axes, low: Axes, high: Axes) -> Tensor:
    enter, leave = torch.full_like(toward[0], -INF), torch.full_like(toward[0], INF)
    for s, d, near, far in zip(start, toward, low, high, strict=True):
        one, two = (near - s) / d, (far - s) / d
        enter = torch.maximum(enter, torch.minimum(one, two))
        leave = torch.minimum(leave, torch.maximum(one, two))
    return torch.where((enter < leave) & (enter > 0), enter, INF)


def _box(start: Axes, toward: Axes, size: Axes) -> Tensor:
    return _slabs(start, toward, (-size[0], -size[1], -size[2]), size)


def _rounded(start: Axes, toward: Axes, size: Axes) -> Tensor:
    bottom, top, height = size
    length = (toward[0] ** 2 + toward[1] ** 2 + toward[2] ** 2).sqrt()
    x, y, z = start
    u, v, w = toward[0] / length, toward[1] / length, toward[2] / length
    slope = bottom - top
    m1, m2 = height * y, height * v
    m3 = x * u + y * v + z * w
    m5 = x * x + y * y + z * z
    m6, m7 = m3 - height * v, m5 - 2 * height * y + height * height
    d2 = height * height - slope * slope
    k2 = d2 - m2 * m2
    k1 = d2 * m3 - m1 * m2 + m2 * slope * bottom
    k0 = d2 * m5 - m1 * m1 + m1 * slope * bottom * 2 - height * height * bottom * bottom
    side = (-(k1 * k1 - k0 * k2).sqrt() - k1) / k2
    level = m1 - bottom * slope + side * m2
    side = torch.where((level > 0) & (level < d2) & (side > 0), side, INF)
    one = -m3 - (m3 * m3 - m5 + bottom * bottom).sqrt()
    two = -m6 - (m6 * m6 - m7 + top * top).sqrt()
    return torch.minimum(side, _first(one, two)) / length


def _frustum(start: Axes, toward: Axes, size: Axes) -> Tensor:
    bottom, top, height = size
    x, y, z = start
    u, v, w = toward
    taper = (bottom - top) / height
    reach = bottom - taper * y
    a = u * u + w * w - (taper * v) ** 2
    b = x * u + z * w + taper * v * reach
    root = (b * b - a * (x * x + z * z - reach * reach)).sqrt()
    t = torch.full_like(root, INF)
    for sign in (-1.0, 1.0):
        side = (sign * root - b) / a
        level = y + side * v
        t = torch.minimum(t, torch.where((side > 0) & (level >= 0) & (level <= height), side, INF))
    for level, radius in ((torch.zeros_like(height), bottom), (height, top)):
        cap = (level - y) / v
        inside = (x + cap * u) ** 2 + (z + cap * w) ** 2 <= radius * radius
        t = torch.minimum(t, torch.where(inside & (cap > 0), cap, INF))
    return t


def _pyramid(start: Axes, toward: Axes, size: Axes) -> Tensor:
    half, _, height = size
    x, y, z = start
    u, v, w = toward
    norm = (height * height + half * half).sqrt()
    out, up = height / norm, half / norm
    faces = [(s * out, up, 0.0, half * out) for s in (1.0, -1.0)] + [
        (0.0, up, s * out, half * out) for s in (1.0, -1.0)
    ]
    enter, leave = torch.full_like(u, -INF), torch.full_like(u, INF)
    for nx, ny, nz, offset in [*faces, (0.0, -1.0, 0.0, 0.0)]:
        speed = nx * u + ny * v + nz * w
        cross = (offset - (nx * x + ny * y + nz * z)) / speed
        enter = torch.where(speed < 0, torch.maximum(enter, cross), enter)
        leave = torch.where(speed > 0, torch.minimum(leave, cross), leave)
    return torch.where((enter < leave) & (enter > 0), enter, INF)


INTERSECT: Final[dict[str, Callable[[Axes, Axes, Axes], Tensor]]] = {
    "ellipsoid": _ellipsoid,
    "box": _box,
    "rounded": _rounded,
    "frustum": _frustum,
    "pyramid": _pyramid,
}


def extents(
    kind: str, size: tuple[float, float, float]
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Lowest and highest corner of the primitive in its own frame."""
    a, b, c = size
    if kind in ("ellipsoid", "box"):
        return (-a, -b, -c), (a, b, c)
    wide = max(a, b) if kind != "pyramid" else a
    if kind == "rounded":
        return (-wide, -a, -wide), (wide, c + b, wide)
    return (-wide, 0.0, -wide), (wide, c, wide)


def normals(kind: Tensor, point: Tensor, size: Tensor) -> Tensor:
    """Outward unit normals (N, 3) in the primitive's frame.

    Args:
        kind: int64 (N,), indices into KINDS.
        point: (N, 3) on the surface, in the primitive's frame.
        size: (N, 3).
    """
    x, y, z = point.unbind(-1)
    a, b, c = size.unbind(-1)
    zero = torch.zeros_like(x)
    ellipsoid = point / (size * size)
    face = (point / size).abs().argmax(dim=-1, keepdim=True)
    box = torch.zeros_like(point).scatter(-1, face, point.gather(-1, face).sign())
    slope = a - b
    level = (c * y - a * slope) / (c * c - slope * slope).clamp_min(1e-9)
    rounded = torch.stack([x, y - level.clamp(0, 1) * c, z], dim=-1)
    taper = slope / c.clamp_min(1e-9)
    side = torch.stack([x, taper * (a - taper * y), z], dim=-1)
    edge = 1e-4 * (1 + c)
    cap = torch.where(y > c - edge, 1.0, torch.where(y < edge, -1.0, 0.0))
    on_cap = (cap != 0) & ((x * x + z * z).sqrt() < a - taper * y - edge)
    frustum = torch.where(on_cap[:, None], torch.stack([zero, cap, zero], dim=-1), side)
    steep = torch.where((x.abs() > z.abs())[:, None], torch.stack([c * x.sign(), a, zero], -1),
                        torch.stack([zero, a, c * z.sign()], -1))  # fmt: skip
    pyramid = torch.where((y < edge)[:, None], torch.stack([zero, -torch.ones_like(x), zero], -1), steep)
    out = torch.stack([ellipsoid, box, rounded, frustum, pyramid], dim=1)
    chosen = out.gather(1, kind[:, None, None].expand(-1, 1, 3))[:, 0]
    return torch.nn.functional.normalize(chosen, dim=-1, eps=1e-12)
