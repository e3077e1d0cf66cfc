"""Seams that AUTOMATIC1111 and its forks have in common: jobs, conditioning, and the denoiser."""

from __future__ import annotations

import contextvars
from typing import Any, Final

import torch
from modules import patches, processing, sd_samplers_cfg_denoiser

from depth2img import Depth2ImgError

from .base import Jobs

KEY: Final = __name__

DENOISER: Final[contextvars.ContextVar[Any]] = contextvars.ContextVar("depth2img_denoiser", default=None)
"""The denoiser that is at work, for hosts that do not tell; see `note_the_denoiser`."""


def apply(jobs: Jobs) -> None:
    """Take part in the host's jobs, and make the conditioning of each of their passes."""
    kind = processing.StableDiffusionProcessing
    inner = processing.process_images_inner
    img2img, txt2img = kind.img2img_image_conditioning, kind.txt2img_image_conditioning

    def process_images_inner(p: Any) -> Any:
        with jobs.running(p):
            return inner(p)

    def img2img_image_conditioning(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        return jobs.img2img_conditioning(img2img, self, *args, **kwargs)

    def txt2img_image_conditioning(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        return jobs.txt2img_conditioning(txt2img, self, *args, **kwargs)

    patches.patch(KEY, processing, "process_images_inner", process_images_inner)
    patches.patch(KEY, kind, "img2img_image_conditioning", img2img_image_conditioning)
    patches.patch(KEY, kind, "txt2img_image_conditioning", txt2img_image_conditioning)


def note_the_denoiser() -> None:
    """Keep the denoiser in `DENOISER` while it runs a step."""
    kind: Any = sd_samplers_cfg_denoiser.CFGDenoiser
    inner = kind.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        token = DENOISER.set(self)
        try:
            return inner(self, *args, **kwargs)
        finally:
            DENOISER.reset(token)

    patches.patch(KEY, kind, "forward", forward)


def undo() -> None:
    """Undo the patches that are there."""
    kind = processing.StableDiffusionProcessing
    take_back(
        KEY,
        (processing, "process_images_inner"),
        (kind, "img2img_image_conditioning"),
        (kind, "txt2img_image_conditioning"),
        (sd_samplers_cfg_denoiser.CFGDenoiser, "forward"),
    )


def take_back(key: str, *targets: tuple[Any, str]) -> None:
    """Undo those of the patches (module or class, name) that are there."""
    for target, name in targets:
        if patches.original(key, target, name) is not None:
            patches.undo(key, target, name)


def unknown_job() -> Depth2ImgError:
    """Make the error for a step of a depth checkpoint that belongs to no known job."""
    return Depth2ImgError(
        "Another extension runs the sampler's steps and does not tell which job they belong to.",
        fix="Switch that extension off for jobs with depth.",
    )


def let_go_of_the_refiner(denoiser: Any, loaded: Any) -> None:
    """Make the denoiser take the loaded checkpoint's UNet.

    img2img has one sampler for all its batches. A refiner with another YAML is another object, which the sampler still
    holds when the host has loaded the first checkpoint again for the next batch and emptied the refiner.
    """
    held = getattr(denoiser.model_wrap, "inner_model", None)
    if held is not None and held is not loaded:
        denoiser.model_wrap = None


def calls(denoiser: Any) -> int:
    """Count how often this pass will call the network.

    The host's `total_steps` is too many for some: where DDIM, PLMS and UniPC start from a picture, `launch_sampling` is
    told `t_enc + 1` steps but gets `timesteps[:t_enc]` (`CompVisSampler.sample_img2img`), and DDIM leaves out one more
    (`trange(len(timesteps) - 1)`).
    """
    total = int(denoiser.total_steps)
    if any(kind.__name__ == "CFGDenoiserTimesteps" for kind in type(denoiser).__mro__):
        total -= getattr(denoiser, "init_latent", None) is not None
        total -= getattr(denoiser.sampler.func, "__name__", "").startswith("ddim")
    return total
