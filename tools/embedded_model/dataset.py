"""Rendered sets: scenes drawn by workers on the CPU, traced and shaded on the device, which keeps them.

Half of a scene's looks are mirrored, with mirrored captions, so that every geometry counts twice.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tools.embedded_model import render, shade
from tools.embedded_model.captions import caption
from tools.embedded_model.looks import Look, mirrored, sample_look
from tools.embedded_model.plan import Plan
from tools.embedded_model.render import Packed, labels, pooled
from tools.embedded_model.scenes import MOST_ITEMS, Scene, sample_scene
from tools.embedded_model.shade import Looks
from tools.embedded_model.tokens import encode_array, row_of_id, trained_ids

CHUNK: Final = 32
"""Scenes that a worker makes, and the device draws, together."""
LEAST_SHARE: Final = 0.012
"""Of the picture, below which an item counts as hidden and its scene is left out."""
Arrays = dict[str, npt.NDArray[Any]]
Chunk = tuple[Arrays, Arrays, npt.NDArray[np.float32], npt.NDArray[np.int16]]
"""Primitives, looks, joints and captions' rows."""


@dataclass(frozen=True)
class Rendered:
    """N geometries with L looks each, all on one device.

    Attributes:
        pictures: uint8 (N, L, S, S, 3).
        mirrored, style, light: (N, L).
        rows: int16 (N, L, C, 77): C captions as rows of the compact token table.
        inverse_depth: float16 (N, S, S) in 1/metres, 0 = sky; not mirrored.
        items: uint8 (N, S, S), 0 for the surroundings.
        joints: float32 (N, MOST_ITEMS, 14, 3): place in the picture from the left and the top, 0..1, and depth in
            metres; 0 where there is none.
    """

    pictures: Tensor
    mirrored: Tensor
    style: Tensor
    light: Tensor
    rows: Tensor
    inverse_depth: Tensor
    items: Tensor
    joints: Tensor

    def relative_depth(self, which: Tensor | slice) -> Tensor:
        """Divide inverse depth (B, S, S) by its largest value in each scene, to 0..1.

        A single picture does not show the scene's scale, so neither the estimator nor the scores are asked for it.
        """
        depth = self.inverse_depth[which].float()
        return depth / depth.amax(dim=(1, 2), keepdim=True)

    def mean_depth(self) -> Tensor:
        """Mean relative depth (S, S) over scenes and their mirrored selves."""
        total = torch.zeros(self.inverse_depth.shape[1:], device=self.inverse_depth.device)
        for start in range(0, len(self.inverse_depth), 512):
            total += self.relative_depth(slice(start, start + 512)).sum(dim=0)
        mean = total / len(self.inverse_depth)
        return (mean + mean.flip(1)) / 2

    def visible_joints(self, which: Tensor | slice) -> Tensor:
        """Find the visible joints, bool (B, MOST_ITEMS, 14); see the function `visible_joints`."""
        return visible_joints(self.joints[which], self.inverse_depth[which].float())


def visible_joints(joints: Tensor, depth: Tensor) -> Tensor:
    """Find the joints in the picture with nothing much in front of them, bool (B, F, 14).

    Args:
        joints: (B, F, 14, 3) as in `Rendered`.
        depth: inverse depth (B, S, S) in 1/metres.
    """
    side = depth.shape[-1]
    x, y = ((joints[..., axis] * side).long() for axis in (0, 1))
    inside = (joints[..., 2] > 0) & (x >= 0) & (x < side) & (y >= 0) & (y < side)
    place = (y.clamp(0, side - 1) * side + x.clamp(0, side - 1)).flatten(1)
    seen = depth.flatten(1).gather(1, place).view_as(x)
    return inside & (1.0 / seen.clamp_min(1e-3) > joints[..., 2] - 0.22)


def joint_array(scenes: list[Scene]) -> npt.NDArray[np.float32]:
    """Joints as `Rendered` keeps them."""
    out = np.zeros((len(scenes), MOST_ITEMS, 14, 3), np.float32)
    for index, scene in enumerate(scenes):
        if len(scene.joints):
            ahead = ((scene.joints - np.array([0, scene.height, 0])) @ scene.camera().T)[..., 2:]
            out[index, : len(scene.joints)] = np.concatenate([scene.project(scene.joints), ahead], axis=-1)
    return out


def _chunk(task: tuple[range, int, int]) -> Chunk:
    """Scenes of some seeds, their looks and their captions as arrays."""
    seeds, looks_wanted, captions_wanted = task
    rngs = [np.random.default_rng(seed) for seed in seeds]
    scenes = [sample_scene(rng) for rng in rngs]
    looks = [[sample_look(rng, scene) for _ in range(looks_wanted)] for rng, scene in zip(rngs, scenes, strict=True)]
    flips = [[n % 2 == 1 for n in range(looks_wanted)] for _ in scenes]
    texts = [
        caption(rng, *(mirrored(scene, look) if flip else (scene, look)))
        for rng, scene, its, its_flips in zip(rngs, scenes, looks, flips, strict=True)
        for look, flip in zip(its, its_flips, strict=True)
        for _ in range(captions_wanted)
    ]
    rows = row_of_id()[encode_array(texts)].reshape(len(scenes), looks_wanted, captions_wanted, -1)
    return render.pack_arrays(scenes), shade.look_arrays(scenes, looks, flips), joint_array(scenes), rows


