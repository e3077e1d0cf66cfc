"""Values and functions that a host's adapter and the jobs exchange, independent of any host's layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One call of the denoising network, as a host is about to make it.

    Attributes:
        p: the job.
        latent: (N, C, h, w), one row per picture.
        given: the conditioning that the host has for it, (N, c, ...); not always of the latent's size.
        number: of the call, from 0 in each pass of the job.
        total: how many calls the pass makes.
        cfg_scale: weight of the prompt at this step.
    """

    p: Any
    latent: torch.Tensor
    given: torch.Tensor
    number: int
    total: int
    cfg_scale: float


@dataclasses.dataclass(frozen=True, eq=False)
class Halves:
    """The network's depth conditioning at one step, each (N, 1, h, w).

    Attributes:
        job: the conditioning before it was weakened for this step: what the host has at the steps to come.
        with_prompt: for the rows with the prompt.
        without: for the unconditional rows.
    """

    job: torch.Tensor
    with_prompt: torch.Tensor
    without: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Jobs:
    """What a host's adapter calls during its jobs.

    Attributes:
        running: encloses a whole job.
        has_request: whether depth has a part in a job.
        img2img_conditioning: makes the conditioning of a pass that starts from pictures. Called with the host's
            function, the job, and the arguments of that function.
        txt2img_conditioning: the same for a pass that starts from noise, or from an upscaled latent.
        at_step: decides what the network gets at a step of a depth checkpoint; None leaves what the host has.
    """

    running: Callable[[Any], AbstractContextManager[None]]
    has_request: Callable[[Any], bool]
    img2img_conditioning: Callable[..., torch.Tensor]
    txt2img_conditioning: Callable[..., torch.Tensor]
    at_step: Callable[[Step], Halves | None]
