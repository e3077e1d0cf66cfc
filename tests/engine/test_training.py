"""The training loop of the embedded model: resuming, and ending by the clock."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from tools.embedded_model.loop import Schedule, train

SCHEDULE = Schedule("line", samples=400, batch=4, rate=0.05, seed=3, warm_up=1, mean_decay=0.5)


def line_loss(model: nn.Module, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
    """Fit y = 3x - 1."""
    x = torch.randn(4, 1, generator=generator)
    loss = (model(x) - (3 * x - 1)).pow(2).mean()
    return loss, {"loss": loss.item()}


def fresh() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(1, 1)


def samples(folder: Path) -> int:
    return int(torch.load(folder / "line.ckpt", weights_only=True)["samples"])


def test_it_learns_and_resumes(tmp_path: Path) -> None:
    whole = train(fresh(), line_loss, SCHEDULE, tmp_path)
    assert samples(tmp_path) == 400
    assert abs(whole.weight.item() - 3) < 0.1 and abs(whole.bias.item() + 1) < 0.1
    again = train(fresh(), line_loss, SCHEDULE, tmp_path)
    assert torch.equal(again.weight, whole.weight)


def test_a_stage_cut_short_is_over_unless_the_plan_grows(tmp_path: Path) -> None:
    """What comes after it rests on its weights, so a second run must not move them."""
    past = dataclasses.replace(SCHEDULE, deadline=time.time() + 0.05, samples=10**9)
    cut = train(fresh(), line_loss, past, tmp_path)
    seen = samples(tmp_path)
    assert 0 < seen < 10**9
    again = train(fresh(), line_loss, dataclasses.replace(past, deadline=0.0), tmp_path)
    assert torch.equal(again.weight, cut.weight)
    assert samples(tmp_path) == seen
    more = dataclasses.replace(past, samples=10**9 + 1, deadline=time.time() + 0.05)
    train(fresh(), line_loss, more, tmp_path)
    assert samples(tmp_path) > seen
