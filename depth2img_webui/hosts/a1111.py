"""AUTOMATIC1111 1.6.0 to 1.10.1: its jobs, the conditioning of each pass, and the steps of its samplers.

What a version has decides, not its number. The rows of a step, in the host's order: those with a prompt (for each
picture as many as its prompt has parts joined by AND), then one unconditional row per picture.

The host computes the conditioning of a job once. Later it may cut the latent of a hires pass, bring in a depth
checkpoint as refiner, or leave out the unconditional rows, without touching the conditioning: then the concatenation
in the UNet fails. And in the second batch of img2img it goes on with the UNet of the refiner.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from modules import script_callbacks, scripts, shared

from depth2img import Estimator, MidasEstimator

from ..errors import stops_the_job
from . import compat, loader, sampling
from .base import Halves, Jobs, Step


def apply(jobs: Jobs) -> None:
    """See `base.Host.apply`."""
    undo()

    def on_cfg_denoiser(params: Any) -> None:
        with stops_the_job("a step of the sampler"):
            denoiser = getattr(params, "denoiser", None)
            _at_step(params, sampling.DENOISER.get() if denoiser is None else denoiser, jobs)

    loader.apply()
    sampling.apply(jobs)
    if "denoiser" not in inspect.signature(script_callbacks.CFGDenoiserParams).parameters:  # before 1.8.0
        sampling.note_the_denoiser()
    script_callbacks.on_cfg_denoiser(on_cfg_denoiser)
    script_callbacks.on_app_started(lambda demo, app: _name_choices())


def undo() -> None:
    """See `base.Host.undo`."""
    sampling.undo()
    loader.undo()


def is_depth(model: Any | None) -> bool:
    """See `base.Host.is_depth`."""
    return compat.depth_network(model) is not None


def own_estimator(model: Any) -> Estimator:
    """See `base.Host.own_estimator`: MiDaS as the host has built it."""
    network = compat.depth_network(model)
    if network is None:
        raise compat.no_depth_model(model)
    return MidasEstimator(network, key=compat.network_key(model))


def known() -> Any | None:
    """See `base.Host.known`."""
    return compat.loaded_model()


def ready() -> Any:
    """See `base.Host.ready`."""
    return shared.sd_model


def selected_is_depth() -> bool:
    """See `base.Host.selected_is_depth`."""
    return loader.selected_is_depth()


def _name_choices() -> None:
    """Make 1.6.0's `/sdapi/v1/script-info` answer: gradio has made pairs (name, value) of choices, which it refuses."""
    for runner in (scripts.scripts_txt2img, scripts.scripts_img2img):
        for info in (script.api_info for script in runner.scripts if script.api_info is not None):
            for arg in info.args:
                if arg.choices is not None:
                    arg.choices = [choice[0] if isinstance(choice, tuple) else choice for choice in arg.choices]


def _at_step(params: Any, denoiser: Any, jobs: Jobs) -> None:
    """Give `params.image_cond` the rows, the height and the width that `params.x` will have."""
    if denoiser is not None and jobs.has_request(denoiser.p):
        sampling.let_go_of_the_refiner(denoiser, shared.sd_model)
    if compat.depth_network(shared.sd_model) is None:
        return
    if denoiser is None:
        raise sampling.unknown_job()
    rows = params.text_uncond.shape[0]
    extra = denoiser.sampler.sampler_extra_args
    halves = jobs.at_step(
        Step(
            p=denoiser.p,
            latent=params.x[-rows:],
            given=params.image_cond[-rows:],
            number=denoiser.step,
            total=sampling.calls(denoiser),
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


def skips_uncond(denoiser: Any, sigma: torch.Tensor) -> bool:
    """Tell whether the host will leave out the unconditional rows at this step.

    The rule is the host's (`CFGDenoiser.forward`, modules/sd_samplers_cfg_denoiser.py), which decides after the
    callback and does not shorten `image_cond`. Its two settings came with 1.10.0.
    """
    early = compat.setting("skip_early_cond", 0.0)
    if early != 0.0 and denoiser.step / denoiser.total_steps <= early:
        return True
    limit = denoiser.sampler.sampler_extra_args["s_min_uncond"]
    every = compat.setting("s_min_uncond_all", False)
    return bool((denoiser.step % 2 or every) and limit > 0 and sigma[0] < limit)
