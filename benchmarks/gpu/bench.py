"""Shared by the checks: a device, sizes, pictures, a model, and the findings so far."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from depth2img.checkpoints.layout.config import ModelConfig
from depth2img.diffusion import Engine, Settings
from depth2img.diffusion.networks import LATENT_FACTOR, Networks
from depth2img.diffusion.sampling import make_scheduler
from depth2img.estimators.midas import NET_SIDE
from depth2img.io.images import Picture
from depth2img.options import DepthOptions

from . import measure, models

PROMPT: Final = "two wrestlers in a ring, oil painting"
GUIDANCE: Final = 7.0


@dataclass
class Bench:
    """One run on one device.

    Attributes:
        device: where.
        dtype: of all rows that name no other.
        config: the model's.
        side: of the pictures, in pixels.
        steps: of a sampler for a rate.
        batches: how many pictures at a time.
        rates, peaks: by name and batch, pictures a second and GB, for ratios.
        networks: the model, as far as it has been built and tuned.
    """

    device: torch.device
    dtype: torch.dtype
    config: ModelConfig
    side: int
    steps: int
    batches: tuple[int, ...]
    rates: dict[tuple[str, int], float] = field(default_factory=dict)
    peaks: dict[tuple[str, int], float] = field(default_factory=dict)
    found: dict[str, float] = field(default_factory=dict)
    networks: Networks | None = None

    @classmethod
    def on(cls, device: torch.device) -> Bench:
        """Choose full size on a card, small on a CPU."""
        if device.type == "cuda":
            return cls(device, torch.float16, models.full(), 512, 20, (1, 4, 8))
        return cls(device, torch.float32, models.small(), 64, 3, (1, 2))

    @property
    def most(self) -> int:
        """Largest batch."""
        return max(self.batches)

    @property
    def model(self) -> Networks:
        """The model.

        Raises:
            RuntimeError: its check has failed.
        """
        if self.networks is None:
            raise RuntimeError("there is no model, see above")
        return self.networks

    def build(self, dtype: torch.dtype) -> Networks:
        """Build a model, which replaces the previous one."""
        self.networks = None
        measure.clean(self.device)
        self.networks = models.networks(self.config, self.device, dtype)
        measure.wait(self.device)
        return self.networks

    def pictures(self, count: int) -> list[Picture]:
        """Make smooth pictures, all different."""
        rng = np.random.default_rng(5)
        made = []
        for _ in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
            made.append(np.asarray(coarse.resize((self.side, self.side), Image.Resampling.BICUBIC)))
        return made

    def settings(self, **changes: Any) -> Settings:
        """Make the settings of a job, at denoising strength 1."""
        own = Settings(PROMPT, steps=self.steps, denoising_strength=1.0, cfg_scale=GUIDANCE)
        return dataclasses.replace(own, width=self.side, height=self.side, **changes)

    def engine_call(self, count: int, **changes: Any) -> Callable[[], Any]:
        """Return a call that runs the engine on pictures whose depth is not in its cache."""
        engine, pictures, settings = Engine(self.model), self.pictures(count), self.settings(**changes)

        def call() -> Any:
            engine._cache.clear()
            return engine.generate(pictures, settings, DepthOptions())

        return call

    def unet_call(self, unet: Any, count: int) -> Callable[[], torch.Tensor]:
        """Return a call that runs one step of a batch, both halves of the guidance."""
        side, width = self.side // LATENT_FACTOR, int(self.config.unet["cross_attention_dim"])
        shapes = (2 * count, 5, side, side), (2 * count, 77, width)
        latents, text = (self.random(shape) for shape in shapes)
        timestep = torch.tensor(501, device=self.device)

        def call() -> torch.Tensor:
            with torch.no_grad():
                made: torch.Tensor = unet(latents, timestep, encoder_hidden_states=text).sample
            return made

        return call

    def random(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Draw normal numbers, the same each time."""
        return torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(self.device, self.model.dtype)


class Rival:
    """The pipeline of diffusers in its default configuration, with the same weights.

    While it is there, the model's own depth network waits in the computer's memory.

    Args:
        bench: its model is shared.
    """

    def __init__(self, bench: Bench) -> None:
        from diffusers import StableDiffusionDepth2ImgPipeline
        from transformers import DPTImageProcessor

        from depth2img.checkpoints.layout.tokenizer import _tokenizer

        networks, side = bench.model, NET_SIDE  # as published, whatever the small model says
        self._bench, self._own = bench, networks.estimator.network
        estimator = copy.deepcopy(self._own.estimator).to(networks.dtype)
        estimator.dpt.embeddings.image_size = (side, side)  # `DptNetwork` has set it to the last picture's
        self._own.to("cpu")
        self.pipe: Any = StableDiffusionDepth2ImgPipeline(
            vae=networks.vae,
            text_encoder=networks.text_encoder,
            tokenizer=_tokenizer(),
            unet=networks.unet,
            scheduler=make_scheduler(networks, "ddim"),
            depth_estimator=estimator,
            feature_extractor=DPTImageProcessor(size={"height": side, "width": side}),
        )
        self.pipe.set_progress_bar_config(disable=True)

    def call(self, count: int) -> Callable[[], Any]:
        """Return a call that runs the pipeline."""
        pictures = [Image.fromarray(one) for one in self._bench.pictures(count)]
        generators = [torch.Generator().manual_seed(seed) for seed in range(count)]

        def call() -> Any:
            return self.pipe(
                prompt=[PROMPT] * count,
                negative_prompt=[""] * count,
                image=pictures,
                strength=1.0,
                num_inference_steps=self._bench.steps,
                guidance_scale=GUIDANCE,
                generator=generators,
                output_type="np",
            ).images

        return call

    def leave(self) -> None:
        """Release the pipeline's memory, and move the depth network back."""
        del self.pipe
        self._own.to(self._bench.device)
        measure.clean(self._bench.device)
