"""The stages in order; each is skipped if its result is there, and continues from its checkpoint if not."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tools.embedded_model.dataset import Rendered, load_or_render
from tools.embedded_model.loop import one_thread
from tools.embedded_model.plan import PLAN, Plan
from tools.embedded_model.scenes import HELD_OUT_SEEDS, TRAINING_SEEDS


def rendered_sets(plan: Plan, work: Path, workers: int) -> tuple[Rendered, Rendered]:
    """Training and held-out scenes."""
    training = load_or_render(work / "training.pkl", TRAINING_SEEDS[: plan.geometries], plan.looks, workers=workers)
    held_out = load_or_render(work / "held-out.pkl", HELD_OUT_SEEDS[: plan.held_out], 1, workers=workers)
    return training, held_out


def main() -> None:
    from tools.embedded_model.stage_vae import psnr, train_vae

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--vae-deadline", type=float, default=0.0)
    arguments = parser.parse_args()
    one_thread()
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(PLAN.seed)
    training, held_out = rendered_sets(PLAN, work, arguments.workers)
    pictures = torch.from_numpy(training.pictures).flatten(0, 1)
    vae = train_vae(pictures, PLAN, work, workers=arguments.workers, deadline=arguments.vae_deadline)
    print("PSNR", psnr(vae, torch.from_numpy(held_out.pictures[:64, 0])).mean())
