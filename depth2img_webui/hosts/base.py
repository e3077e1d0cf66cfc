"""Values that a host and the jobs exchange at each step of a sampler, independent of any host's layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
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


AtStep = Callable[[Step], "Halves | None"]
"""Decides what the network gets; None leaves what the host has."""
