"""What a picture is generated with, apart from depth: names and ranges are those of the WebUI's img2img tab."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final

from ..errors import OptionError

MASKED_CONTENT: Final = ("fill", "original", "latent noise", "latent nothing")
INPAINT_AREAS: Final = ("whole picture", "only masked")
RESIZE_MODES: Final = ("just resize", "crop and resize", "resize and fill")
UPSCALERS: Final = ("latent", "lanczos")
SAMPLERS: Final = ("ddim", "euler", "euler a", "dpm++ 2m")

MASK_SETTINGS: Final = ("mask_blur", "mask_invert", "masked_content", "inpaint_area", "only_masked_padding")
HIRES_SETTINGS: Final = ("hr_scale", "hr_upscaler", "hr_second_pass_steps", "hr_denoising_strength")
"""The settings that matter with a mask alone, and with a hires pass alone."""

DEVICES: Final = ("auto", "cpu", "cuda", "mps")
DTYPES: Final = ("auto", "float32", "float16", "bfloat16")
"""Where a model may run, and in which type."""

SIDE_STEP: Final = 8
LARGEST_SIDE: Final = 4096
LARGEST_SEED: Final = 2**32 - 1

RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "denoising_strength": (0.0, 1.0),
    "cfg_scale": (1.0, 30.0),
    "steps": (1, 150),
    "seed": (0, LARGEST_SEED),
    "width": (64, LARGEST_SIDE),
    "height": (64, LARGEST_SIDE),
    "mask_blur": (0, 64),
    "only_masked_padding": (0, 256),
    "hr_scale": (1.0, 4.0),
    "hr_second_pass_steps": (0, 150),
    "hr_denoising_strength": (0.0, 1.0),
}
"""Inclusive ranges of the numbers."""

FRACTIONS: Final = ("denoising_strength", "cfg_scale", "hr_scale", "hr_denoising_strength")
"""The numbers that need not be whole."""

CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "sampler": SAMPLERS,
    "resize_mode": RESIZE_MODES,
    "masked_content": MASKED_CONTENT,
    "inpaint_area": INPAINT_AREAS,
    "hr_upscaler": UPSCALERS,
}


LARGEST_PART: Final = 0.999
"""Denoising strength 1 counts as this where steps are counted, as in the WebUI."""


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps of one pass.

    Attributes:
        of: how many there are from noise alone to the picture.
        run: how many of these are run, the last ones.
    """

    of: int
    run: int


@dataclasses.dataclass(frozen=True)
class Settings:
    """One job's settings, checked.

    Attributes:
        prompt, negative_prompt: what to show, what not to.
        denoising_strength: 0 leaves the picture, 1 keeps only its depth (and a trace of its tones, as in the host).
        steps: of the sampler for strength 1; fewer are run below, see `first_steps`.
        cfg_scale: guidance by the prompt; None is what suits the model.
        sampler: one of `SAMPLERS`.
        seed: of the first picture; each further picture has the next.
        width, height: of the frame, multiples of 8; None is taken from the picture, its shorter side brought to the
            model's own.
        resize_mode: how a picture of other proportions gets into the frame; one of `RESIZE_MODES`.
        mask_blur: standard deviation in pixels.
        mask_invert: repaint what is not masked.
        masked_content: what is under the mask at the start; one of `MASKED_CONTENT`.
        inpaint_area: one of `INPAINT_AREAS`.
        only_masked_padding: pixels around the masked part with "only masked".
        hr_scale: above 1 there is a hires pass: the result is made so many times larger, and worked on once more.
        hr_upscaler: what makes it larger, one of `UPSCALERS`: the latents (bilinear), or the picture (Lanczos).
        hr_second_pass_steps: of the hires pass, which runs them all; 0 is as many as `steps`.
        hr_denoising_strength: that of the hires pass.

    Raises:
        OptionError: a value is of the wrong type or out of range.
    """

    prompt: str = ""
    negative_prompt: str = ""
    denoising_strength: float = 0.75
    steps: int = 20
    cfg_scale: float | None = None
    sampler: str = "ddim"
    seed: int = 0
    width: int | None = None
    height: int | None = None
    resize_mode: str = "just resize"
    mask_blur: int = 4
    mask_invert: bool = False
    masked_content: str = "original"
    inpaint_area: str = "whole picture"
    only_masked_padding: int = 32
    hr_scale: float = 1.0
    hr_upscaler: str = "latent"
    hr_second_pass_steps: int = 0
    hr_denoising_strength: float = 0.7

    @property
    def first_steps(self) -> Steps:
        """The steps of the first pass: of `steps` as many as the denoising strength says, and one more.

        The WebUI counts so (`setup_img2img_steps`, modules/sd_samplers_common.py, 1.10.1; its samplers run `t_enc + 1`
        steps). Denoising strength 0 leaves the picture, and none is run.
        """
        part = min(self.denoising_strength, LARGEST_PART)
        return Steps(self.steps, int(part * self.steps) + 1 if part > 0 else 0)

    @property
    def hires_steps(self) -> Steps:
        """The steps of the hires pass: all that are asked for, of so many more as the denoising strength says.

        The WebUI counts so (the same function, where it is told how many steps to run).
        """
        run, part = self.hr_second_pass_steps or self.steps, min(self.hr_denoising_strength, LARGEST_PART)
        return Steps(int(run / part), run) if part > 0 else Steps(run, 0)

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value: Any = getattr(self, name)
            if value is None and name in ("cfg_scale", "width", "height"):
                continue
            whole = name not in FRACTIONS
            if not _is_number(value, whole) or not low <= float(value) <= high:
                kind = "a whole number" if whole else "a number"
                raise _error(name, f"must be {kind} from {low:g} to {high:g}", value)
        for name in ("prompt", "negative_prompt"):
            if not isinstance(getattr(self, name), str):
                raise _error(name, "must be a text", getattr(self, name))
        if not isinstance(self.mask_invert, bool):
            raise _error("mask_invert", "must be true or false", self.mask_invert)
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise _error(name, f"must be one of: {', '.join(choices)}", getattr(self, name))
        for name in ("width", "height"):
            if (getattr(self, name) or 0) % SIDE_STEP:
                raise _error(name, f"must be a multiple of {SIDE_STEP}", getattr(self, name))


def _is_number(value: object, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, int) if whole else math.isfinite(value)


def _error(name: str, rule: str, value: Any) -> OptionError:
    return OptionError(name, f"'{name}' {rule}.", got=repr(value)[:60], fix="Correct the value or leave it out.")
