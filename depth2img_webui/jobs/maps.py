"""Pictures -> depth maps -> conditioning, for one job of the host."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import torch

from depth2img import (
    DepthCache,
    DepthMap,
    DepthOptions,
    Estimator,
    MidasEstimator,
    NoDepthModelError,
    conditioning,
    neutral,
)
from depth2img.depth import schedule
from depth2img.depth.adjustments import sequence_span
from depth2img.depth.depth_map import Span
from depth2img.depth.placement import Placed
from depth2img.io.images import FloatPicture, Picture, to_float
from depth2img.options import CHECKPOINT

from .. import estimators, settings
from ..hosts import compat
from . import place, tiles
from .job import Job

FIRST: Final = "_depth2img_first"
"""The maps of Loopback's first loop. It stays on `p` between the loops, and goes when another job begins on it."""

SPAN: Final = "_depth2img_span"
"""The range of the first picture of a batch folder or of Loopback, which the others share; kept like `FIRST`."""

LOOPBACK: Final = "Loopback"

CACHE: Final = DepthCache()
"""Maps by picture content and checkpoint; holds nothing that belongs to a request."""


def forget(p: Any, options: DepthOptions) -> None:
    """Take off `p` what an earlier run on it has kept for a sequence, unless this run goes on with the sequence."""
    if not (options.keep_first and tiles.driving_script(p) == LOOPBACK):
        p.__dict__.pop(FIRST, None)
    if options.range != "shared":
        p.__dict__.pop(SPAN, None)


def pictures_of(source: torch.Tensor, *, zero_to_one: bool = False) -> list[FloatPicture]:
    """The host's picture tensor -> float32 (H, W, 3) 0..1 each; equal pictures are the same object.

    Args:
        source: (B, 3, H, W), -1..1, any floating type.
        zero_to_one: the range is 0..1 already: the host's hires pass since 1.6.0.
    """
    distinct: list[tuple[torch.Tensor, FloatPicture]] = []
    pictures = []
    for sample in source.detach():
        known = next((picture for seen, picture in distinct if torch.equal(seen, sample)), None)
        if known is None:
            # The order of operations is AddMiDaS' own (ldm/data/util.py), so that no bit differs.
            unit = sample.float() if zero_to_one else (sample.float() + 1.0) * 0.5
            known = np.ascontiguousarray(unit.permute(1, 2, 0).cpu().numpy())
            distinct.append((sample, known))
        pictures.append(known)
    return pictures


def estimate(picture: FloatPicture | Picture, model: Any, estimator: str = CHECKPOINT) -> DepthMap:
    """The depth map of a picture, from the cache if it was seen.

    Args:
        picture: the picture.
        model: the checkpoint whose own network estimates if `estimator` says so; else not looked at.
        estimator: `DepthOptions.estimator`.

    Raises:
        NoDepthModelError: the checkpoint has no depth network.
        OptionError, EstimatorError: there is no such estimator, or it failed.
    """
    chosen: Estimator
    if estimator == CHECKPOINT:
        network = compat.depth_network(model)
        if network is None:
            raise no_depth_model(model)
        chosen = MidasEstimator(network, key=compat.network_key(model))
    else:
        chosen = estimators.pool().get(estimator)
    # Here, since with --nowebui the host does not know the setting and would tell nobody of a change.
    CACHE.resize(settings.cache_bytes())
    with compat.plain_forward():
        return CACHE.get_or_estimate(to_float(picture), chosen)


def no_depth_model(model: Any | None) -> NoDepthModelError:
    """The sentence for a checkpoint without a depth network."""
    return NoDepthModelError(
        "Depth needs a depth checkpoint.",
        got=f"the checkpoint '{compat.checkpoint_name(model)}'" if model is not None else "no checkpoint",
        fix="Select one such as 512-depth-ema, choose one under Settings > Depth to image to switch to, "
        "or untick 'Depth to image'.",
    )


