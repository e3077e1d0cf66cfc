"""The depth estimator and the judges, on pictures that are sharp, blurred, mottled or noisy."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from depth2img.embedded.depth_net import TinyDepthNet
from tools.embedded_model.dataset import Rendered
from tools.embedded_model.judges import JointNet, StyleNet, heat_maps
from tools.embedded_model.loop import Schedule, StepLoss, train
from tools.embedded_model.models import build_depth
from tools.embedded_model.plan import Plan
from tools.embedded_model.stage_vae import to_tensor


def worn(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures in -1..1 as a generated one may be: blurred, drawn at a lower resolution, noisy, of lower contrast."""
    batch, side, device = len(pictures), pictures.shape[-1], pictures.device
    rolls = torch.rand(batch, 5, 1, 1, 1, generator=generator, device=device)
    blurred = functional.avg_pool2d(functional.pad(pictures, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    coarse = functional.interpolate(
        functional.avg_pool2d(pictures, 6, ceil_mode=True), size=(side, side), mode="bilinear"
    )
    out = torch.where(rolls[:, 0] < 0.30, blurred, pictures)
    out = torch.where(rolls[:, 0] > 0.88, coarse, out)
    strength = 0.06 * rolls[:, 1] * (rolls[:, 2] < 0.6)
    out = out + strength * torch.randn(out.shape, generator=generator, device=device)
    patches = torch.randn(batch, 3, side // 16, side // 16, generator=generator, device=device)
    mottling = functional.interpolate(patches, size=(side, side), mode="bicubic")
    out = out + 0.05 * (rolls[:, 4] < 0.4) * mottling
    return (out * (0.8 + 0.3 * rolls[:, 3])).clamp(-1, 1).contiguous(memory_format=torch.channels_last)


def _drawn(data: Rendered, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Worn pictures, their scenes, looks, and whether they are mirrored (B, 1, 1)."""
    device = data.pictures.device
    which = torch.randint(len(data.pictures), (batch,), generator=generator, device=device)
    look = torch.randint(data.pictures.shape[1], (batch,), generator=generator, device=device)
    seen = worn(to_tensor(data.pictures[which, look]), generator)
    return seen, which, look, data.mirrored[which, look][:, None, None]


def depth_loss(data: Rendered, batch: int) -> StepLoss:
    """L1 of relative inverse depth and of its gradients, and cross-entropy of the mask of solids and figures."""

    def step(model: nn.Module, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        seen, which, _, flip = _drawn(data, batch, generator)
        target, mask = data.relative_depth(which), (data.items[which] > 0).float()
        target, mask = torch.where(flip, target.flip(-1), target), torch.where(flip, mask.flip(-1), mask)
        depth, logit = cast(TinyDepthNet, model).both(seen)
        error = 4.0 * (depth.float() - target[:, None])
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        absolute = error.abs().mean()
        entropy = functional.binary_cross_entropy_with_logits(logit.float(), mask[:, None])
        return absolute + edges + 0.5 * entropy, {"l1": absolute.detach(), "mask": entropy.detach()}

    return step


def style_loss(data: Rendered, batch: int) -> StepLoss:
    """Cross-entropy of style and light; light counts only where the style shows it."""

    def step(model: nn.Module, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        seen, which, look, _ = _drawn(data, batch, generator)
        style, light = model(seen)
        styles = functional.cross_entropy(style, data.style[which, look])
        shown = (data.style[which, look] == 0).float()
        lights = (
            functional.cross_entropy(light, data.light[which, look], reduction="none") * shown
        ).sum() / shown.sum().clamp_min(1)
        return styles + 0.5 * lights, {"style": styles.detach(), "light": lights.detach()}

    return step


def joint_loss(data: Rendered, batch: int) -> StepLoss:
    """Weighted cross-entropy of the heat maps."""

    def step(model: nn.Module, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        seen, which, _, flip = _drawn(data, batch, generator)
        target = heat_maps(data.joints[which], data.visible_joints(which), seen.shape[-1] // 4)
        target = torch.where(flip[:, None], target.flip(-1), target)
        loss = functional.binary_cross_entropy_with_logits(model(seen), target, weight=1 + 12 * target)
        return 10 * loss, {"heat": loss.detach()}

    return step


def train_depth(data: Rendered, plan: Plan, folder: Path, seconds: float) -> TinyDepthNet:
    """Train the estimator."""
    schedule = Schedule("depth", seconds, 3e-3, plan.seed + 2, constant=0.3, weight_decay=1e-4, mean_decay=0.99)
    net = build_depth().to(data.pictures.device)
    return cast(TinyDepthNet, train(net, depth_loss(data, plan.judge_batch), schedule, folder))


def train_style(data: Rendered, plan: Plan, folder: Path, seconds: float) -> StyleNet:
    """Train the judge of style and light."""
    schedule = Schedule("style", seconds, 3e-3, plan.seed + 4, constant=0.3, weight_decay=1e-4, mean_decay=0.98)
    net = StyleNet().to(data.pictures.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return cast(StyleNet, train(net, style_loss(data, plan.judge_batch), schedule, folder))


def train_joints(data: Rendered, plan: Plan, folder: Path, seconds: float) -> JointNet:
    """Train the judge of poses."""
    schedule = Schedule("joints", seconds, 3e-3, plan.seed + 5, constant=0.3, weight_decay=1e-4, mean_decay=0.99)
    net = JointNet().to(data.pictures.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return cast(JointNet, train(net, joint_loss(data, plan.judge_batch), schedule, folder))
