"""The WebUI's noise levels and steps, on diffusers' samplers, so that a job gives the WebUI's picture.

Its samplers are k-diffusion's (Karras et al. 2022, Elucidating the Design Space of Diffusion-Based Generative Models),
whose levels are not bound to the model's 1000 time steps, and a DDIM of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch

from .settings import SAMPLERS, Settings, Steps

RHO: Final = 7.0
"""Exponent of Karras' levels (equation 5 there, and k-diffusion's default)."""


@dataclass(frozen=True)
class Course:
    """The way of a pass from noise to the picture.

    Attributes:
        scheduler: diffusers' scheduler, at its beginning.
        timesteps: of the steps that are run, on the CPU.
        start: time step to whose level the first noise is added, one number.
    """

    scheduler: Any
    timesteps: torch.Tensor
    start: torch.Tensor


def webui_course(scheduler: Any, settings: Settings, steps: Steps) -> Course:
    """Set a scheduler to the levels and steps that WebUI 1.10.1 has for the same settings.

    Args:
        scheduler: of `settings.sampler`.
        settings: `sampler` and `schedule_type` are read.
        steps: of this pass.
    """
    if settings.sampler == "ddim":
        return _ddim(scheduler, steps)
    model = _levels_of(scheduler)
    kind = settings.schedule_type
    kind = SAMPLERS[settings.sampler].schedule_type if kind == "automatic" else kind
    levels = {"uniform": _uniform, "karras": _karras, "exponential": _exponential}[kind](model, steps.of)
    levels = levels[steps.of - steps.run :]
    times = _times(model, levels)
    scheduler.set_timesteps(min(steps.of, len(model)), device="cpu")
    if scheduler.order == 2:  # diffusers has each level but the first twice, once for each call
        levels, times = (torch.cat([some[:1], some[1:].repeat_interleave(2)]) for some in (levels, times))
    scheduler.num_inference_steps = steps.run
    scheduler.timesteps = times.float()
    scheduler.sigmas = torch.cat([levels, levels.new_zeros(1)]).float()
    scheduler.set_begin_index(0)
    return Course(scheduler, scheduler.timesteps, scheduler.timesteps[:1])


def _ddim(scheduler: Any, steps: Steps) -> Course:
    """Set up DDIM as the WebUI runs it in img2img: noise of one step more than is taken off, and the last one left.

    See `CompVisSampler.sample_img2img` (modules/sd_samplers_timesteps.py, 1.10.1).
    """
    total = int(scheduler.config.num_train_timesteps)
    apart = max(total // steps.of, 1)
    every = (torch.arange(0, total, apart) + 1).clamp(max=total - 1)
    scheduler.set_timesteps(min(steps.of, total), device="cpu")
    scheduler.num_inference_steps = total // apart
    first = steps.run - 1
    timesteps = every[1:first].flip(0)
    scheduler.timesteps = timesteps
    return Course(scheduler, timesteps, every[first : first + 1])


def _levels_of(scheduler: Any) -> torch.Tensor:
    """Return the standard deviation of the noise at each of the model's time steps, float64, rising."""
    kept = scheduler.alphas_cumprod.double()
    levels: torch.Tensor = ((1 - kept) / kept).sqrt()
    return levels


def _uniform(model: torch.Tensor, count: int) -> torch.Tensor:
    """Return levels at time steps that are equally far apart; between two of the model's, their logarithm is linear."""
    times = torch.linspace(len(model) - 1, 0, count, dtype=torch.float64)
    low, logs = times.floor().long(), model.log()
    high, part = times.ceil().long(), times - times.floor()
    return ((1 - part) * logs[low] + part * logs[high]).exp()


def _karras(model: torch.Tensor, count: int) -> torch.Tensor:
    ramp = torch.linspace(0, 1, count, dtype=torch.float64)
    most, least = model[-1] ** (1 / RHO), model[0] ** (1 / RHO)
    levels: torch.Tensor = (most + ramp * (least - most)) ** RHO
    return levels


def _exponential(model: torch.Tensor, count: int) -> torch.Tensor:
    return torch.linspace(float(model[-1].log()), float(model[0].log()), count, dtype=torch.float64).exp()


def _times(model: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Return the time steps of levels, fractions included: the inverse of `_uniform`'s."""
    logs, wanted = model.log(), levels.log()
    low = (torch.searchsorted(logs, wanted, right=True) - 1).clamp(0, len(logs) - 2)
    part = ((wanted - logs[low]) / (logs[low + 1] - logs[low])).clamp(0, 1)
    return low + part