def of_job(p: Any, job: Job, pictures: list[FloatPicture], count: int, model: Any) -> list[Placed]:
    """The adjusted maps of a job, one per sample, in the frame of the sampler.

    Args:
        p: the job; its resize mode, crop and size are read.
        job: what the user wants.
        pictures: the pictures as they enter the sampler; not read if depth comes from elsewhere.
        count: number of samples.
        model: the checkpoint, whose network estimates unless another estimator is chosen.
    """
    job.seen = pictures
    first = p.__dict__.get(FIRST)
    placed = first if first else _maps(p, job, pictures, model)
    for notice in {one.depth.notice for one in placed} - {""}:
        p.comment(notice)
    if job.options.keep_first and tiles.driving_script(p) == LOOPBACK:
        p.__dict__[FIRST] = placed
    return [placed[index % len(placed)] for index in range(count)]


def _maps(p: Any, job: Job, pictures: list[FloatPicture], model: Any) -> list[Placed]:
    options, own, mask = job.options, job.own if job.options.under_mask == "map" else None, job.mask
    anew = bool(pictures) and options.hires == "estimate" and getattr(p, "is_hr_pass", False)
    if not anew and options.source != "picture":
        given = job.own if options.source == "map" else None
        if given is None and job.reference is not None:
            given = estimate(job.reference, model, options.estimator)
        if given is not None:
            count = len(p.init_images) if place.tiled(p) else 1
            span = _span(p, options, [given])
            placed = [place.of_picture(p, given, options, own, mask, index=index, span=span) for index in range(count)]
            place.tell_proportions(p, given, "depth map")
            return placed
    if not anew and place.estimates_on_original(p, options):
        originals = {id(picture): index for index, picture in reversed(list(enumerate(p.init_images)))}
        whole = {key: estimate(place.original(p, index), model, options.estimator) for key, index in originals.items()}
        span = _span(p, options, whole.values())
        known = {
            key: place.of_picture(p, whole[key], options, own, mask, index=index, span=span)
            for key, index in originals.items()
        }
        return [known[id(picture)] for picture in p.init_images]
    estimated = [estimate(picture, model, options.estimator) for picture in pictures]
    distinct = {id(depth): depth for depth in estimated}
    span = _span(p, options, distinct.values())
    known = {key: place.of_frame(p, depth, options, own, mask, span) for key, depth in distinct.items()}
    return [known[id(depth)] for depth in estimated]


def _span(p: Any, options: DepthOptions, depths: Iterable[DepthMap]) -> Span | None:
    """The range that these maps share with each other and with the earlier pictures of a sequence; None for none."""
    span = sequence_span(options, depths)
    if options.range == "shared":
        span = p.__dict__.setdefault(SPAN, span)
    return span


def condition(p: Any, job: Job, pictures: list[FloatPicture], latent: torch.Tensor) -> torch.Tensor:
    """Conditioning for a latent (B, C, h, w): (B, 1, h, w) on its device, in the UNet's type."""
    count, (height, width) = latent.shape[0], latent.shape[-2:]
    if not job.options.enabled:
        tensor = neutral(count, height=height, width=width, level=job.options.neutral)
    else:
        used = of_job(p, job, pictures, count, p.sd_model)
        job.used[p.iteration] = used
        depths, spans = [placed.depth for placed in used], [placed.span for placed in used]
        tensor = conditioning(depths, height=height, width=width, spans=spans)
        if job.region is not None:
            region = _region(p, job.region, count if place.tiled(p) else 1, height, width)
            tensor = schedule.inside(tensor, region, job.options.neutral)
    return tensor.to(device=latent.device, dtype=compat.conditioning_dtype())


def _region(p: Any, region: DepthMap, count: int, height: int, width: int) -> torch.Tensor:
    frames = [place.placement_of(p, index).part(region) for index in range(count)]
    place.tell_proportions(p, region, "region")
    return torch.cat([schedule.region_tensor(framed, height=height, width=width) for framed in frames])
