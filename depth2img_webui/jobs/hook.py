"""Put depth conditioning on a job and take it off again.

All state of a job lives in a `Request` on `p`. `detach` removes everything that is put on `p`: when the job is done,
when it fails, and when the next run on the same `p` begins.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from modules import processing

from depth2img import DepthOptions, NoDepthError
from depth2img.depth.scores import FIDELITY
from depth2img.io.images import FloatPicture
from depth2img.options import OPTIONS

from .. import xyz
from ..errors import job, stops_the_job, under_way
from ..hosts import compat, host
from . import batch_tab, maps, tiles
from .request import REQUEST, Request, frame_of, load, read_options, request_of, wants_given_depth
from .second_pass import request_of_pass

FAILED: Final = "_depth2img_failed"
"""Attribute of `p` that holds the error of a method that ran before the job began."""


def begin(p: Any, args: tuple[Any, ...]) -> None:
    """Put depth conditioning on a job whose model is final (`Script.process`).

    Raises:
        Depth2ImgError: an option is bad, or what it needs is missing.
    """
    failed = p.__dict__.pop(FAILED, None)
    detach(p)
    if failed is not None:
        raise failed
    request = _request(p, args)
    if request is None:
        return
    p.extra_generation_params.update(request.options.infotext())
    _put(p, request)


def _put(p: Any, request: Request) -> None:
    setattr(p, REQUEST, request)
    maps.forget(p, request)


def detach(p: Any) -> None:
    """Remove everything that `begin` put on `p`. Safe to call at any time."""
    take_off(p)
    for option in OPTIONS.values():
        p.extra_generation_params.pop(option.infotext, None)
    p.extra_generation_params.pop(FIDELITY, None)


def take_off(p: Any) -> None:
    """Remove what was put on `p`, but keep what is in the infotext."""
    p.__dict__.pop(REQUEST, None)


@contextlib.contextmanager
def running(p: Any) -> Iterator[None]:
    """Clear up before and after a job of the host; one that fails leaves nothing in the infotext either.

    What is there before belongs to another job: a script may run a copy of `p`.
    """
    take_off(p)
    with job(p):
        try:
            yield
        except BaseException:
            detach(p)
            raise
        take_off(p)


def fail_later(p: Any, error: Exception) -> None:
    """Make `begin` raise an error of an earlier method, which runs where nothing can stop the job yet."""
    setattr(p, FAILED, error)


def options_of(p: Any, args: tuple[Any, ...]) -> DepthOptions:
    """Read a job's options: the script's arguments, an X/Y/Z cell's values, the map of a picture of the Batch tab.

    Raises:
        Depth2ImgError: a value is bad, or a picture of the batch has no map.
    """
    return batch_tab.with_map(p, read_options(args, xyz.values(p)))


def _request(p: Any, args: tuple[Any, ...]) -> Request | None:
    options = options_of(p, args)
    has_network = host().is_depth(p.sd_model)
    if not has_network and not _other_checkpoints(p):
        if wants_given_depth(options):
            raise compat.no_depth_model(p.sd_model)
        return None
    if has_network:
        _check(p, options)
    return load(options, tiles.driving_script(p))


def _check(p: Any, options: DepthOptions) -> None:
    """Refuse a job of a depth checkpoint that has no depth."""
    if options.enabled and options.source == "picture" and not _has_picture(p):
        raise NoDepthError(
            "A depth checkpoint needs depth, and txt2img has no picture to take it from.",
            fix="Under 'Depth to image' give another picture or a depth map, or use img2img, "
            "or untick 'Depth to image' to generate without depth.",
        )


def _has_picture(p: Any) -> bool:
    """Tell whether the job works on a picture: img2img, or txt2img that only upscales one (`firstpass_image`)."""
    return hasattr(p, "init_images") or (getattr(p, "firstpass_image", None) is not None and p.enable_hr)


def _other_checkpoints(p: Any) -> bool:
    """Tell whether a second checkpoint may come in during the job."""
    hires = getattr(p, "enable_hr", False) and getattr(p, "hr_checkpoint_name", None) not in (
        None,
        "",
        "Use same checkpoint",
    )
    return hires or getattr(p, "refiner_checkpoint_info", None) is not None


def img2img_conditioning(
    original: Callable[..., torch.Tensor],
    p: Any,
    source_image: torch.Tensor,
    latent_image: torch.Tensor,
    *args: Any,
    **kwargs: Any,
) -> torch.Tensor:
    """Stand for `img2img_image_conditioning`: img2img, inpaint, and the hires pass after a pixel upscaler."""
    has_network = host().is_depth(p.sd_model)
    if request_of(p) is None and not has_network:
        return original(p, source_image, latent_image, *args, **kwargs)
    mask = kwargs.get("image_mask", args[0] if args else None)
    hires_pixels = getattr(p, "is_hr_pass", False) and getattr(p, "latent_scale_mode", None) is None
    with stops_the_job("the conditioning"):
        request = _begun(p)
        frame_of(p, request, mask)
        pictures = maps.pictures_of(source_image, zero_to_one=hires_pixels)
        if has_network:
            tensor = maps.condition(p, request, pictures, latent_image)
            if request.options.enabled and request.options.ignore_colours and hasattr(p, "init_images"):
                start_from_noise(p)
            return tensor
        request.pictures = pictures
    return original(p, source_image, latent_image, *args, **kwargs)


def txt2img_conditioning(
    original: Callable[..., torch.Tensor], p: Any, x: torch.Tensor, *args: Any, **kwargs: Any
) -> torch.Tensor:
    """Stand for `txt2img_image_conditioning`: the first pass, and the hires pass after a latent upscaler."""
    if not host().is_depth(p.sd_model):
        return original(p, x, *args, **kwargs)
    pictures: list[FloatPicture] = []
    hires = getattr(p, "is_hr_pass", False)
    with stops_the_job("the conditioning"):
        request = _begun(p)
        if not hires:
            _check(p, request.options)
        again = request.options.hires == "estimate" and hires
        if request.options.enabled and (request.options.source == "picture" or again):
            # Only a hires pass gets here: a first pass without a picture was refused.
            pictures = maps.pictures_of(processing.decode_first_stage(p.sd_model, x).clamp(-1, 1))
        return maps.condition(p, request, pictures, x)


def _begun(p: Any) -> Request:
    """Return the request of a job; one on which `begin` was never called gets it here, while it is under way."""
    request = request_of(p)
    if request is None:
        request = request_of_pass(p)
        if any(job is p for job in under_way()):
            _put(p, request)
    return request


def start_from_noise(p: Any) -> None:
    """Take every trace of the picture out of what the sampler starts from, at denoising strength 1.

    The host adds noise to `p.init_latent`, so the picture's tones stay to some per cent even at the highest noise
    level; Stability's own script starts from `torch.randn_like` there (scripts/gradio/depth2img.py).
    `p.init_latent` becomes zero, except where a mask keeps the picture, wholly or in part: from there the host takes it
    at each step and in the end. `p.init` has just made it, and makes another for each job: there is nothing to undo.
    """
    if p.denoising_strength < 1:
        p.comment("'Ignore source colours' acts at denoising strength 1 only.")
        return
    if p.mask is None:
        p.init_latent = torch.zeros_like(p.init_latent)
    else:
        p.init_latent = torch.where(p.mask > 0, p.init_latent, torch.zeros_like(p.init_latent))
