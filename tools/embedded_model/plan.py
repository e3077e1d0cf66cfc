"""Every number of the training in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SHARES: Final = {
    "render": 0.10, "depth": 0.05, "style": 0.015, "joints": 0.035, "vae": 0.24, "latents": 0.045, "unet": 0.43,
    "decoder": 0.035, "evaluate": 0.05,
}  # fmt: skip
"""Of the seconds, what each stage may use; rendering, encoding and evaluating take what they need up to it."""


@dataclass(frozen=True)
class Plan:
    """Sizes and rates of a training."""

    seed: int = 20_261_127
    scenes: int = 20_000
    looks: int = 3
    captions: int = 4
    held_out: int = 256
    side: int = 256

    judge_batch: int = 96
    vae_batch: int = 16
    vae_small: float = 0.5
    vae_rate: float = 1e-3
    decoder_rate: float = 3e-4
    unet_batch: int = 128
    unet_rate: float = 1e-3
    compiled: bool = False
