"""One training loop for every stage: one or more single-threaded workers on shared weights.

With more than one worker the weights are updated without a lock (Hogwild, Niu et al. 2011): each
worker has its own AdamW moments, worker 0 keeps the running mean of the weights, writes
checkpoints and shows progress. A run continues from its checkpoint if there is one.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from torch import Tensor, nn
from tqdm import tqdm

StepLoss = Callable[[nn.Module, torch.Generator, float], tuple[Tensor, dict[str, float]]]
"""(model, generator, progress 0..1) -> loss to descend, and figures to show."""

MEAN_EVERY = 5
BUSY = 1.6
"""Load a core (one-minute mean) above which every worker but the first stands aside."""


@dataclass(frozen=True)
class Schedule:
    """Length and rate of one stage. `deadline` (seconds since the epoch, 0 = none) shortens it: the rate's
    decay then follows the clock if that is ahead of the samples."""

    name: str
    samples: int
    batch: int
    rate: float
    seed: int
    warm_up: int = 60
    constant: float = 0.4
    floor: float = 0.02
    weight_decay: float = 0.01
    mean_decay: float = 0.999
    checkpoint_seconds: float = 120.0
    deadline: float = 0.0

    def complete(self, samples: int, cut_short_of: int) -> bool:
        """Whether a stage that saw `samples`, and if cut short by a deadline was to see `cut_short_of`, is over: then
        later stages rest on it. A schedule that has grown since goes on."""
        return samples >= self.samples or cut_short_of >= self.samples

    def rate_at(self, step: int, progress: float) -> float:
        """Warm-up, constant until `constant`, then half a cosine down to `floor` of the rate."""
        fall = max(0.0, progress - self.constant) / (1.0 - self.constant)
        shape = self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, fall)))
        return self.rate * shape * min(1.0, (step + 1) / self.warm_up)


def save_atomically(value: Any, path: Path) -> None:
    """Write beside, then rename, so that a reader never sees half a file."""
    beside = path.with_suffix(f".{os.getpid()}.part")
    torch.save(value, beside)
    beside.replace(path)


def one_thread() -> None:
    """Keep torch to one thread: two many-threaded jobs on two cores slow each other tenfold."""
    torch.set_num_threads(1)


@torch.no_grad()
def _follow(mean: nn.Module, model: nn.Module, decay: float) -> None:
    for old, new in zip(mean.state_dict().values(), model.state_dict().values(), strict=True):
        if old.dtype.is_floating_point:
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)


def _work(
    rank: int,
    workers: int,
    model: nn.Module,
    mean: nn.Module,
    step_loss: StepLoss,
    schedule: Schedule,
    folder: Path,
    counter: Any,
    moments: dict[str, Any] | None,
) -> None:
    one_thread()
    torch.manual_seed(schedule.seed + 7919 * rank)
    generator = torch.Generator().manual_seed(schedule.seed + 104_729 * rank + counter.value)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=schedule.rate, betas=(0.9, 0.99), weight_decay=schedule.weight_decay, fused=True
    )
    if moments is not None and rank == 0:
        optimiser.load_state_dict(moments)
    model.train()
    step = 0 if counter.value == 0 else schedule.warm_up
    begin, saved = time.time(), time.time()
    first = counter.value / schedule.samples
    shown: dict[str, float] = {}
    bar = tqdm(
        total=schedule.samples, initial=counter.value, desc=schedule.name, unit="img", disable=rank > 0, mininterval=10
    )
    while True:
        progress = counter.value / schedule.samples
        if schedule.deadline:
            clock = (time.time() - begin) / max(1.0, schedule.deadline - begin)
            progress = max(progress, first + (1 - first) * clock)
        if progress >= 1.0 or (rank > 0 and (folder / "one-worker").exists()):
            break
        if rank > 0 and os.getloadavg()[0] > BUSY * (os.cpu_count() or 1):
            time.sleep(5)
            continue
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate_at(step, progress)
        loss, figures = step_loss(model, generator, progress)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        with counter.get_lock():
            counter.value += schedule.batch
        if rank > 0:
            continue
        if step % MEAN_EVERY == 0:
            _follow(mean, model, min(schedule.mean_decay**MEAN_EVERY, (step + 1) / (step + 100)))
        for key, value in figures.items():
            shown[key] = 0.98 * shown.get(key, value) + 0.02 * value
        bar.n = counter.value
        bar.set_postfix({key: f"{value:.4f}" for key, value in shown.items()}, refresh=False)
        bar.update(0)
        if time.time() - saved > schedule.checkpoint_seconds:
            _checkpoint(model, mean, optimiser, counter.value, folder / f"{schedule.name}.ckpt")
            saved = time.time()
            rate = optimiser.param_groups[0]["lr"]
            line = f"{time.strftime('%H:%M:%S')} {counter.value} {progress:.3f} lr {rate:.2e} {shown}"
            with (folder / f"{schedule.name}.log").open("a", encoding="utf-8") as log:
                print(line, file=log)
    if rank == 0:
        bar.close()
        path = folder / f"{schedule.name}.ckpt"
        _checkpoint(model, mean, optimiser, counter.value, path, cut_short_of=schedule.samples)


def _checkpoint(
    model: nn.Module,
    mean: nn.Module,
    optimiser: torch.optim.Optimizer,
    samples: int,
    path: Path,
    *,
    cut_short_of: int = 0,
) -> None:
    state = {
        "model": model.state_dict(),
        "mean": mean.state_dict(),
        "moments": optimiser.state_dict(),
        "samples": samples,
        "cut_short_of": cut_short_of,
    }
    save_atomically(state, path)


def train(model: nn.Module, step_loss: StepLoss, schedule: Schedule, folder: Path, *, workers: int = 1) -> nn.Module:
    """Train until the samples are used up or the deadline has come; return the running mean of the weights."""
    path = folder / f"{schedule.name}.ckpt"
    mean = copy.deepcopy(model)
    counter = mp.Value("q", 0)
    moments, cut_short_of = None, 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        mean.load_state_dict(state["mean"])
        counter.value, moments, cut_short_of = state["samples"], state["moments"], state["cut_short_of"]
    if not schedule.complete(counter.value, cut_short_of):
        model.share_memory()
        others = [
            mp.get_context("fork").Process(
                target=_work, args=(rank, workers, model, mean, step_loss, schedule, folder, counter, None)
            )
            for rank in range(1, workers)
        ]
        for other in others:
            other.start()
        _work(0, workers, model, mean, step_loss, schedule, folder, counter, moments)
        for other in others:
            other.join()
    return mean.eval().requires_grad_(False)
