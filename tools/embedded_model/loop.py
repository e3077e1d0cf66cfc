"""One training loop for every stage: seconds, not samples, are its budget.

The rate follows the clock: warm-up, constant, half a cosine. A running mean of the weights is what a stage gives on.
Everything is kept in the work folder, so that a stage that was cut off goes on, and one that is over is passed over.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

LOG: Final = logging.getLogger("training")
StepLoss = Callable[[nn.Module, torch.Generator, float], tuple[Tensor, dict[str, Tensor]]]
"""(model, generator, progress 0..1) -> loss to descend, and figures to show."""


@dataclass(frozen=True)
class Schedule:
    """Length and rate of one stage."""

    name: str
    seconds: float
    rate: float
    seed: int
    warm_up: int = 50
    constant: float = 0.4
    floor: float = 0.02
    weight_decay: float = 0.01
    mean_decay: float = 0.999
    show_seconds: float = 10.0
    keep_seconds: float = 60.0
    compiled: bool = False
    """Compile the model at its first steps, for some minutes, and replay a step's kernels on a card."""

    def rate_at(self, step: int, progress: float) -> float:
        """Warm-up by steps, constant until `constant`, then half a cosine down to `floor` of the rate."""
        fall = max(0.0, progress - self.constant) / (1.0 - self.constant)
        shape = self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, fall)))
        return self.rate * shape * min(1.0, (step + 1) / self.warm_up)


def save_atomically(value: Any, path: Path) -> None:
    """Write beside, then rename, so that a reader never sees half a file."""
    beside = path.with_suffix(f".{os.getpid()}.part")
    torch.save(value, beside)
    beside.replace(path)


class LowGroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` that stays in its input's precision under autocast; sums are in float32 either way."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, ...) -> the same."""
        with torch.autocast(input.device.type, enabled=False):
            return functional.group_norm(
                input, self.num_groups, self.weight.to(input.dtype), self.bias.to(input.dtype), self.eps
            )


def normalise_in_place(model: nn.Module) -> None:
    """Let every group normalisation of a model work in the precision of what it is given."""
    for module in model.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = LowGroupNorm


@contextmanager
def half_precision(device: torch.device) -> Iterator[None]:
    """bfloat16 products on a graphics card, float32 elsewhere."""
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=device.type == "cuda"):
        yield


class Mean:
    """Running mean of a model's weights and statistics."""

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model)
        pairs = zip(self.model.state_dict().values(), model.state_dict().values(), strict=True)
        self.pairs = [(old, new) for old, new in pairs if old.dtype.is_floating_point]

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Take in the model as it is now."""
        torch._foreach_lerp_([old for old, _ in self.pairs], [new for _, new in self.pairs], 1 - decay)


def train(model: nn.Module, step_loss: StepLoss, schedule: Schedule, folder: Path) -> nn.Module:
    """Train until the seconds are used up, those of an earlier run counted in; return the mean of the weights.

    A stage that was over once stays as it is, whatever the seconds: what comes after it rests on its weights.
    """
    path, device = folder / f"{schedule.name}.ckpt", next(model.parameters()).device
    mean = Mean(model)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=schedule.rate, betas=(0.9, 0.99), weight_decay=schedule.weight_decay, fused=True
    )
    step, spent, over = 0, 0.0, False
    if path.exists():
        state = torch.load(path, weights_only=True, map_location=device)
        model.load_state_dict(state["model"])
        mean.model.load_state_dict(state["mean"])
        optimiser.load_state_dict(state["moments"])
        step, spent, over = state["step"], state["seconds"], state["over"]
    if over or spent >= schedule.seconds:
        return mean.model.eval().requires_grad_(False)
    model.train()
    if schedule.compiled:
        model.compile(dynamic=False, mode="reduce-overhead")
    generator = torch.Generator(device).manual_seed(schedule.seed + step)
    torch.manual_seed(schedule.seed + step)
    begun, first = time.monotonic() - spent, step
    shown = kept = time.monotonic()

    def keep(seconds: float, *, over: bool = False) -> None:
        states = {"model": model.state_dict(), "mean": mean.model.state_dict(), "moments": optimiser.state_dict()}
        save_atomically({**states, "step": step, "seconds": seconds, "over": over}, path)

    figures: dict[str, Tensor] = {}
    while (progress := (time.monotonic() - begun) / schedule.seconds) < 1.0:
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate_at(step, progress)
        with half_precision(device):
            loss, figures = step_loss(model, generator, progress)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        mean.follow(min(schedule.mean_decay, (step + 1) / (step + 12)))
        now = time.monotonic()
        if step <= first + 2 or now - shown > schedule.show_seconds:
            values = ", ".join(f"{key} {float(value):.4f}" for key, value in figures.items())
            LOG.info("%s: step %d, %.0f %%, %.1f s, %s", schedule.name, step, 100 * progress, now - begun, values)
            shown = time.monotonic()
        if now - kept > schedule.keep_seconds:
            keep(now - begun)
            kept = time.monotonic()
    keep(schedule.seconds, over=True)
    values = ", ".join(f"{key} {float(value):.4f}" for key, value in figures.items())
    LOG.info("%s: over after %d steps, %s", schedule.name, step, values)
    return mean.model.eval().requires_grad_(False)
