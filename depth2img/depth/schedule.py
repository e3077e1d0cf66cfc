"""Schedule the conditioning: strength, start and end, region, guidance at each step.

Nothing here knows a sampler: a step is its number and how many there are. With default options every function hands
back the very tensor that it was given, so that nothing is rounded.
"""

from __future__ import annotations

from typing import Final

import torch

from ..options import DepthOptions
from .depth_map import DepthMap

SLACK: Final = 1e-6
"""Of a step: 0.3 of 10 steps are 3, not 3.0000000000000004."""

FARTHEST_OPPOSITE: Final = 2.0
"""Bound of `unconditional_part`: there the unconditional rows see the map mirrored at neutral, the farthest that the
range -1..1 of a conditioning allows."""


def constant(options: DepthOptions) -> bool:
    """Tell whether the conditioning is the same, untouched, at every step and in all rows."""
    return options.strength == 1 and options.start == 0 and options.end == 1 and options.guidance == 1


def strength_at(options: DepthOptions, step: int, total: int) -> float:
    """Weigh the map at a step: `strength` from `start` to `end`, 0 outside.

    Args:
        options: `strength`, `start` and `end` are read.
        step: number of the step, from 0. Beyond the last one (samplers of adaptive step size) it counts as the last.
        total: how many steps there are.

    Returns:
        0..1.
    """
    total = max(total, 1)
    step = min(max(step, 0), total - 1)
    if step < options.start * total - SLACK or step >= options.end * total - SLACK:
        return 0.0
    return options.strength


def unconditional_part(options: DepthOptions, cfg_scale: float) -> float:
    """Compute how far the unconditional rows go from the map (0) to neutral (1), and beyond.

    Classifier-free guidance takes u + w (c - u), w the CFG scale, from the conditional output c and the
    unconditional one u. To first order in the conditioning d the network is e(d) = e(0) + J d. If u sees (1 - t) d, the
    depth comes out with the factor (1 - t) + t w = 1 + t (w - 1). `guidance` is that factor, g: t = (g - 1) / (w - 1).

    - g = 1: t = 0, both halves see the map, as in the host;
    - g = w: t = 1, the unconditional half sees neutral, and the picture is pushed towards depth as towards the prompt;
    - g > w: t > 1, it sees the map mirrored at neutral, until t = 2.

    The network runs as often as without guidance, at every scale. An exact scale apart from the prompt's would need a
    third run, with depth and without prompt, and is not offered.

    Args:
        options: `guidance` is read.
        cfg_scale: w. At 1 the unconditional half has no part in the result, and depth guidance none either.

    Returns:
        0..2.
    """
    if cfg_scale <= 1:
        return 0.0
    return min(max((options.guidance - 1.0) / (cfg_scale - 1.0), 0.0), FARTHEST_OPPOSITE)


def conditional(depth: torch.Tensor, options: DepthOptions, step: int, total: int) -> torch.Tensor:
    """Weaken the conditioning for the conditional rows at a step.

    Args:
        depth: (B, 1, h, w), -1..1, from `conditioning` and `inside`.
        options: see `strength_at`; also `neutral`.
        step, total: see `strength_at`.

    Returns:
        The same shape, type and device.
    """
    return _towards(depth, strength_at(options, step, total), options.neutral)


def unconditional(depth: torch.Tensor, options: DepthOptions, step: int, total: int, cfg_scale: float) -> torch.Tensor:
    """Weaken the conditioning for the unconditional rows; see `conditional` and `unconditional_part`."""
    strength = strength_at(options, step, total)
    return _towards(depth, strength * (1.0 - unconditional_part(options, cfg_scale)), options.neutral)


def inside(depth: torch.Tensor, region: torch.Tensor | None, neutral: float) -> torch.Tensor:
    """Keep the conditioning inside a region, and make it neutral outside.

    Args:
        depth: (B, 1, h, w), -1..1.
        region: (1, 1, h, w), 0 outside .. 1 inside, on any device; None is everywhere.
        neutral: -1..1.
    """
    if region is None:
        return depth
    region = region.to(depth)
    return depth * region + neutral * (1.0 - region)


def region_tensor(region: DepthMap, *, height: int, width: int) -> torch.Tensor:
    """Turn a region mask in the frame into float32 (1, 1, height, width), 0..1; its values are not stretched.

    Args:
        region: 0 outside .. 1 inside, with the frame's proportions.
        height, width: the latent's size.
    """
    return torch.tensor(region.resized(width, height).values)[None, None].clamp(0, 1)


def _towards(depth: torch.Tensor, part: float, neutral: float) -> torch.Tensor:
    if part == 1:
        return depth
    return depth * part + neutral * (1.0 - part)
