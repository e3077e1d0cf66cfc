"""Control depth at each step of the sampler, through the host's `on_cfg_denoiser`, and put right what fails there.

The host computes the conditioning of a job once. Later it may cut the latent of a hires pass, bring in a depth
checkpoint as refiner, or leave out the unconditional rows, without touching the conditioning: then the concatenation
in the UNet fails (webui-host notes, defects 8, 9 and 11). And in the second batch of img2img it goes on with the UNet
of the refiner.
"""

from __future__ import annotations

from typing import Any

import torch
from modules import shared

from depth2img import Depth2ImgError, neutral
from depth2img.depth import schedule

from ..hosts import compat
from . import maps
from .request import Request, request_of, wants_given_depth


def on_cfg_denoiser(params: Any) -> None:
    """Give `params.image_cond` as many rows and the height and width that `params.x` will have. Only for depth
    checkpoints, and for jobs into which one may come."""
    if params.denoiser is None:
        return
    request = request_of(params.denoiser.p)
    if request is not None:
        _let_go_of_the_refiner(params.denoiser)
    if compat.depth_network(shared.sd_model) is None:
        return
    rows = params.text_uncond.shape[0]
    if params.image_cond.shape[1] != 1 or params.image_cond.shape[-2:] != params.x.shape[-2:]:
        fitted = _fitted(params, rows)
        # The sampler passes this on from the next step; this step's rows are made like the host makes them.
        params.denoiser.sampler.sampler_extra_args["image_cond"] = fitted
        params.image_cond = torch.cat(
            [fitted[index].expand(count, -1, -1, -1) for index, count in _repeats(params, rows)] + [fitted]
        )
    if request is not None and request.options.enabled and not schedule.constant(request.options):
        params.image_cond = _scheduled(params, request, rows)
    if skips_uncond(params.denoiser, params.sigma):
        params.image_cond = params.image_cond[:-rows]


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
    callback and does not shorten `image_cond`.
    """
    early = getattr(shared.opts, "skip_early_cond", 0.0)
    if early != 0.0 and denoiser.step / denoiser.total_steps <= early:
        return True
    limit = denoiser.sampler.sampler_extra_args["s_min_uncond"]
    every = getattr(shared.opts, "s_min_uncond_all", False)
    return bool((denoiser.step % 2 or every) and limit > 0 and sigma[0] < limit)


def _scheduled(params: Any, request: Request, rows: int) -> torch.Tensor:
    """Schedule all rows of this step: the conditional ones, then the unconditional ones.

    A step is one call of the network, counted from 0 in each pass; samplers of second order call it twice per step.
    """
    denoiser = params.denoiser
    cfg_scale = float(denoiser.sampler.sampler_extra_args["cond_scale"]) * denoiser.cond_scale_miltiplier
    with_prompt, without = params.image_cond[:-rows], params.image_cond[-rows:]
    at = (request.options, denoiser.step, _calls(denoiser))
    return torch.cat(
        [schedule.conditional(with_prompt, *at), schedule.unconditional(without, *at, cfg_scale=cfg_scale)]
    )


def _calls(denoiser: Any) -> int:
    """Count how often this pass will call the network.

    The host's `total_steps` is too many for some: where DDIM, PLMS and UniPC start from a picture, `launch_sampling` is
    told `t_enc + 1` steps but gets `timesteps[:t_enc]` (`CompVisSampler.sample_img2img`, 1.10.1), and DDIM leaves out
    one more (`trange(len(timesteps) - 1)`).
    """
    total = int(denoiser.total_steps)
    if compat.is_timesteps_denoiser(denoiser):
        total -= getattr(denoiser, "init_latent", None) is not None
        total -= getattr(denoiser.sampler.func, "__name__", "").startswith("ddim")
    return total


def _repeats(params: Any, rows: int) -> list[tuple[int, int]]:
    """(index of the picture, number of its AND-subprompts), in the host's order."""
    batch = params.denoiser.sampler.sampler_extra_args["cond"].batch
    return [(index, len(batch[index])) for index in range(rows)]


def _fitted(params: Any, rows: int) -> torch.Tensor:
    """Fit the conditioning, (rows, 1, h, w), to the latent of this step."""
    p = params.denoiser.p
    latent = params.x[:rows]
    given = params.image_cond[-rows:]
    if given.shape[1] == 1:
        return truncated(p, given, latent)
    request = request_of(p)
    reason = "no depth map is given and there is no picture to take depth from"
    if request is not None and (request.pictures or wants_given_depth(request.options) or not request.options.enabled):
        try:
            return maps.condition(p, request, request.pictures, latent)
        except Depth2ImgError as error:
            # The host swallows exceptions of this callback and would fail with a message about tensor sizes.
            reason = str(error)
    p.comment(f"The depth checkpoint that came in during the job ran without depth: {reason}")
    plain = neutral(rows, height=latent.shape[-2], width=latent.shape[-1])
    return plain.to(latent.device, compat.conditioning_dtype())


def truncated(p: Any, given: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
    """Cut the part of a hires conditioning that belongs to the latent which the host has cut to the target size.

    The cut is that of `sample_hr_pass` (modules/processing.py): `truncate // 2` rows at the start and
    `(truncate + 1) // 2` at the end, in latent pixels.
    """
    top, left = getattr(p, "truncate_y", 0) // 2, getattr(p, "truncate_x", 0) // 2
    return given[:, :, top : top + latent.shape[-2], left : left + latent.shape[-1]]
