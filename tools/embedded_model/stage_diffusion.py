"""Stage 5: the UNet and the text encoder, together, on eps-prediction."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from tools.embedded_model.loop import Schedule, StepLoss, train
from tools.embedded_model.models import BETA_END, BETA_START, TRAINING_STEPS, build_text, build_unet
from tools.embedded_model.plan import Plan
from tools.embedded_model.products import multiply_in_bfloat16, supported
from tools.embedded_model.stage_latents import Encoded
from tools.embedded_model.tokens import encode, row_of_id


class Denoiser(nn.Module):
    """UNet and text encoder as one thing to train."""

    def __init__(self) -> None:
        super().__init__()
        self.unet: UNet2DConditionModel = build_unet()
        self.text: CLIPTextModel = build_text()

    def forward(self, noisy: Tensor, depth: Tensor, step: Tensor, rows: Tensor) -> Tensor:
        """Noisy latents (B, 4, h, w), depth (B, 1, h, w), step (B,), token rows (B, 77) -> noise (B, 4, h, w)."""
        states = self.text(input_ids=rows).last_hidden_state
        return cast(Tensor, self.unet(torch.cat([noisy, depth], dim=1), step, encoder_hidden_states=states).sample)


def cumulative_signal() -> Tensor:
    """alpha-bar (1000,) of the scaled-linear schedule (Rombach et al. 2022)."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAINING_STEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0).float()


def v_weight(signal: Tensor) -> Tensor:
    """Weight that turns the eps-loss into the v-loss, 1 + 1/SNR (Salimans and Ho 2022), held to 150 and, where
    the noise is weak, damped by 5/SNR (Hang et al. 2023)."""
    ratio = signal / (1 - signal)
    return (5.0 / ratio).clamp_max(1.0) * (1 + 1 / ratio).clamp_max(150.0)


def _depth_input(encoded: Encoded, which: Tensor, generator: torch.Generator) -> Tensor:
    """Conditioning (B, 1, h, w): 70 % estimated, 30 % exact; some of it bent by a power or slightly noisy;
    17 % neutral (zeros)."""
    batch = len(which)
    rolls = torch.rand(batch, 4, 1, 1, 1, generator=generator)
    depth = torch.where(rolls[:, 0] < 0.3, encoded.exact[which], encoded.estimated[which])
    power = torch.where(rolls[:, 1] < 0.4, 2 ** (2 * rolls[:, 1] / 0.4 - 1), torch.ones(()))
    depth = ((depth + 1) / 2).clamp_min(0).pow(power) * 2 - 1
    noise = 0.04 * (rolls[:, 2] < 0.4) * torch.randn(depth.shape, generator=generator)
    return torch.where(rolls[:, 3] < 0.17, torch.zeros(()), (depth + noise).clamp(-1, 1))


def denoising_loss(encoded: Encoded, plan: Plan) -> StepLoss:
    """v-weighted error of the predicted noise; half the steps from 650..999; noise with a random mean per channel
    for the first 85 % of the training, so that a region's colour cannot be read from the noisy latent and has to
    be taken from the caption; captions dropped for 10 %."""
    signal, empty = cumulative_signal(), row_of_id()[encode([""])]
    weights = v_weight(signal)

    def step(model: nn.Module, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        batch = plan.unet_batch
        which = torch.randint(len(encoded.latents), (batch,), generator=generator)
        version = torch.randint(encoded.rows.shape[1], (batch,), generator=generator)
        rows = encoded.rows[which, version].long()
        rows = torch.where(torch.rand(batch, 1, generator=generator) < 0.1, empty, rows)
        late = torch.randint(650, TRAINING_STEPS, (batch,), generator=generator)
        any_step = torch.randint(0, TRAINING_STEPS, (batch,), generator=generator)
        t = torch.where(torch.rand(batch, generator=generator) < 0.5, late, any_step)
        clean = encoded.latents[which]
        noise = torch.randn(clean.shape, generator=generator)
        if progress < 0.85:
            noise = noise + 0.15 * torch.randn(batch, 4, 1, 1, generator=generator)
        alpha = signal[t][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        error = (model(noisy, _depth_input(encoded, which, generator), t, rows) - noise).pow(2).mean(dim=(1, 2, 3))
        loss = (weights[t] * error).mean()
        late_error = error.detach()[t >= 650].mean().item() if bool((t >= 650).any()) else 0.0
        return loss, {"loss": loss.item(), "eps": error.detach().mean().item(), "late": late_error}

    return step


def train_denoiser(encoded: Encoded, plan: Plan, folder: Path, *, workers: int, deadline: float = 0.0) -> Denoiser:
    """The trained UNet and text encoder (running mean of the weights)."""
    schedule = Schedule(
        "unet", plan.unet_samples, plan.unet_batch, plan.unet_rate, plan.seed + 3, warm_up=100, constant=0.4,
        weight_decay=0.01, mean_decay=0.997, checkpoint_seconds=plan.checkpoint_seconds, deadline=deadline,
    )  # fmt: skip
    denoiser = Denoiser()
    if supported():
        multiply_in_bfloat16(denoiser)
    denoiser = train(denoiser, denoising_loss(encoded, plan), schedule, folder, workers=workers)
    assert isinstance(denoiser, Denoiser)
    return denoiser
