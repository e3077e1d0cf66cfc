"""What is done with the results of a job: the fidelity score, maps that are shown and saved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from modules import shared

from depth2img import DepthMapError, read_picture
from depth2img.depth.scores import FIDELITY, structure
from depth2img.diffusion.results import MAP_ENDING
from depth2img.options import CHECKPOINT

from .. import settings
from ..hosts import compat
from . import maps, place
from .job import JOB, Job

LONGEST_NAME: Final = 255
"""Bytes of a file's name, on every file system in use."""


def score(p: Any, picture: Any) -> None:
    """Called with each result before its infotext is made: writes how far its depth agrees with what was asked.

    Args:
        p: the job; its checkpoint estimates, if it has a depth network at the end of the job, or the estimator that the
            job chose.
        picture: Pillow image, in the frame of the sampler.
    """
    job: Job | None = getattr(p, JOB, None)
    p.extra_generation_params.pop(FIDELITY, None)
    if job is None or not job.options.score or not job.used:
        return
    if job.options.estimator == CHECKPOINT and compat.depth_network(p.sd_model) is None:
        return
    batch, position = divmod(job.scored, p.batch_size)
    used = job.used.get(batch, next(iter(job.used.values())))
    job.scored += 1
    asked = used[position % len(used)].depth
    agreement = structure(asked, maps.estimate(read_picture(picture), p.sd_model, job.options.estimator))
    p.extra_generation_params[FIDELITY] = f"{agreement:.3f}"


def add_maps(p: Any, processed: Any) -> None:
    """Called when the pictures are done: save the maps beside them, and append the maps to them."""
    job: Job | None = getattr(p, JOB, None)
    if job is None or not job.used:
        return
    if job.options.save_map:
        try:
            _save_maps(p, processed, job)
        except DepthMapError as error:
            processed.comments += f"{error}\n"
    if job.options.append_map and not _driven_by_script(p):
        used = [placed.depth for batch in job.used.values() for placed in batch]
        distinct = {depth.values.tobytes(): depth for depth in used}.values()
        processed.images.extend(depth.resized(p.width, p.height).to_image(settings.colour_map()) for depth in distinct)


def _driven_by_script(p: Any) -> bool:
    """Whether a script of the dropdown runs this job: such scripts take every picture of the result for their own."""
    args: Any = getattr(p, "script_args", None)
    return bool(args) and args[0] not in (None, 0)


def _save_maps(p: Any, processed: Any, job: Job) -> None:
    with_mask = getattr(p, "mask_for_overlay", None) is not None
    extras = with_mask * (bool(shared.opts.return_mask) + bool(shared.opts.return_mask_composite))
    pictures = processed.images[processed.index_of_first_image :: 1 + extras]
    first = next(iter(job.used.values()))
    for index, picture in enumerate(pictures):
        saved = getattr(picture, "already_saved_as", None)
        if saved is None:
            # `p.comment` would be too late: the result has taken over its comments already.
            processed.comments += "Depth maps are saved only beside saved pictures, and this picture was not saved.\n"
            return
        batch, position = divmod(index, p.batch_size)
        used = job.used.get(batch, first)
        depth = place.at_picture_size(p, used[position % len(used)], picture.size)
        depth.save(beside(Path(saved)))


def beside(path: Path) -> Path:
    """Where the map of a saved picture goes; the name is cut where it would be longer than names may be."""
    stem = path.stem
    while len(os.fsencode(stem + MAP_ENDING)) > LONGEST_NAME:
        stem = stem[:-1]
    return path.with_name(stem + MAP_ENDING)
