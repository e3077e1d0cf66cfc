"""Every number of the training in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Sizes and rates; samples are pictures (or crops) seen in all, by all workers together."""

    seed: int = 20_261_122
    geometries: int = 6000
    looks: int = 2
    encoded_looks: int = 1
    held_out: int = 256
    captions: int = 8

    vae_samples: int = 56_000
    vae_batch: int = 4
    vae_small: float = 0.75
    vae_rate: float = 1e-3
    decoder_samples: int = 12_000
    decoder_batch: int = 2
    decoder_rate: float = 4e-4

    depth_samples: int = 30_000
    depth_batch: int = 16
    depth_rate: float = 3e-3

    unet_samples: int = 250_000
    unet_batch: int = 16
    unet_rate: float = 1e-3

    checkpoint_seconds: float = 120.0


PLAN = Plan()
