"""What a picture was made with, as text: the WebUI's infotext, so that the WebUI reads it and can paste it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from ..depth.scores import FIDELITY
from ..options import DepthOptions
from .settings import Settings

SAMPLER_NAMES: Final[Mapping[str, str]] = {
    "ddim": "DDIM",
    "euler": "Euler",
    "euler a": "Euler a",
    "dpm++ 2m": "DPM++ 2M",
}
"""What the WebUI calls the samplers."""

UPSCALER_NAMES: Final[Mapping[str, str]] = {"latent": "Latent", "lanczos": "Lanczos"}


def infotext(
    settings: Settings,
    options: DepthOptions,
    *,
    size: tuple[int, int],
    cfg_scale: float,
    model: str,
    masked: bool = False,
    fidelity: float | None = None,
) -> str:
    """The infotext of one result: prompt, negative prompt, then `key: value` pairs (`create_infotext`, 1.10.1).

    Args:
        settings: of this picture, with its own seed.
        options: those that are not at their defaults are named.
        size: width and height of the frame.
        cfg_scale: what was used.
        model: name of the model.
        masked: whether there was a mask.
        fidelity: see `Generated`.
    """
    pairs: dict[str, Any] = {
        "Steps": settings.steps,
        "Sampler": SAMPLER_NAMES[settings.sampler],
        "CFG scale": cfg_scale,
        "Seed": settings.seed,
        "Size": f"{size[0]}x{size[1]}",
        "Model": model,
        "Denoising strength": settings.denoising_strength,
    }
    if masked:
        pairs |= _mask(settings)
    if settings.hr_scale > 1:
        pairs |= {"Hires upscale": settings.hr_scale, "Hires upscaler": UPSCALER_NAMES[settings.hr_upscaler]}
        pairs |= {"Hires denoising strength": settings.hr_denoising_strength}
        pairs |= {"Hires steps": settings.hr_second_pass_steps} if settings.hr_second_pass_steps else {}
    pairs |= options.infotext()
    if fidelity is not None:
        pairs[FIDELITY] = f"{fidelity:.3f}"
    negative = f"\nNegative prompt: {settings.negative_prompt}" if settings.negative_prompt else ""
    return (
        f"{settings.prompt}{negative}\n{', '.join(f'{key}: {_quoted(value)}' for key, value in pairs.items())}".strip()
    )


def _mask(settings: Settings) -> dict[str, Any]:
    pairs: dict[str, Any] = {"Mask mode": "Inpaint not masked"} if settings.mask_invert else {}
    if settings.mask_blur:
        pairs["Mask blur"] = settings.mask_blur
    if settings.inpaint_area == "only masked":
        pairs |= {"Inpaint area": "Only masked", "Masked area padding": settings.only_masked_padding}
    if settings.masked_content != "original":
        pairs["Masked content"] = settings.masked_content
    return pairs


def _quoted(value: Any) -> str:
    """`quote` of the host (modules/infotext_utils.py)."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",\n:") else text
