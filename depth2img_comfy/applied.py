"""Which depth a prompt is generated with, and what of it the UNet sees at each step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import torch

from depth2img import DepthMap, DepthOptions
from depth2img.depth import schedule

from .depth_batch import DepthBatch, repeated

KEY: Final = "depth2img"
"""Key of an `Applied` in a prompt's dictionary, of the wrappers in a MODEL, and of a `Run` in the host's options."""

Conditioning = list[list[Any]]
"""ComfyUI's CONDITIONING: [text states, dictionary] for each prompt."""

SAME_SIGMA: Final = 1e-4
"""Noise levels that differ by less than this part are the same: samplers compute some of them in float32."""


@dataclasses.dataclass(frozen=True, eq=False)
class Applied:
    """The request of one "Apply depth" node.

    Attributes:
        depth: the maps.
        options: `strength`, `start`, `end`, `neutral`, `guidance` and `ignore_colours` are read.
        region: where depth counts, 0 outside .. 1 inside, over the whole picture; empty for everywhere.
    """

    depth: DepthBatch
    options: DepthOptions
    region: tuple[DepthMap, ...] = ()

    def conditioning(self, batch: int, *, height: int, width: int) -> torch.Tensor:
        """Make float32 (batch, 1, height, width), -1..1, for a latent of that size, straight from the maps."""
        depth = self.depth.conditioning(batch, height=height, width=width)
        if not self.region:
            return depth
        masks = [schedule.region_tensor(repeated(self.region, row), height=height, width=width) for row in range(batch)]
        return schedule.inside(depth, torch.cat(masks), self.options.neutral)

    def to(self, prompts: Conditioning, concat: torch.Tensor) -> Conditioning:
        """Return the prompts with this depth; `concat` is what a sampler sees that does not ask the MODEL."""
        return [[states, {**more, "noise_concat": concat, KEY: self}] for states, more in prompts]


class Part(NamedTuple):
    """Rows of the UNet's batch that share their options and their half of CFG."""

    options: DepthOptions
    unconditional: bool


def is_unconditional(name: str) -> bool:
    """Tell by the name that a guider gives to its prompts whether guidance pushes away from them."""
    return "negative" in name


def place(sigmas: Sequence[float], sigma: float) -> tuple[int, int]:
    """Find the step that a noise level belongs to.

    Args:
        sigmas: noise levels of a run, falling, the last one the end.
        sigma: the level at which the UNet is asked; between two of them for samplers of higher order.

    Returns:
        The step from 0, and how many there are.
    """
    reached = sum(level >= sigma * (1 - SAME_SIGMA) for level in sigmas[:-1])
    return max(reached - 1, 0), max(len(sigmas) - 1, 1)


def constant(parts: Iterable[Part]) -> bool:
    """Tell whether no part changes anything at any step."""
    return all(schedule.constant(part.options) for part in parts)


def scheduled(
    concat: torch.Tensor, rows: Sequence[int], parts: Sequence[Part], *, step: int, total: int, cfg_scale: float
) -> torch.Tensor:
    """Weaken each row of the conditioning as its part says at a step.

    Args:
        concat: (N, 1, h, w), -1..1, in any order of the halves and of the prompts.
        rows: of each row the index of its part; -1 leaves the row as it is.
        parts: of the run.
        step, total: see `schedule.strength_at`.
        cfg_scale: of the guider.

    Returns:
        The same shape, type and device; the very tensor where nothing changes.
    """
    if constant(parts):
        return concat
    done = concat.clone()
    for index in {*rows} - {-1}:
        of_part = [row for row, at in enumerate(rows) if at == index]
        options, unconditional = parts[index]
        if unconditional:
            done[of_part] = schedule.unconditional(concat[of_part], options, step, total, cfg_scale)
        else:
            done[of_part] = schedule.conditional(concat[of_part], options, step, total)
    return done
