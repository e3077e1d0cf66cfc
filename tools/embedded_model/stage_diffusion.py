"""The UNet and the text encoder, together, on eps-prediction."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from tools.embedded_model.export import TOKEN_TABLE, Networks
from tools.embedded_model.loop import Schedule, StepLoss, train
from tools.embedded_model.models import BETA_END, BETA_START, TRAINING_STEPS, build_text, build_unet
from tools.embedded_model.plan import Plan
from tools.embedded_model.stage_latents import Encoded
from tools.embedded_model.tokens import encode_array, row_of_id, trained_ids


class Denoiser(nn.Module):
    """UNet and text encoder as one thing to train."""

    def __init__(self) -> None:
        super().__init__()
        self.unet: UNet2DConditionModel = build_unet()
        self.text: CLIPTextModel = build_text()

    @classmethod
    def of(cls, networks: Networks) -> Denoiser:
        """UNet and text encoder of an exported model, to train on."""
        out = cls()
        out.unet.load_state_dict(networks.unet.state_dict())
        state = networks.text.state_dict()
        table = state[f"{TOKEN_TABLE}weight"]
        others = next(n for n in range(len(table)) if n not in trained_ids())
        state[f"{TOKEN_TABLE}weight"] = table[[*trained_ids(), others]]
        out.text.load_state_dict(state)
        return out

    def forward(self, noisy: Tensor, depth: Tensor, step: Tensor, rows: Tensor) -> Tensor:
        """Noisy latents (B, 4, h, w), depth (B, 1, h, w), step (B,), token rows (B, 77) -> noise (B, 4, h, w)."""
        states = self.text(input_ids=rows).last_hidden_state
        return cast(Tensor, self.unet(torch.cat([noisy, depth], dim=1), step, encoder_hidden_states=states).sample)


def cumulative_signal() -> Tensor:
    """alpha-bar (1000,) of the scaled-linear schedule (Rombach et al. 2022)."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAINING_STEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0).float()


def v_weight(signal: Tensor) -> Tensor:
    """Compute the weight that turns the eps-loss into the v-loss, 1 + 1/SNR (Salimans and Ho 2022).

    It is held to 150 and, where the noise is weak, damped by 5/SNR (Hang et al. 2023).
    """
    ratio = signal / (1 - signal)
    return (5.0 / ratio).clamp_max(1.0) * (1 + 1 / ratio).clamp_max(150.0)


def _depth_input(encoded: Encoded, which: Tensor, generator: torch.Generator) -> Tensor:
    """Draw conditioning (B, 1, h, w): 70 % estimated, 30 % exact.

    Some of it is bent by a power or slightly noisy, 16 % is neutral (zeros).
    """
    device = which.device
    rolls = torch.rand(len(which), 4, 1, 1, 1, generator=generator, device=device)
    estimated = encoded.estimated_elsewhere(which, generator)
    depth = torch.where(rolls[:, 0] < 0.3, encoded.exact[which].float(), estimated)
    power = torch.where(rolls[:, 1] < 0.4, 2 ** (2 * rolls[:, 1] / 0.4 - 1), 1.0)
    depth = ((depth + 1) / 2).clamp_min(0).pow(power) * 2 - 1
    noise = 0.04 * (rolls[:, 2] < 0.4) * torch.randn(depth.shape, generator=generator, device=device)
    return torch.where(rolls[:, 3] < 0.16, 0.0, (depth + noise).clamp(-1, 1))


def denoising_loss(encoded: Encoded, plan: Plan) -> StepLoss:
    """Make the loss, the v-weighted error of the predicted noise.

    Half the steps are from 650..999. Noise has a random mean per channel for the first 87 % of the training, so that a
    region's colour cannot be read from the noisy latent and has to be taken from the caption. Captions are dropped for
    10 %.
    """
    device, batch = encoded.latents.device, plan.unet_batch
    signal = cumulative_signal().to(device)
    empty = torch.from_numpy(row_of_id()[encode_array([""])]).long().to(device)
    weights = v_weight(signal)

    def step(model: nn.Module, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        def chance(share: float, *more: int) -> Tensor:
            return torch.rand(batch, *more, generator=generator, device=device) < share

        def below(low: int, high: int) -> Tensor:
            return torch.randint(low, high, (batch,), generator=generator, device=device)

        which = below(0, len(encoded.latents))
        rows = encoded.rows[which, below(0, encoded.rows.shape[1])].long()
        rows = torch.where(chance(0.1, 1), empty, rows)
        t = torch.where(chance(0.5), below(650, TRAINING_STEPS), below(0, TRAINING_STEPS))
        clean = encoded.latents[which].float()
        noise = torch.randn(clean.shape, generator=generator, device=device)
        if progress < 0.87:
            noise = noise + 0.15 * torch.randn(batch, 4, 1, 1, generator=generator, device=device)
        alpha = signal[t][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        predicted = model(noisy, _depth_input(encoded, which, generator), t, rows).float()
        error = (predicted - noise).pow(2).mean(dim=(1, 2, 3))
        late = (t >= 650).float()
        figures = {"eps": error.detach().mean(), "late": (error.detach() * late).sum() / late.sum().clamp_min(1)}
        return (weights[t] * error).mean(), figures

    return step


def train_denoiser(denoiser: Denoiser, encoded: Encoded, plan: Plan, folder: Path, seconds: float) -> Denoiser:
    """Train the UNet and the text encoder, and return the running mean of their weights."""
    schedule = Schedule(
        "unet", seconds, plan.unet_rate, plan.seed + 3, warm_up=100, constant=0.4, mean_decay=0.998,
        compiled=plan.compiled,
    )  # fmt: skip
    return cast(Denoiser, train(denoiser, denoising_loss(encoded, plan), schedule, folder))
