"""The renderer: scenes in a batch to exact depth, regions and what shading needs, on any device.

The picture is cut into tiles; every primitive is intersected in the tiles that its outline can touch, and the nearest
hit of a pixel wins by an atomic minimum over (depth, primitive) packed into one integer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from tools.embedded_model.primitives import INTERSECT, KINDS, normals
from tools.embedded_model.scenes import SLOT, Scene

OVERSAMPLING: Final = 2
TILE: Final = 16
PAIRS_AT_ONCE: Final = {"cpu": 2_000, "cuda": 60_000}
"""(primitive, tile) pairs that are intersected together."""
FAR: Final = 1e9
NOTHING: Final = 0xFFFF
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Packed:
    """B scenes as tensors, in the camera's frame; K primitives in all.

    Attributes:
        scene, kind, slot, item: int64 (K,).
        turn, centre, size: (K, 3, 3) from the camera's frame to the primitive's, (K, 3), (K, 3).
        corners: (K, 8, 3) of the box around it.
        view: (B,) tangent of half the field of view.
        planes: (B, 4, 4) normal and offset in the camera's frame; zeros for none. `plane_slot` int64 (B, 4).
        sun: (B, 3), towards it, in the camera's frame.
        axes: (B, 3, 3) from the camera's frame to the world's.
        blobs: (B, 16, 3) x and z in the world, radius; 0 for none.
    """

    scene: Tensor
    kind: Tensor
    slot: Tensor
    item: Tensor
    turn: Tensor
    centre: Tensor
    size: Tensor
    corners: Tensor
    view: Tensor
    planes: Tensor
    plane_slot: Tensor
    sun: Tensor
    axes: Tensor
    blobs: Tensor

    @classmethod
    def of(cls, arrays: dict[str, Array], device: torch.device) -> Packed:
        """From `pack_arrays`."""
        return cls(**{key: torch.from_numpy(value).to(device) for key, value in arrays.items()})


@dataclass(frozen=True)
class Buffers:
    """Data that every look of B scenes shares, at S * OVERSAMPLING pixels a side.

    Attributes:
        slot, item: uint8 (B, H, W).
        inverse_depth: float32 (B, H, W), 1/metres, 0 = sky.
        cosine: of the normal and the sun, 0..1; `up`: of the normal and the vertical, -1..1.
        gloss: of the normal and the half vector, 0..1.
        ground: soft shadow on the floor, 0.5..1.
        band: bool, stripes and checks.
        edge: bool, outlines on their nearer side.
    """

    slot: Tensor
    item: Tensor
    inverse_depth: Tensor
    cosine: Tensor
    up: Tensor
    gloss: Tensor
    ground: Tensor
    band: Tensor
    edge: Tensor


def pack_arrays(scenes: Sequence[Scene]) -> dict[str, Array]:
    """Pack scenes into the arrays of `Packed`, in numpy: this half needs no device and runs in the workers."""
    prims = [(index, scene, p) for index, scene in enumerate(scenes) for p in scene.primitives]
    cameras, eyes = [scene.camera() for scene in scenes], [np.array([0, scene.height, 0]) for scene in scenes]
    count = len(scenes)
    planes, plane_slot, blobs = np.zeros((count, 4, 4)), np.zeros((count, 4), np.int64), np.zeros((count, 16, 3))
    for index, scene in enumerate(scenes):
        for place, plane in enumerate(scene.planes[:4]):
            planes[index, place, :3] = cameras[index] @ plane.normal
            planes[index, place, 3] = plane.offset - plane.normal @ eyes[index]
            plane_slot[index, place] = plane.slot
        for place, blob in enumerate(scene.blobs[:16]):
            blobs[index, place] = blob[:3]
    floats = {
        "turn": [p.axes @ cameras[n].T for n, _, p in prims],
        "centre": [cameras[n] @ (p.centre - eyes[n]) for n, _, p in prims],
        "size": [p.size for *_, p in prims],
        "corners": [(p.corners() - eyes[n]) @ cameras[n].T for n, _, p in prims],
        "view": [scene.tan_half_view for scene in scenes],
        "planes": planes,
        "sun": [camera @ scene.sun for camera, scene in zip(cameras, scenes, strict=True)],
        "axes": [camera.T for camera in cameras],
        "blobs": blobs,
    }
    whole = {
        "scene": [n for n, *_ in prims],
        "kind": [KINDS.index(p.kind) for *_, p in prims],
        "slot": [p.slot for *_, p in prims],
        "item": [p.item for *_, p in prims],
        "plane_slot": plane_slot,
    }
    return {key: np.asarray(value, dtype=np.float32) for key, value in floats.items()} | {
        key: np.asarray(value, dtype=np.int64) for key, value in whole.items()
    }


def pack(scenes: Sequence[Scene], device: torch.device) -> Packed:
    """Scenes as tensors on a device."""
    return Packed.of(pack_arrays(scenes), device)


def _pairs(packed: Packed, pixels: int) -> tuple[Tensor, Tensor]:
    """Primitive and tile (int64 each) of every pair whose outlines can meet, sorted by kind."""
    tiles = pixels // TILE
    ahead = packed.corners[..., 2]
    flat = packed.corners[..., :2] / ahead[..., None].clamp_min(0.05) / packed.view[packed.scene][:, None, None]
    behind = (ahead < 0.06).any(dim=1)
    across, down = (flat[..., 0] + 1) / 2 * tiles, (1 - flat[..., 1]) / 2 * tiles
    first_x, last_x = across.amin(1).floor().long().clamp(0, tiles), across.amax(1).floor().long().clamp(-1, tiles - 1)
    first_y, last_y = down.amin(1).floor().long().clamp(0, tiles), down.amax(1).floor().long().clamp(-1, tiles - 1)
    first_x, first_y = first_x.masked_fill(behind, 0), first_y.masked_fill(behind, 0)
    last_x, last_y = last_x.masked_fill(behind, tiles - 1), last_y.masked_fill(behind, tiles - 1)
    wide, tall = (last_x - first_x + 1).clamp_min(0), (last_y - first_y + 1).clamp_min(0)
    count = wide * tall
    order = packed.kind.argsort(stable=True)
    which = torch.repeat_interleave(order, count[order])
    begin = torch.cumsum(count[order], 0) - count[order]
    place = torch.arange(len(which), device=which.device) - torch.repeat_interleave(begin, count[order])
    x, y = first_x[which] + place % wide[which], first_y[which] + place // wide[which]
    return which, y * tiles + x


def _toward(packed: Packed, scene: Tensor, x: Tensor, y: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """First two components of the rays through pixels, in the camera's frame; the third is 1."""
    view = packed.view[scene]
    return ((x + 0.5) / pixels * 2 - 1) * view, (1 - (y + 0.5) / pixels * 2) * view


