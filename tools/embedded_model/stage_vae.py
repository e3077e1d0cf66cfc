"""Stage 3: the autoencoder, on small pictures first and full ones later; then its decoder alone."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from tools.embedded_model.loop import Schedule, StepLoss, train
from tools.embedded_model.models import build_vae
from tools.embedded_model.plan import Plan


def to_tensor(pictures: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in -1..1, channels last in memory."""
    return pictures.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def _draw(pictures: Tensor, batch: int, shrink: int, generator: torch.Generator) -> Tensor:
    """`batch` random whole pictures from uint8 (N, S, S, 3), half of them mirrored, `shrink` times smaller.

    Whole scenes, not crops: with two channels a group, GroupNorm leaves next to nothing of the colour of a
    picture that has one colour only, and most small crops are like that.
    """
    which = torch.randint(len(pictures), (batch,), generator=generator)
    drawn = to_tensor(pictures[which])
    if shrink > 1:
        drawn = functional.avg_pool2d(drawn, shrink)
    flip = torch.rand(batch, generator=generator) < 0.5
    return torch.where(flip[:, None, None, None], drawn.flip(-1), drawn).contiguous(memory_format=torch.channels_last)


def _draw_for(pictures: Tensor, plan: Plan, progress: float, generator: torch.Generator) -> Tensor:
    """Pictures of half the side until `vae_small` of the training, then a quarter as many in full."""
    if progress < plan.vae_small:
        return _draw(pictures, plan.vae_batch, 2, generator)
    return _draw(pictures, plan.vae_batch // 4, 1, generator)


def _difference(decoded: Tensor, drawn: Tensor) -> tuple[Tensor, float]:
    """L1 + 4 MSE + 0.5 L1 of the gradients, and PSNR in dB for pictures in -1..1 (peak 2)."""
    error = decoded - drawn
    square = error.pow(2).mean()
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    psnr = 10 * torch.log10(4.0 / square.detach()).item()
    return error.abs().mean() + 4.0 * square + 0.5 * edges, psnr


def vae_loss(pictures: Tensor, plan: Plan) -> StepLoss:
    """Reconstruction of sampled latents plus a light KL term (1e-4 per latent element)."""

    def step(model: nn.Module, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(model, AutoencoderKL)
        drawn = _draw_for(pictures, plan, progress, generator)
        posterior = model.encode(drawn).latent_dist
        loss, psnr = _difference(model.decode(posterior.sample()).sample, drawn)
        kl = 0.5 * (posterior.mean.pow(2) + posterior.var - 1.0 - posterior.logvar).mean()
        return loss + 1e-4 * kl, {"psnr": psnr, "kl": kl.item()}

    return step


def decoder_loss(pictures: Tensor, latents: Tensor, plan: Plan) -> StepLoss:
    """Reconstruction of uint8 (N, S, S, 3) from the fixed encoder's mean latents (N, 4, h, w)."""

    def step(model: nn.Module, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(model, AutoencoderKL)
        which = torch.randint(len(pictures), (plan.decoder_batch,), generator=generator)
        loss, psnr = _difference(model.decode(latents[which]).sample, to_tensor(pictures[which]))
        return loss, {"psnr": psnr}

    return step


def train_vae(pictures: Tensor, plan: Plan, folder: Path, *, workers: int, deadline: float = 0.0) -> AutoencoderKL:
    """Both halves together; from then on the latents are fixed."""
    schedule = Schedule(
        "vae", plan.vae_samples, plan.vae_batch, plan.vae_rate, plan.seed, warm_up=50, constant=0.3,
        weight_decay=1e-4, mean_decay=0.995, checkpoint_seconds=plan.checkpoint_seconds, deadline=deadline,
    )  # fmt: skip
    vae = train(build_vae(), vae_loss(pictures, plan), schedule, folder, workers=workers)
    assert isinstance(vae, AutoencoderKL)
    return vae


def refine_decoder(
    vae: AutoencoderKL, pictures: Tensor, latents: Tensor, plan: Plan, folder: Path, *, deadline: float = 0.0
) -> AutoencoderKL:
    """Train the decoder on; the encoder, and so the latents, stay as they are."""
    vae.requires_grad_(True)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    schedule = Schedule(
        "decoder", plan.decoder_samples, plan.decoder_batch, plan.decoder_rate, plan.seed + 1, warm_up=100,
        constant=0.3, weight_decay=0.0, mean_decay=0.99, checkpoint_seconds=plan.checkpoint_seconds, deadline=deadline,
    )  # fmt: skip
    refined = train(vae, decoder_loss(pictures, latents, plan), schedule, folder)
    assert isinstance(refined, AutoencoderKL)
    return refined


@torch.no_grad()
def psnr(vae: AutoencoderKL, pictures: Tensor, batch: int = 8) -> Tensor:
    """PSNR in dB of the 8-bit reconstruction of uint8 (N, S, S, 3), from mean latents; (N,)."""
    values = []
    for part in pictures.split(batch):
        decoded = vae.decode(vae.encode(to_tensor(part)).latent_dist.mean).sample
        levels = decoded.add(1).mul(127.5).round().clamp(0, 255).permute(0, 2, 3, 1)
        square = (levels - part.float()).div(255).pow(2).mean(dim=(1, 2, 3))
        values.append(-10 * torch.log10(square))
    return torch.cat(values)
