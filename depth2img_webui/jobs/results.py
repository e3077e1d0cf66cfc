"""Score the results of a job, and show and save the maps that were used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from modules import shared

from depth2img import DepthMapError, read_picture
from depth2img.depth.resolve import PlacedMap
from depth2img.depth.scores import FIDELITY, structure
from depth2img.diffusion.results import MAP_ENDING
from depth2img.options import CHECKPOINT

from .. import settings
from ..hosts import host
from . import maps
from .request import Request, frame_of, request_of

LONGEST_NAME: Final = 255
"""Bytes of a file's name, on every file system in use."""


def score(p: Any, picture: Any) -> None:
    """Write into a result's infotext, before it is made, how far its depth agrees with the depth that was asked for.

    Args:
        p: the job; its checkpoint estimates, if it has a depth network at the end of the job, or the estimator that the
            job chose.
        picture: Pillow image, in the frame of the sampler.
    """
    request = request_of(p)
    p.extra_generation_params.pop(FIDELITY, None)
    if request is None or not request.options.score or not request.used:
        return
    estimator = request.options.estimator
    if estimator == CHECKPOINT and not host().is_depth(p.sd_model):
        return
    batch, position = divmod(request.scored, p.batch_size)
    used = request.used.get(batch, next(iter(request.used.values())))
    request.scored += 1
    asked = used[position % len(used)].depth
    agreement = structure(asked, maps.estimate(read_picture(picture), p.sd_model, estimator))
    p.extra_generation_params[FIDELITY] = f"{agreement:.3f}"


def add_maps(p: Any, processed: Any) -> None:
    """Save the maps beside the finished pictures, and append the maps to them."""
    request = request_of(p)
    if request is None or not request.used:
        return
    if request.options.save_map:
        try:
            _save_maps(p, processed, request)
        except DepthMapError as error:
            processed.comments += f"{error}\n"
    # A script of the dropdown takes every picture of the result for its own.
    if request.options.append_map and request.script is None:
        used = [placed.depth for batch in request.used.values() for placed in batch]
        distinct = {depth.values.tobytes(): depth for depth in used}.values()
        processed.images.extend(depth.resized(p.width, p.height).to_image(settings.colour_map()) for depth in distinct)


def made_with(p: Any, processed: Any, request: Request) -> Iterator[tuple[int, PlacedMap]]:
    """Yield the place of each generated picture among the result's pictures, and the map that it was made with.

    Args:
        p: the job.
        processed: the host's result, before maps are appended; a grid comes first, masks follow each picture.
        request: of the job; it has used maps.
    """
    frame = frame_of(p, request)
    extras = (frame.mask is not None) * (bool(shared.opts.return_mask) + bool(shared.opts.return_mask_composite))
    first = next(iter(request.used.values()))
    for index, place in enumerate(range(processed.index_of_first_image, len(processed.images), 1 + extras)):
        batch, position = divmod(index, p.batch_size)
        used = request.used.get(batch, first)
        yield place, used[position % len(used)]


def _save_maps(p: Any, processed: Any, request: Request) -> None:
    frame = frame_of(p, request)
    for place, placed in made_with(p, processed, request):
        picture = processed.images[place]
        saved = getattr(picture, "already_saved_as", None)
        if saved is None:
            # `p.comment` would be too late: the result has taken over its comments already.
            processed.comments += "Depth maps are saved only beside saved pictures, and this picture was not saved.\n"
            return
        depth = frame.at_picture_size(placed.depth, placed.whole, picture.size)
        depth.save(beside(Path(saved)))


def beside(path: Path) -> Path:
    """Return where to save the map of a saved picture; a name that would be too long for the file system is cut."""
    stem = path.stem
    while len(os.fsencode(stem + MAP_ENDING)) > LONGEST_NAME:
        stem = stem[:-1]
    return path.with_name(stem + MAP_ENDING)
