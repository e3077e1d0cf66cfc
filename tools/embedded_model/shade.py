"""Pictures from buffers and looks: one function for each style."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from tools.embedded_model.looks import STYLES, Look, tabulate
from tools.embedded_model.palette import LIGHT_NAMES, apply_light, light_table
from tools.embedded_model.render import OVERSAMPLING, Buffers
from tools.embedded_model.scenes import SLOT, SURROUNDINGS, Scene

SHINY, STRIPED = 1, 2
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Looks:
    """N looks as tensors.

    Attributes:
        scene: int64 (N,), which of the buffers' scenes.
        colour: (N, SLOTS, 3).
        name, material: int8 and int64 (N, SLOTS).
        light, style: int64 (N,).
        mirrored: bool (N,).
    """

    scene: Tensor
    colour: Tensor
    name: Tensor
    material: Tensor
    light: Tensor
    style: Tensor
    mirrored: Tensor

    @classmethod
    def of(cls, arrays: dict[str, Array], device: torch.device) -> Looks:
        """From `look_arrays`."""
        return cls(**{key: torch.from_numpy(value).to(device) for key, value in arrays.items()})

    def take(self, which: Tensor) -> Looks:
        """Select some of the looks."""
        return Looks(**{key: value[which] for key, value in vars(self).items()})


def look_arrays(
    scenes: Sequence[Scene], looks: Sequence[Sequence[Look]], mirrored: Sequence[Sequence[bool]]
) -> dict[str, Array]:
    """Make the arrays of `Looks`, scene by scene, in numpy."""
    flat = [(n, scene, look, flip) for n, (scene, its, flips) in enumerate(zip(scenes, looks, mirrored, strict=True))
            for look, flip in zip(its, flips, strict=True)]  # fmt: skip
    tables = [tabulate(scene, look) for _, scene, look, _ in flat]
    return {
        "scene": np.array([n for n, *_ in flat]),
        "colour": np.stack([t.colour for t in tables]),
        "name": np.stack([t.name for t in tables]),
        "material": np.stack([t.material for t in tables]).astype(np.int64),
        "light": np.array([LIGHT_NAMES.index(look.light) for *_, look, _ in flat]),
        "style": np.array([STYLES.index(look.style) for *_, look, _ in flat]),
        "mirrored": np.array([flip for *_, flip in flat]),
    }


def stack_looks(
    scenes: Sequence[Scene], looks: Sequence[Sequence[Look]], mirrored: Sequence[Sequence[bool]], device: torch.device
) -> Looks:
    """Make the looks of several scenes, scene by scene, as tensors on a device."""
    return Looks.of(look_arrays(scenes, looks, mirrored), device)


@dataclass(frozen=True)
class Seen:
    """Input of a style's function for N looks: buffers (N, H, W), flat colours (N, 3, H, W), light rows (N, 7)."""

    buffers: Buffers
    colour: Tensor
    material: Tensor
    light: Tensor
    noise: Tensor

    def is_slot(self, *names: str) -> Tensor:
        """Return the mask of one of the surroundings' slots."""
        out = self.buffers.slot == SLOT[names[0]]
        for name in names[1:]:
            out = out | (self.buffers.slot == SLOT[name])
        return out

    @property
    def thing(self) -> Tensor:
        """Return the mask of the items, without their surroundings."""
        return self.buffers.slot >= len(SURROUNDINGS)


def _lit(seen: Seen, ambient: Tensor | float, diffuse: Tensor | float) -> Tensor:
    """Brightness (N, H, W) of every surface."""
    b = seen.buffers
    rows = torch.linspace(1, 0, b.slot.shape[1], device=b.slot.device)[:, None]
    body = ambient * (0.86 + 0.14 * b.up) + diffuse * b.cosine
    wall = (0.80 + 0.22 * b.cosine) * (0.90 + 0.10 * rows)
    sky = 1.0 - 0.14 * rows
    out = torch.where(seen.is_slot("floor"), b.ground * (0.93 + 0.07 * (1 - rows)), body)
    out = torch.where(seen.is_slot("wall"), wall, out)
    out = torch.where(seen.is_slot("sky"), sky, out)
    return torch.where(seen.is_slot("window"), 1.0, out)


def _plain(seen: Seen) -> Tensor:
    b, light = seen.buffers, seen.light
    brightness = _lit(seen, light[:, 3, None, None], light[:, 4, None, None])
    colour = seen.colour * brightness[:, None]
    gloss = torch.where(seen.material == SHINY, 0.9 * b.gloss.pow(28) + 0.12 * b.gloss.pow(4), 0.0)
    out = apply_light(colour + gloss[:, None] * (0.95 - colour).clamp_min(0), light, b.inverse_depth)
    glow = seen.colour * (0.35 + 0.65 * light[:, :3, None, None])
    return torch.where(seen.is_slot("window")[:, None], glow, out)


def _clay(seen: Seen) -> Tensor:
    thing = seen.thing[:, None]
    clay = seen.colour.new_tensor([0.84, 0.56, 0.42])[:, None, None]
    table = seen.colour.new_tensor([0.86, 0.80, 0.73])[:, None, None]
    grey = seen.colour.mean(dim=1, keepdim=True)
    base = torch.where(thing, 0.86 * clay + 0.14 * grey, 0.82 * table + 0.18 * grey)
    lit = _lit(seen, 0.42, 0.70)
    return apply_light(base * lit[:, None], seen.light, seen.buffers.inverse_depth)


