"""Every number of the training in one place."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Plan:
    """Sizes and rates of the shipped weights; samples are pictures seen in all, by all workers together."""

    seed: int = 20_261_122
    geometries: int = 6000
    looks: int = 2
    encoded_looks: int = 2
    held_out: int = 256
    captions: int = 8

    vae_samples: int = 34_000
    vae_batch: int = 4
    vae_small: float = 0.75
    vae_rate: float = 1e-3
    decoder_samples: int = 1_500
    decoder_batch: int = 2
    decoder_rate: float = 4e-4

    depth_samples: int = 50_000
    depth_batch: int = 16
    depth_rate: float = 3e-3

    unet_samples: int = 381_000
    unet_batch: int = 16
    unet_rate: float = 1e-3

    checkpoint_seconds: float = 120.0

    def longer(self, factor: float) -> Plan:
        """The same training on `factor` times as many samples, every stage alike."""
        return replace(
            self,
            vae_samples=round(self.vae_samples * factor),
            decoder_samples=round(self.decoder_samples * factor),
            depth_samples=round(self.depth_samples * factor),
            unet_samples=round(self.unet_samples * factor),
        )


PLAN = Plan()
