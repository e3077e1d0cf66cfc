"""Stage 2: the depth estimator, on pictures that are sharp, blurred, mottled or noisy."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from depth2img.embedded.depth_net import TinyDepthNet
from tools.embedded_model.loop import Schedule, StepLoss, train
from tools.embedded_model.models import build_depth
from tools.embedded_model.plan import Plan
from tools.embedded_model.stage_vae import to_tensor


def _worn(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures in -1..1 as a generated one may be: blurred, drawn at a lower resolution, noisy, of lower contrast."""
    batch, side = len(pictures), pictures.shape[-1]
    rolls = torch.rand(batch, 5, 1, 1, 1, generator=generator)
    blurred = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    coarse = functional.interpolate(functional.avg_pool2d(pictures, 4), size=(side, side), mode="bilinear")
    out = torch.where(rolls[:, 0] < 0.30, blurred, pictures)
    out = torch.where(rolls[:, 0] > 0.85, coarse, out)
    strength = 0.06 * rolls[:, 1] * (rolls[:, 2] < 0.6)
    out = out + strength * torch.randn(out.shape, generator=generator)
    patches = torch.randn(batch, 3, side // 8, side // 8, generator=generator)
    mottling = functional.interpolate(patches, size=(side, side), mode="bicubic")
    out = out + 0.05 * (rolls[:, 4] < 0.4) * mottling
    return (out * (0.8 + 0.3 * rolls[:, 3])).clamp(-1, 1)


def depth_loss(pictures: Tensor, relative: Tensor, solid: Tensor, plan: Plan) -> StepLoss:
    """L1 of relative inverse depth and of its gradients, and cross-entropy of the mask.

    `pictures` uint8 (N, L, S, S, 3), `relative` (N, S, S) in 0..1, `solid` bool (N, S, S).
    """

    def step(model: nn.Module, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(model, TinyDepthNet)
        which = torch.randint(len(pictures), (plan.depth_batch,), generator=generator)
        look = torch.randint(pictures.shape[1], (plan.depth_batch,), generator=generator)
        drawn = pictures[which, look]
        flip = torch.rand(plan.depth_batch, generator=generator) < 0.5
        target, mask = relative[which].float()[:, None], solid[which].float()[:, None]
        target = torch.where(flip[:, None, None, None], target.flip(-1), target)
        mask = torch.where(flip[:, None, None, None], mask.flip(-1), mask)
        seen = to_tensor(drawn)
        seen = torch.where(flip[:, None, None, None], seen.flip(-1), seen)
        depth, logit = model.both(_worn(seen, generator).contiguous(memory_format=torch.channels_last))
        error = 4.0 * (depth - target)
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        absolute = error.abs().mean()
        entropy = functional.binary_cross_entropy_with_logits(logit, mask)
        return absolute + edges + 0.5 * entropy, {"l1": absolute.item(), "mask": entropy.item()}

    return step


def train_depth(
    pictures: Tensor, relative: Tensor, solid: Tensor, plan: Plan, folder: Path, *, deadline: float = 0.0
) -> TinyDepthNet:
    """The trained estimator; arguments as in `depth_loss`."""
    schedule = Schedule(
        "depth", plan.depth_samples, plan.depth_batch, plan.depth_rate, plan.seed + 2, constant=0.3, weight_decay=1e-4,
        mean_decay=0.99, checkpoint_seconds=plan.checkpoint_seconds, deadline=deadline,
    )  # fmt: skip
    net = train(build_depth(), depth_loss(pictures, relative, solid, plan), schedule, folder)
    assert isinstance(net, TinyDepthNet)
    return net
