"""The settings of the standalone engine, apart from depth; names and ranges are those of the WebUI's img2img tab.

A new setting is one more row of `Settings`, a new sampler one more entry of `SAMPLERS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from ..table import Option, choice, number, rows, switch, text, whole

DEVICES: Final = ("auto", "cpu", "cuda", "mps")
DTYPES: Final = ("auto", "float32", "float16", "bfloat16")
"""Devices that a model may run on, and the types of its weights."""

SIDE_STEP: Final = 8
"""Width and height of a frame are multiples of this: the autoencoder's factor."""

LARGEST_SIDE: Final = 4096
LARGEST_SEED: Final = 2**32 - 1

LARGEST_STRENGTH: Final = 0.999
"""Denoising strength 1 counts as this where steps are counted, as in the WebUI."""


@dataclasses.dataclass(frozen=True)
class Sampler:
    """One sampler.

    Attributes:
        label: its name in the WebUI.
        scheduler: its class in diffusers.
        arguments: arguments for the class, besides the model's noise schedule.
        calls: calls of the UNet for a step; schedules in prompts count these, as in the WebUI.
        schedule_type: what "automatic" means in the WebUI.
    """

    label: str
    scheduler: str
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    calls: int = 1
    schedule_type: str = "uniform"


SAMPLERS: Final[Mapping[str, Sampler]] = {
    "ddim": Sampler("DDIM", "DDIMScheduler"),
    "euler": Sampler("Euler", "EulerDiscreteScheduler"),
    "euler a": Sampler("Euler a", "EulerAncestralDiscreteScheduler"),
    "dpm++ 2m": Sampler(
        "DPM++ 2M",
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver++", "solver_order": 2},
        schedule_type="karras",
    ),
    "heun": Sampler("Heun", "HeunDiscreteScheduler", calls=2),
}


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps of one pass.

    Attributes:
        of: steps from pure noise to the finished picture.
        run: how many of these are run; they are the last ones.
    """

    of: int
    run: int


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of one job, checked; what each of them means is its `help` in `SETTINGS`.

    Raises:
        OptionError: a value is of the wrong type or out of range.
    """

    prompt: str = text("", "Prompt", "What to show.", multiline=True, short="-p", section="prompt")
    negative_prompt: str = text(
        "", "Negative prompt", "What not to show.", multiline=True, short="-n", section="prompt"
    )
    denoising_strength: float = number(
        0.75,
        "Denoising strength",
        "How much of the picture is replaced: 0 leaves it unchanged, 1 keeps only its depth and a trace of its tones.",
        (0.0, 1.0, 0.01),
        infotext="Denoising strength",
        silent=(),
        section="prompt",
        short="-s",
    )
    steps: int = whole(
        20,
        "Steps",
        "Sampling steps at denoising strength 1; below that, fewer are run.",
        (1, 150, 1),
        infotext="Steps",
        silent=(),
        section="steps",
    )
    cfg_scale: float | None = number(
        None,
        "CFG scale",
        "How strongly the prompt guides the result.",
        (1.0, 30.0, 0.5),
        unset="what suits the model",
        infotext="CFG scale",
        silent=(),
        section="steps",
    )
    sampler: str = choice(
        "ddim",
        "Sampler",
        "Sampling method.",
        {name: sampler.label for name, sampler in SAMPLERS.items()},
        infotext="Sampler",
        silent=(),
        section="sampling",
        look="dropdown",
    )
    noise: str = choice(
        "diffusers",
        "Noise",
        "Noise, noise levels and steps as diffusers has them, or as the WebUI has them with the noise of a CPU: "
        "then a job gives the WebUI's picture.",
        {"diffusers": "diffusers", "webui": "WebUI"},
        section="sampling",
        look="dropdown",
    )
    schedule_type: str = choice(
        "automatic",
        "Schedule type",
        "Noise levels with the WebUI's noise; automatic is what suits the sampler. DDIM has its own.",
        {"automatic": "Automatic", "uniform": "Uniform", "karras": "Karras", "exponential": "Exponential"},
        section="sampling",
        look="dropdown",
    )
    seed: int = whole(
        0,
        "Seed",
        "Seed of the first picture; each further picture has the next one.",
        (0, LARGEST_SEED, 0),
        infotext="Seed",
        silent=(),
        section="sampling",
    )
    width: int | None = whole(
        None,
        "Width",
        "Width of the frame, a multiple of 8.",
        (64, LARGEST_SIDE, 0),
        multiple=SIDE_STEP,
        unset="from the picture",
        section="frame",
    )
    height: int | None = whole(
        None,
        "Height",
        "Height of the frame, a multiple of 8.",
        (64, LARGEST_SIDE, 0),
        multiple=SIDE_STEP,
        unset="from the picture",
        section="frame",
    )
    resize_mode: str = choice(
        "just resize",
        "Resize mode",
        "How a picture of other proportions is fitted to the frame.",
        {
            "just resize": "Just resize",
            "crop and resize": "Crop and resize",
            "resize and fill": "Resize and fill",
        },
        section="frame",
        look="dropdown",
    )
    mask_blur: int = whole(
        4,
        "Mask blur",
        "Blur of the mask's edge: standard deviation in pixels.",
        (0, 64, 1),
        infotext="Mask blur",
        silent=(0,),
        section="mask",
    )
    mask_invert: bool = switch(
        False, "Inpaint not masked", "Repaint what is not masked.", infotext="Mask mode", section="mask"
    )
    masked_content: str = choice(
        "original",
        "Masked content",
        "What is under the mask at the start. 'fill' removes the object, its depth included.",
        {name: name for name in ("fill", "original", "latent noise", "latent nothing")},
        infotext="Masked content",
        section="mask",
        look="dropdown",
    )
    inpaint_area: str = choice(
        "whole picture",
        "Inpaint area",
        "Work on the whole picture, or on the masked part at full resolution.",
        {"whole picture": "Whole picture", "only masked": "Only masked"},
        infotext="Inpaint area",
        section="mask",
        look="dropdown",
    )
    only_masked_padding: int = whole(
        32,
        "Only masked padding, pixels",
        "Pixels around the masked part with 'only masked'.",
        (0, 256, 1),
        infotext="Masked area padding",
        silent=(),
        section="mask",
    )
    hr_scale: float = number(
        1.0,
        "Upscale by",
        "Hires pass: enlarge the result by this factor and work on it once more; 1 = no hires pass.",
        (1.0, 4.0, 0.05),
        infotext="Hires upscale",
        silent=(),
        section="hires",
    )
    hr_upscaler: str = choice(
        "latent",
        "Upscaler",
        "Hires pass: enlarge the latents (bilinear), or the picture (Lanczos).",
        {"latent": "Latent", "lanczos": "Lanczos"},
        infotext="Hires upscaler",
        silent=(),
        section="hires",
        look="dropdown",
    )
    hr_second_pass_steps: int = whole(
        0,
        "Hires steps",
        "Steps of the hires pass, all of which are run; 0 = as many as 'steps'.",
        (0, 150, 1),
        infotext="Hires steps",
        section="hires",
    )
    hr_denoising_strength: float = number(
        0.7,
        "Hires denoising strength",
        "Denoising strength of the hires pass.",
        (0.0, 1.0, 0.01),
        infotext="Hires denoising strength",
        silent=(),
        section="hires",
    )

    def __post_init__(self) -> None:
        for name, option in SETTINGS.items():
            given, checked = getattr(self, name), option.check(getattr(self, name))
            if checked != given:  # equal values stay as they are given: an infotext tells 1 from 1.0
                object.__setattr__(self, name, checked)

    @property
    def calls_per_step(self) -> int:
        """Calls of the UNet that the sampler makes for a step."""
        return SAMPLERS[self.sampler].calls

    @property
    def first_steps(self) -> Steps:
        """The steps of the first pass: the fraction of `steps` that the denoising strength gives, and one more.

        The WebUI counts them this way (`setup_img2img_steps`, modules/sd_samplers_common.py, 1.10.1; its samplers run
        `t_enc + 1` steps). At denoising strength 0 none is run, and the picture stays as it is.
        """
        strength = min(self.denoising_strength, LARGEST_STRENGTH)
        return Steps(self.steps, int(strength * self.steps) + 1 if strength > 0 else 0)

    @property
    def hires_steps(self) -> Steps:
        """The steps of the hires pass: as many as are asked for, the last of a correspondingly longer schedule.

        The WebUI counts them this way (the same function, where it is given the number of steps to run).
        """
        run = self.hr_second_pass_steps or self.steps
        strength = min(self.hr_denoising_strength, LARGEST_STRENGTH)
        return Steps(int(run / strength), run) if strength > 0 else Steps(run, 0)


SETTINGS: Final[Mapping[str, Option]] = rows(Settings, "Setting")
"""Name -> setting, in the order of the fields."""

RESIZE_MODES: Final = tuple(SETTINGS["resize_mode"].choices)


def in_section(*sections: str) -> tuple[str, ...]:
    """Return the names of the settings in some sections, such as "mask": those that matter with a mask only."""
    return tuple(name for name, setting in SETTINGS.items() if setting.section in sections)