@contextmanager
def _chunks(seeds: range, looks: int, captions: int, workers: int) -> Iterator[Iterator[Chunk]]:
    """Yield the chunks of all seeds in order; the workers start here, before the device is touched."""
    tasks = ((seeds[start : start + CHUNK], looks, captions) for start in range(0, len(seeds), CHUNK))
    if workers <= 1:
        yield map(_chunk, tasks)
        return
    with get_context("fork").Pool(workers) as pool:
        # Not all at once: what is made ahead of the device lies in memory.
        ahead = [pool.apply_async(_chunk, (task,)) for task in itertools.islice(tasks, 4 * workers)]

        def made() -> Iterator[Chunk]:
            while ahead:
                yield ahead.pop(0).get()
                ahead.extend(pool.apply_async(_chunk, (task,)) for task in itertools.islice(tasks, 1))

        yield made()


@torch.no_grad()
def draw(packed: Packed, looks: Looks, side: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Trace and shade: pictures (M, S, S, 3) of M looks, and depth, slots, items of the scenes."""
    buffers = render.trace(packed, side)
    return {
        "pictures": shade.shade(buffers, looks, generator),
        "inverse_depth": pooled(buffers.inverse_depth).half(),
        "slots": labels(buffers.slot),
        "items": labels(buffers.item),
    }


def showing(packed: Packed, items: Tensor) -> Tensor:
    """Find the scenes in which no item is hidden, bool (B,); `items` is (B, S, S)."""
    wanted = torch.zeros(len(items), dtype=torch.int64, device=items.device)
    wanted.scatter_reduce_(0, packed.scene, packed.item, "amax")
    shares = torch.stack([(items == n).float().mean(dim=(1, 2)) for n in range(1, MOST_ITEMS + 1)], dim=1)
    numbers = torch.arange(1, MOST_ITEMS + 1, device=items.device)
    return ((shares >= LEAST_SHARE) | (numbers[None] > wanted[:, None])).all(dim=1)


def render_set(seeds: range, plan: Plan, device: torch.device, *, workers: int, seconds: float) -> Rendered:
    """Render one geometry per seed that shows all its items, until the seeds or the seconds are used up."""
    trained_ids()  # known before the workers are forked, so that none has to find them again
    with _chunks(seeds, plan.looks, plan.captions, workers) as chunks:
        return _render(chunks, len(seeds), plan, device, time.monotonic() + seconds)


def _render(chunks: Iterator[Chunk], most: int, plan: Plan, device: torch.device, end: float) -> Rendered:
    generator = torch.Generator(device).manual_seed(plan.seed)
    out: dict[str, Tensor] = {}
    kept = 0
    for packed_arrays, look_arrays, joints, rows in chunks:
        packed, its = Packed.of(packed_arrays, device), Looks.of(look_arrays, device)
        made = draw(packed, its, plan.side, generator)
        good = showing(packed, made["items"]).nonzero()[:, 0]
        by_look = {"pictures": made["pictures"], "mirrored": its.mirrored, "style": its.style, "light": its.light}
        made = {key: value.unflatten(0, (-1, plan.looks)) for key, value in by_look.items()} | {
            "rows": torch.from_numpy(rows).to(device), "joints": torch.from_numpy(joints).to(device),
            "inverse_depth": made["inverse_depth"], "items": made["items"],
        }  # fmt: skip
        for key, value in made.items():
            if key not in out:
                out[key] = torch.empty(most, *value.shape[1:], dtype=value.dtype, device=device)
            out[key][kept : kept + len(good)] = value[good]
        kept += len(good)
        if time.monotonic() > end:
            break
    return Rendered(**{key: value[:kept] for key, value in out.items()})


@torch.no_grad()
def render_looks(
    scenes: list[Scene], looks: list[Look], side: int, device: torch.device, *, seed: int
) -> dict[str, Tensor]:
    """One look of each scene, in batches: what `draw` gives, and `name`, `style`, `light`, `joints`."""
    generator = torch.Generator(device).manual_seed(seed)
    parts = []
    for start in range(0, len(scenes), CHUNK):
        here = slice(start, start + CHUNK)
        packed = render.pack(scenes[here], device)
        its = shade.stack_looks(scenes[here], [[look] for look in looks[here]], [[False] for _ in looks[here]], device)
        made = draw(packed, its, side, generator)
        parts.append(
            made | {"name": its.name, "style": its.style, "light": its.light, "showing": showing(packed, made["items"])}
        )
    whole = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    return whole | {"joints": torch.from_numpy(joint_array(scenes)).to(device)}
