"""Stage 3: the depth estimator, on pictures and on their reconstructions by the autoencoder."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from depth2img.embedded.depth_net import TinyDepthNet
from tools.embedded_model.loop import Schedule, StepLoss, train
from tools.embedded_model.models import build_depth
from tools.embedded_model.plan import Plan
from tools.embedded_model.stage_vae import to_tensor


def _worn(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures in -1..1 with noise, a blur or a change of contrast, as a generated picture may have."""
    batch = len(pictures)
    rolls = torch.rand(batch, 4, 1, 1, 1, generator=generator)
    blurred = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    out = torch.where(rolls[:, 0] < 0.35, blurred, pictures)
    strength = 0.12 * rolls[:, 1] * (rolls[:, 2] < 0.6)
    out = out + strength * torch.randn(out.shape, generator=generator)
    return (out * (0.8 + 0.3 * rolls[:, 3])).clamp(-1, 1)


@torch.no_grad()
def reconstructions(vae: AutoencoderKL, pictures: Tensor, name: str, batch: int = 8) -> Tensor:
    """uint8 (N, S, S, 3) -> the autoencoder's 8-bit reconstructions."""
    parts = []
    for part in tqdm(pictures.split(batch), desc=name, mininterval=10):
        decoded = vae.decode(vae.encode(to_tensor(part)).latent_dist.mean).sample
        parts.append(decoded.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1))
    return torch.cat(parts)


def depth_loss(pictures: Tensor, inverse_depth: Tensor, solid: Tensor, rebuilt: Tensor, plan: Plan) -> StepLoss:
    """L1 of inverse depth and of its gradients, and cross-entropy of the mask.

    `pictures` uint8 (N, L, S, S, 3), `inverse_depth` (N, S, S), `solid` bool (N, S, S), `rebuilt`
    uint8 (M, S, S, 3): reconstructions of the first look of the first M geometries.
    """

    def step(model: nn.Module, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(model, TinyDepthNet)
        third = plan.depth_batch // 3
        which = torch.randint(len(pictures), (plan.depth_batch,), generator=generator)
        which[:third] %= len(rebuilt)
        look = torch.randint(pictures.shape[1], (plan.depth_batch,), generator=generator)
        drawn = pictures[which, look]
        drawn[:third] = rebuilt[which[:third]]
        flip = torch.rand(plan.depth_batch, generator=generator) < 0.5
        target, mask = inverse_depth[which].float()[:, None], solid[which].float()[:, None]
        target = torch.where(flip[:, None, None, None], target.flip(-1), target)
        mask = torch.where(flip[:, None, None, None], mask.flip(-1), mask)
        seen = to_tensor(drawn)
        seen = torch.where(flip[:, None, None, None], seen.flip(-1), seen)
        depth, logit = model.both(_worn(seen, generator))
        error = (depth - target) / 0.25
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        absolute = error.abs().mean()
        entropy = functional.binary_cross_entropy_with_logits(logit, mask)
        return absolute + edges + 0.5 * entropy, {"l1": absolute.item(), "mask": entropy.item()}

    return step


def train_depth(
    pictures: Tensor,
    inverse_depth: Tensor,
    solid: Tensor,
    rebuilt: Tensor,
    plan: Plan,
    folder: Path,
    *,
    deadline: float = 0.0,
) -> TinyDepthNet:
    """The trained estimator; arguments as in `depth_loss`."""
    schedule = Schedule(
        "depth", plan.depth_samples, plan.depth_batch, plan.depth_rate, plan.seed + 2, constant=0.3, weight_decay=1e-4,
        mean_decay=0.99, checkpoint_seconds=plan.checkpoint_seconds, deadline=deadline,
    )  # fmt: skip
    net = train(build_depth(), depth_loss(pictures, inverse_depth, solid, rebuilt, plan), schedule, folder)
    assert isinstance(net, TinyDepthNet)
    return net
