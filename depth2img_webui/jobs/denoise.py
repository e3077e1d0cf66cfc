"""Decide what the denoising network gets at each step of a job: the map weakened by the schedule, or a fitting one.

Nothing here knows how a host lays out the rows of a step; that is the adapter's (`hosts`).
"""

from __future__ import annotations

from typing import Any

import torch

from depth2img import neutral
from depth2img.depth import schedule

from ..hosts import compat
from ..hosts.base import Halves, Step
from . import maps
from .request import request_of, wants_given_depth


def at_step(step: Step) -> Halves | None:
    """Return what both halves of the batch get, or None where they get what the host has.

    A step is one call of the network, counted from 0 in each pass; samplers of second order call it twice per step.
    """
    request = request_of(step.p)
    given = step.given
    fits = given.shape[1] == 1 and given.shape[-2:] == step.latent.shape[-2:]
    depth = given if fits else _fitted(step)
    if request is None or not request.options.enabled or schedule.constant(request.options):
        return None if fits else Halves(depth, depth, depth)
    at = (request.options, step.number, step.total)
    return Halves(
        depth,
        schedule.conditional(depth, *at),
        schedule.unconditional(depth, *at, cfg_scale=step.cfg_scale),
    )


def _fitted(step: Step) -> torch.Tensor:
    """Fit the conditioning, (N, 1, h, w), to the latent of this step."""
    p, latent = step.p, step.latent
    if step.given.shape[1] == 1:
        return truncated(p, step.given, latent)
    request = request_of(p)
    reason = "no depth map is given and there is no picture to take depth from"
    if request is not None and (request.pictures or wants_given_depth(request.options) or not request.options.enabled):
        return maps.condition(p, request, request.pictures, latent)
    p.comment(f"The depth checkpoint that came in during the job ran without depth: {reason}")
    plain = neutral(latent.shape[0], height=latent.shape[-2], width=latent.shape[-1])
    return plain.to(latent.device, compat.conditioning_dtype())


def truncated(p: Any, given: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
    """Cut the part of a hires conditioning that belongs to the latent which the host has cut to the target size.

    The cut is that of `sample_hr_pass` (modules/processing.py): `truncate // 2` rows at the start and
    `(truncate + 1) // 2` at the end, in latent pixels.
    """
    top, left = getattr(p, "truncate_y", 0) // 2, getattr(p, "truncate_x", 0) // 2
    return given[:, :, top : top + latent.shape[-2], left : left + latent.shape[-1]]
