"""Training data of the diffusion model, encoded once: latents, depth conditioning, token rows."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from depth2img.embedded.depth_net import TinyDepthNet
from tools.embedded_model.dataset import Rendered
from tools.embedded_model.loop import half_precision
from tools.embedded_model.models import LATENT_FACTOR
from tools.embedded_model.stage_vae import to_tensor


@dataclass(frozen=True)
class Encoded:
    """P = N geometries x L looks.

    `latents` float16 (P, 4, h, w), scaled to unit standard deviation; `exact` and `estimated` float16
    (P, 1, h, w): the depth conditioning from the renderer's and from the estimator's map; `rows`
    int16 (P, C, 77): C captions as rows of the compact token table; `mirrored` bool (P,).
    """

    latents: Tensor
    exact: Tensor
    estimated: Tensor
    rows: Tensor
    mirrored: Tensor
    looks: int
    scaling_factor: float

    def estimated_elsewhere(self, which: Tensor, generator: torch.Generator) -> Tensor:
        """Pick the map (B, 1, h, w) that was estimated from some look of the same scenes, turned as `which` are.

        So nothing of a picture's own style can be read from the flaws of its map.
        """
        device = which.device
        look = torch.randint(self.looks, which.shape, generator=generator, device=device)
        other = which.div(self.looks, rounding_mode="floor") * self.looks + look
        found = self.estimated[other].float()
        turned = (self.mirrored[other] != self.mirrored[which])[:, None, None, None]
        return torch.where(turned, found.flip(-1), found)


def conditioning(inverse_depth: Tensor, size: tuple[int, int]) -> Tensor:
    """Make conditioning (B, 1, *size) in -1..1, +1 near, of inverse depth (B, 1, H, W).

    Bicubic, then min-max per sample; zeros for a flat map, as the package's own `conditioning`.
    """
    small = functional.interpolate(inverse_depth.float(), size=size, mode="bicubic", align_corners=False)
    low, high = small.amin(dim=(1, 2, 3), keepdim=True), small.amax(dim=(1, 2, 3), keepdim=True)
    span = high - low
    return torch.where(span > 1e-6, 2 * (small - low) / span.clamp_min(1e-6) - 1, torch.zeros_like(small))


@torch.no_grad()
def encode_set(
    data: Rendered, vae: AutoencoderKL, depth: TinyDepthNet, seconds: float, factor: float | None = None
) -> Encoded:
    """Encode the pictures of a rendered set, as many as the seconds allow, at least a batch.

    Latents are scaled to unit standard deviation, or by `factor`.
    """
    count, looks, side = data.pictures.shape[:3]
    device, size = data.pictures.device, (side // LATENT_FACTOR, side // LATENT_FACTOR)
    batch = looks * (4 if device.type == "cpu" else 32)
    pictures, mirrored = data.pictures.flatten(0, 1), data.mirrored.flatten()
    latents, estimated, exact = [], [], []
    end = time.monotonic() + seconds
    for start in range(0, count * looks, batch):
        if start and time.monotonic() > end:
            break
        seen = to_tensor(pictures[start : start + batch])
        with half_precision(device):
            latents.append(vae.encode(seen).latent_dist.mean.half())
            estimated.append(conditioning(depth(seen), size).half())
        scene = torch.arange(start, min(start + batch, count * looks), device=device) // looks
        known = conditioning(data.inverse_depth[scene].float()[:, None], size)
        exact.append(torch.where(mirrored[start : start + batch, None, None, None], known.flip(-1), known).half())
    stacked = torch.cat(latents)
    factor = factor or 1.0 / float(stacked.float().std())
    scaled = (stacked.float() * factor).half()
    rows = data.rows.flatten(0, 1)[: len(scaled)]
    return Encoded(scaled, torch.cat(exact), torch.cat(estimated), rows, mirrored[: len(scaled)], looks, factor)