def _wide(edge: Tensor, width: int) -> Tensor:
    return functional.max_pool2d(edge[:, None].float(), width, stride=1, padding=width // 2)


def _blurred(values: Tensor, width: int) -> Tensor:
    """Box blur, twice; (N, C, H, W)."""
    half = width // 2
    for kernel, padding in (((width, 1), (half, 0)), ((1, width), (0, half))) * 2:
        values = functional.avg_pool2d(values, kernel, stride=1, padding=padding, count_include_pad=False)
    return values


def _line(seen: Seen) -> Tensor:
    b = seen.buffers
    paper = seen.colour.new_tensor([0.96, 0.95, 0.92])[:, None, None]
    ink = seen.colour.new_tensor([0.10, 0.10, 0.14])[:, None, None]
    line = _wide(b.edge, 2 * OVERSAMPLING + 1)
    tone = torch.where((b.slot >= SLOT["furniture"]) & (b.cosine < 0.12), 0.16, 0.0)
    tone = torch.where(seen.is_slot("floor"), 0.5 * (1 - b.ground), tone)[:, None]
    dark = torch.maximum(line, tone)
    return paper * (1 - dark) + ink * dark


def _watercolour(seen: Seen) -> Tensor:
    b = seen.buffers
    size = b.slot.shape[-1]
    pigment = 0.72 + 0.13 * (seen.noise - 0.5) * 2
    rim = _blurred(_wide(b.edge, 3), 2 * OVERSAMPLING + 1)
    wash = 1 - (1 - _blurred(seen.colour, 2 * OVERSAMPLING + 1)) * (pigment + 0.30 * rim).clamp(0, 0.95)
    folded = torch.where(b.slot >= SLOT["hill"], 0.80 + 0.20 * (2.2 * b.cosine).clamp(0, 1), 0.5 + 0.5 * b.ground)
    wash = apply_light(wash * folded[:, None], 0.35 + 0.65 * seen.light * _tint_only(seen.light), b.inverse_depth)
    across = torch.linspace(-1, 1, size, device=wash.device).abs()
    border = 1 - torch.maximum(across[None], across[:, None])
    kept = ((border + 0.06 * (seen.noise - 0.5) - 0.035) / 0.02).clamp(0, 1)
    return wash * kept + 0.96 * (1 - kept)


def _tint_only(light: Tensor) -> Tensor:
    """Ones for the tint's columns, zeros for the others."""
    return (torch.arange(7, device=light.device) < 3).float()


def _neon(seen: Seen) -> Tensor:
    b = seen.buffers
    bright = seen.colour / seen.colour.amax(dim=1, keepdim=True).clamp_min(0.05)
    bright = torch.where(seen.thing[:, None], bright, 0.55 * bright)
    edge = b.edge[:, None].float()
    coloured = torch.cat([edge * bright, edge], dim=1)
    near = _blurred(coloured, 2 * OVERSAMPLING + 1)
    hue = near[:, :3] / near[:, 3:].clamp_min(1e-3)
    tube = (_wide(b.edge, OVERSAMPLING + 1)).clamp(0, 1)
    glow = _blurred(coloured, 12 * OVERSAMPLING + 1)[:, :3]
    dark = seen.colour.new_tensor([0.035, 0.02, 0.07])[:, None, None] + 0.07 * seen.colour
    return dark * (1 - tube) + tube * (0.18 + 0.82 * hue) + 1.6 * glow * (1 - tube)


STYLE_FUNCTIONS: Final[dict[str, Callable[[Seen], Tensor]]] = {
    "plain": _plain, "clay": _clay, "line": _line, "watercolour": _watercolour, "neon": _neon,
}  # fmt: skip


def _seen(buffers: Buffers, looks: Looks, generator: torch.Generator) -> Seen:
    its = Buffers(**{key: value[looks.scene] for key, value in vars(buffers).items()})
    slot = its.slot.long().flatten(1)
    colour = looks.colour.gather(1, slot[:, :, None].expand(-1, -1, 3)).mT.reshape(len(slot), 3, *its.slot.shape[1:])
    material = looks.material.gather(1, slot).view_as(its.slot)
    other = torch.where(colour.mean(dim=1, keepdim=True) > 0.8, 0.25 * colour, 0.25 * colour + 0.72)
    colour = torch.where(((material == STRIPED) & its.band)[:, None], other, colour)
    coarse = torch.rand(len(slot), 1, 9, 9, generator=generator, device=colour.device)
    noise = functional.interpolate(coarse, size=its.slot.shape[1:], mode="bicubic", align_corners=True).clamp(0, 1)
    return Seen(its, colour, material, light_table(colour.device)[looks.light], noise)


def shade(buffers: Buffers, looks: Looks, generator: torch.Generator) -> Tensor:
    """Anti-aliased pictures, uint8 (N, S, S, 3), mirrored where the look says so."""
    side = buffers.slot.shape[-1] // OVERSAMPLING
    out = torch.empty(len(looks.scene), side, side, 3, dtype=torch.uint8, device=buffers.slot.device)
    for index, style in enumerate(STYLES):
        which = (looks.style == index).nonzero()[:, 0]
        if len(which):
            drawn = functional.avg_pool2d(
                STYLE_FUNCTIONS[style](_seen(buffers, looks.take(which), generator)), OVERSAMPLING
            )
            out[which] = drawn.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1)
    return torch.where(looks.mirrored[:, None, None, None], out.flip(2), out)
