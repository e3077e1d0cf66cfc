"""The autoencoder, on small pictures first and full ones later; then its decoder alone."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from tools.embedded_model.loop import Schedule, StepLoss, half_precision, train
from tools.embedded_model.models import build_vae
from tools.embedded_model.plan import Plan


def to_tensor(pictures: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in -1..1, channels last in memory."""
    return pictures.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def to_bytes(decoded: Tensor) -> Tensor:
    """(B, 3, H, W) in -1..1 -> uint8 (B, H, W, 3)."""
    return decoded.float().add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)


def _draw(pictures: Tensor, batch: int, shrink: int, generator: torch.Generator) -> Tensor:
    """`batch` random whole pictures from uint8 (N, S, S, 3), half of them mirrored, `shrink` times smaller.

    Whole scenes, not crops: with two channels a group, GroupNorm leaves next to nothing of the colour of a
    picture that has one colour only, and most small crops are like that.
    """
    device = pictures.device
    which = torch.randint(len(pictures), (batch,), generator=generator, device=device)
    drawn = to_tensor(pictures[which])
    if shrink > 1:
        drawn = functional.avg_pool2d(drawn, shrink)
    flip = torch.rand(batch, 1, 1, 1, generator=generator, device=device) < 0.5
    return torch.where(flip, drawn.flip(-1), drawn).contiguous(memory_format=torch.channels_last)


def difference(decoded: Tensor, drawn: Tensor, square_weight: float) -> tuple[Tensor, Tensor]:
    """L1, squares, and L1 of the gradients at two scales; and PSNR in dB for pictures in -1..1 (peak 2)."""
    error = decoded.float() - drawn
    square = error.pow(2).mean()
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    coarse = functional.avg_pool2d(error, 2)
    edges = edges + 0.5 * (coarse.diff(dim=-1).abs().mean() + coarse.diff(dim=-2).abs().mean())
    psnr = 10 * torch.log10(4.0 / square.detach())
    return error.abs().mean() + square_weight * square + 0.8 * edges, psnr


def vae_loss(pictures: Tensor, plan: Plan) -> StepLoss:
    """Make the loss, the reconstruction of sampled latents plus a light KL term (1e-4 per latent element).

    Pictures have half the side until `vae_small` of the training.
    """

    def step(model: nn.Module, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        vae = cast(AutoencoderKL, model)
        small = progress < plan.vae_small
        drawn = _draw(pictures, plan.vae_batch * (3 if small else 1), 2 if small else 1, generator)
        posterior = vae.encode(drawn).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        loss, psnr = difference(vae.decode(mean + (0.5 * logvar).exp() * noise).sample, drawn, 4.0)
        kl = 0.5 * (mean.pow(2) + logvar.exp() - 1.0 - logvar).mean()
        return loss + 1e-4 * kl, {"psnr": psnr, "kl": kl.detach()}

    return step


def decoder_loss(pictures: Tensor, latents: Tensor, factor: float, plan: Plan) -> StepLoss:
    """Make the loss, the reconstruction of uint8 (N, S, S, 3) from the fixed encoder's mean latents (N, 4, h, w).

    The latents are scaled by `factor` and slightly noisy, as the UNet's are; squares, which blur, count little.
    """

    def step(model: nn.Module, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        vae = cast(AutoencoderKL, model)
        which = torch.randint(len(pictures), (plan.vae_batch,), generator=generator, device=pictures.device)
        seen = latents[which].float()
        seen = seen + 0.02 * torch.randn(seen.shape, generator=generator, device=seen.device)
        loss, psnr = difference(vae.decode(seen / factor).sample, to_tensor(pictures[which]), 1.0)
        return loss, {"psnr": psnr}

    return step


def train_vae(pictures: Tensor, plan: Plan, folder: Path, seconds: float) -> AutoencoderKL:
    """Both halves together; from then on the latents are fixed."""
    schedule = Schedule("vae", seconds, plan.vae_rate, plan.seed, constant=0.3, weight_decay=1e-4, mean_decay=0.997)
    vae = build_vae().to(pictures.device)
    return cast(AutoencoderKL, train(vae, vae_loss(pictures, plan), schedule, folder))


def refine_decoder(
    vae: AutoencoderKL, pictures: Tensor, latents: Tensor, factor: float, plan: Plan, folder: Path, seconds: float
) -> AutoencoderKL:
    """Train the decoder on; the encoder, and so the latents, stay as they are."""
    vae.requires_grad_(True)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    schedule = Schedule(
        "decoder",
        seconds,
        plan.decoder_rate,
        plan.seed + 1,
        warm_up=30,
        constant=0.2,
        weight_decay=0.0,
        mean_decay=0.99,
    )
    return cast(AutoencoderKL, train(vae, decoder_loss(pictures, latents, factor, plan), schedule, folder))


@torch.no_grad()
def psnr(vae: AutoencoderKL, pictures: Tensor, batch: int = 32) -> Tensor:
    """PSNR in dB of the 8-bit reconstruction of uint8 (N, S, S, 3), from mean latents; (N,)."""
    values = []
    for part in pictures.split(batch):
        with half_precision(pictures.device):
            decoded = vae.decode(vae.encode(to_tensor(part)).latent_dist.mean).sample
        square = (to_bytes(decoded).float() - part.float()).div(255).pow(2).mean(dim=(1, 2, 3))
        values.append(-10 * torch.log10(square))
    return torch.cat(values)