def _nearest(packed: Packed, pixels: int) -> Tensor:
    """int64 (B, pixels * pixels): bits of the nearest primitive's depth << 16 | its index within the scene's pack."""
    count, device = len(packed.view), packed.view.device
    nothing = (int(torch.tensor(FAR).view(torch.int32)) << 16) | NOTHING
    best = torch.full((count * pixels * pixels,), nothing, dtype=torch.int64, device=device)
    first = torch.searchsorted(packed.scene, torch.arange(count, device=device))
    which, tile = _pairs(packed, pixels)
    offset = torch.arange(TILE * TILE, device=device)
    tiles = pixels // TILE
    kinds = packed.kind[which]
    ends = torch.searchsorted(kinds, torch.arange(len(KINDS) + 1, device=device)).tolist()
    step = PAIRS_AT_ONCE[device.type]
    for kind, (low, high) in enumerate(pairwise(ends)):
        for start in range(low, high, step):
            here = slice(start, min(start + step, high))
            k, scene = which[here], packed.scene[which[here]]
            x = (tile[here] % tiles * TILE)[:, None] + offset % TILE
            y = (tile[here] // tiles * TILE)[:, None] + offset // TILE
            u, v = _toward(packed, scene[:, None], x, y, pixels)
            turn, size = packed.turn[k], packed.size[k]
            begin = -(turn @ packed.centre[k][:, :, None])
            ray = [turn[:, a, 0:1] * u + turn[:, a, 1:2] * v + turn[:, a, 2:3] for a in range(3)]
            t = INTERSECT[KINDS[kind]](
                (begin[:, 0], begin[:, 1], begin[:, 2]),
                (ray[0], ray[1], ray[2]),
                (size[:, 0:1], size[:, 1:2], size[:, 2:3]),
            )
            t = torch.where(torch.isfinite(t) & (t > 0.02), t, FAR)
            key = (t.contiguous().view(torch.int32).long() << 16) | (k - first[scene])[:, None]
            place = (scene[:, None] * pixels + y) * pixels + x
            best.scatter_reduce_(0, place.reshape(-1), key.reshape(-1), "amin")
    return best.view(count, -1)


def trace(packed: Packed, side: int) -> Buffers:
    """Ray-cast B scenes for pictures of `side` pixels, a multiple of TILE / OVERSAMPLING."""
    pixels, count, device = side * OVERSAMPLING, len(packed.view), packed.view.device
    best = _nearest(packed, pixels)
    t = (best >> 16).int().view(torch.float32).view(count, pixels, pixels)
    local = (best & NOTHING).view(count, pixels, pixels)
    first = torch.searchsorted(packed.scene, torch.arange(count, device=device))
    grid = torch.arange(pixels, device=device)
    each = torch.arange(count, device=device)
    u, v = _toward(packed, each[:, None], grid[None], grid[None], pixels)
    ray = torch.stack([u[:, None].expand(-1, pixels, -1), v[:, :, None].expand(-1, -1, pixels),
                       torch.ones(count, pixels, pixels, device=device)], dim=-1)  # fmt: skip
    on_plane = packed.planes[:, None, None, :, 3] / (ray @ packed.planes[:, :, :3].mT[:, None])
    on_plane = torch.where((on_plane > 0) & torch.isfinite(on_plane), on_plane, FAR)
    plane_t, plane = on_plane.min(dim=-1)
    hit = (t < FAR) & (t < plane_t)
    t = torch.minimum(t, plane_t)
    sky = t >= FAR
    index = (first[:, None, None] + local).masked_fill(~hit, 0)
    plane_slot = packed.plane_slot.gather(1, plane.view(count, -1)).view_as(plane)
    slot = torch.where(hit, packed.slot[index], torch.where(sky, SLOT["sky"], plane_slot))
    item = torch.where(hit, packed.item[index], 0)
    normal = packed.planes[:, :, :3].gather(1, plane.view(count, -1, 1).expand(-1, -1, 3)).view(*plane.shape, 3)
    seen = t[..., None] * ray
    band = _checks(packed, seen)
    where = hit.nonzero(as_tuple=True)
    chosen = index[where]
    point = (packed.turn[chosen] @ (seen[where] - packed.centre[chosen])[:, :, None])[:, :, 0]
    local_normal = normals(packed.kind[chosen], point, packed.size[chosen])
    normal[where] = (packed.turn[chosen].mT @ local_normal[:, :, None])[:, :, 0]
    height = point[:, 1] / packed.size[chosen].amax(dim=1)
    band[where] = (height * 4.0).floor().long() % 2 == 0
    normal = torch.where(sky[..., None], 0.0, normal)
    half = functional.normalize(packed.sun[:, None, None] - functional.normalize(ray, dim=-1), dim=-1)
    upward = packed.axes[:, 1]
    return Buffers(
        slot.byte(), item.byte(), torch.where(sky, 0.0, 1.0 / t),
        (normal * packed.sun[:, None, None]).sum(-1).clamp(0, 1),
        (normal * upward[:, None, None]).sum(-1),
        (normal * half).sum(-1).clamp(0, 1),
        _ground_shade(packed, seen, slot),
        band, _edges(slot, item, index, hit, normal, torch.where(sky, 0.0, 1.0 / t)),
    )  # fmt: skip


def _world(packed: Packed, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Compute x and z in the world of points (B, H, W, 3) in the camera's frame."""
    across = (seen * packed.axes[:, None, None, 0]).sum(-1)
    along = (seen * packed.axes[:, None, None, 2]).sum(-1)
    return across, along


def _checks(packed: Packed, seen: Tensor) -> Tensor:
    x, z = _world(packed, seen.clamp(-1e4, 1e4))
    return (x.div(0.6).floor().long() + z.div(0.6).floor().long()) % 2 == 0


def _ground_shade(packed: Packed, seen: Tensor, slot: Tensor) -> Tensor:
    """Soft shadows on the floor, drawn out a little away from the sun; 0.5..1."""
    x, z = _world(packed, seen.clamp(-1e4, 1e4))
    world_sun = (packed.axes @ packed.sun[:, :, None])[:, :, 0]
    shade = torch.ones_like(x)
    for n in range(packed.blobs.shape[1]):
        blob = packed.blobs[:, n, :, None, None]
        if not bool((blob[:, 2] > 0).any()):
            continue
        radius = blob[:, 2].clamp_min(1e-3)
        dx = x - blob[:, 0] + 0.3 * radius * world_sun[:, 0, None, None]
        dz = z - blob[:, 1] + 0.3 * radius * world_sun[:, 2, None, None]
        away = (dx * dx + dz * dz).sqrt() / radius
        shade = shade * torch.where(blob[:, 2] > 0, 1.0 - 0.45 * (1.5 - 1.2 * away).clamp(0, 1), 1.0)
    return torch.where(slot == SLOT["floor"], shade.clamp_min(0.5), 1.0)


def _edges(slot: Tensor, item: Tensor, index: Tensor, hit: Tensor, normal: Tensor, inverse: Tensor) -> Tensor:
    """Mark the nearer side of outlines: where colour, item or depth break, or the surface folds."""
    label = slot.long() * 8 + item.long()
    edge = torch.zeros_like(hit)
    for axis in (1, 2):
        size = label.shape[axis] - 1
        a, b = label.narrow(axis, 0, size), label.narrow(axis, 1, size)
        near_a, near_b = inverse.narrow(axis, 0, size), inverse.narrow(axis, 1, size)
        fold = (normal.narrow(axis, 0, size) * normal.narrow(axis, 1, size)).sum(-1) < 0.55
        leap = (near_a - near_b).abs() > 0.06 * torch.maximum(near_a, near_b)
        differs = (
            (a != b)
            | (leap & hit.narrow(axis, 0, size))
            | (fold & hit.narrow(axis, 0, size) & hit.narrow(axis, 1, size))
        )
        edge.narrow(axis, 0, size).logical_or_(differs & (near_a >= near_b))
        edge.narrow(axis, 1, size).logical_or_(differs & (near_b > near_a))
    return edge


def pooled(values: Tensor) -> Tensor:
    """Mean over OVERSAMPLING x OVERSAMPLING blocks of the last two axes."""
    flat = values.reshape(-1, 1, *values.shape[-2:]).float()
    small = functional.avg_pool2d(flat, OVERSAMPLING)
    return small.view(*values.shape[:-2], *small.shape[-2:])


def labels(values: Tensor) -> Tensor:
    """Labels (B, H, W) at each output pixel's upper left sample."""
    return values[:, ::OVERSAMPLING, ::OVERSAMPLING]
