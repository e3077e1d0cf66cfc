"""AUTOMATIC1111 1.6.0 to 1.10.1: its jobs, the conditioning of each pass, and the steps of its samplers.

What a version has decides, not its number. The rows of a step, in the host's order: those with a prompt (for each
picture as many as its prompt has parts joined by AND), then one unconditional row per picture.

The host computes the conditioning of a job once. Later it may cut the latent of a hires pass, bring in a depth
checkpoint as refiner, or leave out the unconditional rows, without touching the conditioning: then the concatenation
in the UNet fails. And in the second batch of img2img it goes on with the UNet of the refiner.
"""

from __future__ import annotations

import contextvars
import inspect
from typing import Any, Final

import torch
from modules import patches, processing, script_callbacks, scripts, sd_samplers_cfg_denoiser, shared

from depth2img import Depth2ImgError

from ..errors import stops_the_job
from . import compat
from .base import Halves, Jobs, Step

KEY: Final = __name__

_denoiser: contextvars.ContextVar[Any] = contextvars.ContextVar("depth2img_denoiser", default=None)
"""The denoiser that is at work, in hosts that do not tell callbacks."""


def apply(jobs: Jobs) -> None:
    """Take part in the host's jobs; safe to call twice."""
    undo()
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

    def on_cfg_denoiser(params: Any) -> None:
        with stops_the_job("a step of the sampler"):
            denoiser = getattr(params, "denoiser", None)
            _at_step(params, _denoiser.get() if denoiser is None else denoiser, jobs)

    patches.patch(KEY, processing, "process_images_inner", process_images_inner)
    patches.patch(KEY, kind, "img2img_image_conditioning", img2img_image_conditioning)
    patches.patch(KEY, kind, "txt2img_image_conditioning", txt2img_image_conditioning)
    if "denoiser" not in inspect.signature(script_callbacks.CFGDenoiserParams).parameters:  # before 1.8.0
        _note_the_denoiser(sd_samplers_cfg_denoiser.CFGDenoiser)
    script_callbacks.on_cfg_denoiser(on_cfg_denoiser)
    script_callbacks.on_app_started(lambda demo, app: _name_choices())


def undo() -> None:
    """Undo the patches, if they are there; the host takes back the callbacks itself."""
    for target, name in _targets():
        if patches.original(KEY, target, name) is not None:
            patches.undo(KEY, target, name)


def _targets() -> list[tuple[Any, str]]:
    """List what is patched."""
    return [
        (processing, "process_images_inner"),
        (processing.StableDiffusionProcessing, "img2img_image_conditioning"),
        (processing.StableDiffusionProcessing, "txt2img_image_conditioning"),
        (sd_samplers_cfg_denoiser.CFGDenoiser, "forward"),
    ]


def _name_choices() -> None:
    """Make 1.6.0's `/sdapi/v1/script-info` answer: gradio has made pairs (name, value) of choices, which it refuses."""
    for runner in (scripts.scripts_txt2img, scripts.scripts_img2img):
        for info in (script.api_info for script in runner.scripts if script.api_info is not None):
            for arg in info.args:
                if arg.choices is not None:
                    arg.choices = [choice[0] if isinstance(choice, tuple) else choice for choice in arg.choices]


def _note_the_denoiser(kind: Any) -> None:
    inner = kind.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        token = _denoiser.set(self)
        try:
            return inner(self, *args, **kwargs)
        finally:
            _denoiser.reset(token)

    patches.patch(KEY, kind, "forward", forward)


def _at_step(params: Any, denoiser: Any, jobs: Jobs) -> None:
    """Give `params.image_cond` the rows, the height and the width that `params.x` will have."""
    if denoiser is not None and jobs.has_request(denoiser.p):
        _let_go_of_the_refiner(denoiser)
    if compat.depth_network(shared.sd_model) is None:
        return
    if denoiser is None:
        raise Depth2ImgError(
            "Another extension runs the sampler's steps and does not tell which job they belong to.",
            fix="Switch that extension off for jobs with depth.",
        )
    rows = params.text_uncond.shape[0]
    extra = denoiser.sampler.sampler_extra_args
    halves = jobs.at_step(
        Step(
            p=denoiser.p,
            latent=params.x[-rows:],
            given=params.image_cond[-rows:],
            number=denoiser.step,
            total=_calls(denoiser),
            cfg_scale=float(extra["cond_scale"]) * getattr(denoiser, "cond_scale_miltiplier", 1.0),
        )
    )
    if halves is not None:
        extra["image_cond"] = halves.job  # the sampler passes this on from the next step
        params.image_cond = _laid_out(halves, [len(parts) for parts in extra["cond"].batch])
    if skips_uncond(denoiser, params.sigma):
        params.image_cond = params.image_cond[:-rows]


def _laid_out(halves: Halves, counts: list[int]) -> torch.Tensor:
    """Lay out the rows of a step; `counts`: per picture, how many parts its prompt has."""
    repeated = [row.expand(count, -1, -1, -1) for row, count in zip(halves.with_prompt.split(1), counts, strict=True)]
    return torch.cat([*repeated, halves.without])


def _let_go_of_the_refiner(denoiser: Any) -> None:
    """Make the denoiser take the loaded checkpoint's UNet.

    img2img has one sampler for all its batches. A refiner with another YAML is another object, which the sampler still
    holds when the host has loaded the first checkpoint again for the next batch and emptied the refiner.
    """
    held = getattr(denoiser.model_wrap, "inner_model", None)
    if held is not None and held is not shared.sd_model:
        denoiser.model_wrap = None


def skips_uncond(denoiser: Any, sigma: torch.Tensor) -> bool:
    """Tell whether the host will leave out the unconditional rows at this step.

    The rule is the host's (`CFGDenoiser.forward`, modules/sd_samplers_cfg_denoiser.py), which decides after the
    callback and does not shorten `image_cond`. Its two settings came with 1.10.0; a file of settings may hold them in
    an older host, which does not read them.
    """
    known = shared.opts.data_labels
    early = shared.opts.skip_early_cond if "skip_early_cond" in known else 0.0
    if early != 0.0 and denoiser.step / denoiser.total_steps <= early:
        return True
    limit = denoiser.sampler.sampler_extra_args["s_min_uncond"]
    every = "s_min_uncond_all" in known and shared.opts.s_min_uncond_all
    return bool((denoiser.step % 2 or every) and limit > 0 and sigma[0] < limit)


def _calls(denoiser: Any) -> int:
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
