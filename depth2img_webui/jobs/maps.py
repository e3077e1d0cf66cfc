"""Turn the pictures of a job into depth maps, and these into conditioning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import torch

from depth2img import (
    DepthCache,
    DepthMap,
    DepthOptions,
    conditioning,
    neutral,
)
from depth2img.depth import schedule
from depth2img.depth.adjustments import sequence_span
from depth2img.depth.depth_map import Span
from depth2img.depth.hints import hints
from depth2img.depth.placement import Placement
from depth2img.depth.resolve import Basis, PlacedMap, resolve
from depth2img.io.images import FloatPicture, Picture, to_float
from depth2img.options import CHECKPOINT

from .. import estimators, settings
from ..hosts import compat, host
from .host_frame import HostFrame
from .request import Request, frame_of

FIRST: Final = "_depth2img_first"
"""Attribute of `p` that holds the maps of Loopback's first loop, until another job begins on it."""

SPAN: Final = "_depth2img_span"
"""Attribute of `p` that holds the range of a sequence's first picture, which the others share."""

LOOPBACK: Final = "Loopback"
"""Title of the host's script."""

CACHE: Final = DepthCache()
"""Maps by picture content and checkpoint; holds nothing that belongs to a request."""


def forget(p: Any, request: Request) -> None:
    """Take off `p` what an earlier run on it has kept for a sequence, unless this run goes on with the sequence."""
    if not _keeps_first(request):
        p.__dict__.pop(FIRST, None)
    if request.options.range != "shared":
        p.__dict__.pop(SPAN, None)


def pictures_of(source: torch.Tensor, *, zero_to_one: bool = False) -> list[FloatPicture]:
    """Turn the host's picture tensor into pictures, float32 (H, W, 3) 0..1; equal pictures are the same object.

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
    """Estimate the depth map of a picture, or take it from the cache.

    Args:
        picture: the picture.
        model: the checkpoint whose own network estimates if `estimator` says so; unused otherwise.
        estimator: `DepthOptions.estimator`.

    Raises:
        NoDepthModelError: the checkpoint has no depth network.
        OptionError, EstimatorError: there is no such estimator, or it failed.
    """
    chosen = host().own_estimator(model) if estimator == CHECKPOINT else estimators.pool().get(estimator)
    # Here, since with --nowebui the host does not know the setting and would tell nobody of a change.
    CACHE.resize(settings.cache_bytes())
    with compat.plain_forward():
        return CACHE.get_or_estimate(to_float(picture), chosen)


def place_maps(p: Any, request: Request, pictures: list[FloatPicture], count: int, model: Any) -> list[PlacedMap]:
    """Make the adjusted maps of a job, one per sample, in the frame of the sampler.

    Args:
        p: the job, for comments, the pass it is in, and what a sequence keeps.
        request: what the user wants, and the frame.
        pictures: the pictures as they enter the sampler; unused if depth comes from elsewhere.
        count: number of samples.
        model: the checkpoint, whose network estimates unless another estimator is chosen.
    """
    request.seen = pictures
    placed = p.__dict__.get(FIRST) or _placed(p, request, pictures, model)
    for notice in {one.depth.notice for one in placed} - {""}:
        p.comment(notice)
    if _keeps_first(request):
        p.__dict__[FIRST] = placed
    return [placed[index % len(placed)] for index in range(count)]


def _keeps_first(request: Request) -> bool:
    return request.options.keep_first and request.script == LOOPBACK


def _placed(p: Any, request: Request, pictures: list[FloatPicture], model: Any) -> list[PlacedMap]:
    options, frame = request.options, frame_of(p, request)
    hires = bool(pictures) and getattr(p, "is_hr_pass", False)
    decisions = [one for framing in frame.framings if (one := resolve(options, framing, hires=hires)) is not None]
    basis = decisions[0].basis
    depths = depths_of(request, frame, basis, pictures, model)
    if request.sources.own is not None:
        for sentence in hints(request.sources.own, options).values():
            p.comment(sentence)
    if basis in (Basis.OWN_MAP, Basis.REFERENCE):
        comment_on_proportions(p, frame.placement, depths[0], "depth map")
    span = _span(p, options, depths)
    known: dict[tuple[int, int], PlacedMap] = {}
    placed = []
    for index in range(max(len(depths), len(decisions))):
        depth, number = depths[index % len(depths)], index % len(decisions)
        if (id(depth), number) not in known:
            known[id(depth), number] = decisions[number].place(depth, request.sources.own, span)
        placed.append(known[id(depth), number])
    return placed


def depths_of(
    request: Request, frame: HostFrame, basis: Basis, pictures: Sequence[FloatPicture], model: Any
) -> list[DepthMap]:
    """Take or estimate the maps that were decided on: one per picture, or one for all. Equal ones are the same object.

    Args:
        request: the payloads of its options, and the estimator.
        frame: the pictures as the user gave them.
        basis: see `resolve.resolve`.
        pictures: the pictures as they enter the sampler.
        model: see `estimate`.
    """
    own, reference = request.sources.own, request.sources.reference
    if basis is Basis.OWN_MAP and own is not None:
        return [own]
    wanted: Sequence[FloatPicture | Picture] = frame.originals if basis is Basis.ORIGINAL else pictures
    if basis is Basis.REFERENCE and reference is not None:
        wanted = [reference]
    distinct = {id(picture): picture for picture in wanted}
    found = {key: estimate(picture, model, request.options.estimator) for key, picture in distinct.items()}
    return [found[id(picture)] for picture in wanted]


def comment_on_proportions(p: Any, placement: Placement, depth: DepthMap, name: str) -> None:
    """Comment under the result where a map has other proportions than the picture; `name` is what to call the map."""
    if remark := placement.remark(depth, name):
        p.comment(remark)


def _span(p: Any, options: DepthOptions, depths: Iterable[DepthMap]) -> Span | None:
    """Return the range that these maps share with each other and with a sequence's earlier pictures; None for none."""
    span = sequence_span(options, depths)
    if options.range == "shared":
        span = p.__dict__.setdefault(SPAN, span)
    return span


def condition(p: Any, request: Request, pictures: list[FloatPicture], latent: torch.Tensor) -> torch.Tensor:
    """Make the conditioning for a latent (B, C, h, w): (B, 1, h, w) on its device, in the UNet's type."""
    count, (height, width) = latent.shape[0], latent.shape[-2:]
    options, region = request.options, request.sources.region
    if not options.enabled:
        tensor = neutral(count, height=height, width=width, level=options.neutral)
    else:
        used = place_maps(p, request, pictures, count, p.sd_model)
        request.used[p.iteration] = used
        depths, spans = [placed.depth for placed in used], [placed.span for placed in used]
        tensor = conditioning(depths, height=height, width=width, spans=spans)
        if region is not None:
            placements = [framing.placement for framing in frame_of(p, request).framings]
            comment_on_proportions(p, placements[0], region, "region")
            part = [schedule.region_tensor(one.part(region), height=height, width=width) for one in placements]
            repeated = [part[index % len(part)] for index in range(count)] if len(part) > 1 else part
            tensor = schedule.inside(tensor, torch.cat(repeated), options.neutral)
    return tensor.to(device=latent.device, dtype=compat.conditioning_dtype())
