"""Depth-to-image with the embedded networks, as the diffusers pipeline does it, in batches."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from tools.embedded_model.export import SCHEDULER_CONFIG, Networks
from tools.embedded_model.loop import half_precision
from tools.embedded_model.stage_vae import to_bytes
from tools.embedded_model.tokens import encode


def noise_like(latents: Tensor, seed: int) -> Tensor:
    """Draw standard normal noise, one seed per sample: the same whatever the batch."""
    parts = [
        torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(seed + i)) for i in range(len(latents))
    ]
    return torch.stack(parts).to(latents.device)


@torch.no_grad()
def generate(
    networks: Networks,
    latents: Tensor,
    depth: Tensor,
    captions: list[str],
    *,
    seed: int,
    steps: int = 20,
    guidance: float = 4.0,
) -> Tensor:
    """Denoising strength 1.0 from scaled `latents` (B, 4, h, w); `depth` (B, 1, h, w) in -1..1, zeros = off.

    The start is the input's latent under noise at the first of `steps` DDIM steps. Returns uint8
    (B, H, W, 3).
    """
    scheduler = DDIMScheduler(**{key: value for key, value in SCHEDULER_CONFIG.items() if not key.startswith("_")})
    scheduler.set_timesteps(steps)
    ids = encode(captions + [""] * len(captions)).to(latents.device)
    with half_precision(latents.device):
        states = networks.text(input_ids=ids).last_hidden_state
        state = scheduler.add_noise(latents.float(), noise_like(latents, seed), scheduler.timesteps[:1])
        for step in scheduler.timesteps:
            both = torch.cat([torch.cat([state, depth], dim=1)] * 2)
            at = torch.full((len(both),), int(step), device=latents.device)
            asked, empty = networks.unet(both, at, encoder_hidden_states=states).sample.float().chunk(2)
            state = scheduler.step(empty + guidance * (asked - empty), step, state).prev_sample
        return to_bytes(networks.vae.decode(state / networks.scaling_factor).sample)
