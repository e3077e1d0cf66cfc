"""What one request wants: its options, and its pictures decoded."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from PIL import Image

from depth2img import (
    DepthMap,
    DepthMapError,
    DepthOptions,
    read_depth_map,
    read_picture,
)
from depth2img.depth.masks import read_region
from depth2img.depth.placement import Placed
from depth2img.errors import PictureError
from depth2img.io.images import FloatPicture, Picture
from depth2img.io.uploads import uploaded

JOB: Final = "_depth2img_job"
"""Where the `Job` lies on `p`."""


@dataclasses.dataclass
class Job:
    """One request.

    Attributes:
        options: as given.
        own: the user's depth map, decoded.
        reference: the other picture, decoded.
        region: where depth counts, decoded: 0 outside .. 1 inside, over the whole picture.
        pictures: the pictures as they enter the sampler, one per sample; kept for a depth checkpoint that comes in
            later (refiner, hires).
        mask: the host's mask in the frame of the sampler, white = repaint.
        used: number of the batch -> the placed maps of its latest conditioning, one per sample; empty before and when
            depth is off. What img2img computes for all batches at once stands under one number.
        scored: how many results have their fidelity score.
        seen: the pictures of the latest conditioning.
    """

    options: DepthOptions
    own: DepthMap | None = None
    reference: Picture | None = None
    region: DepthMap | None = None
    pictures: list[FloatPicture] = dataclasses.field(default_factory=list)
    mask: Image.Image | None = None
    used: dict[int, list[Placed]] = dataclasses.field(default_factory=dict)
    scored: int = 0
    seen: list[FloatPicture] = dataclasses.field(default_factory=list)


def read_options(args: tuple[Any, ...], changes: dict[str, Any] | None = None) -> DepthOptions:
    """The options from the script's arguments, as the page or the API sends them.

    Args:
        args: a list by position, or one object with names first.
        changes: named values that replace the others, from an X/Y/Z axis.

    Raises:
        Depth2ImgError: a value is bad; the message names it.
    """
    options = DepthOptions.from_args([uploaded(value) for value in args])
    return dataclasses.replace(options, **changes) if changes else options


def wants_given_depth(options: DepthOptions) -> bool:
    """Whether depth is switched on and comes from an explicitly given map or picture."""
    return options.enabled and (
        (options.source == "map" and options.depth_map is not None)
        or (options.source == "reference" and options.reference is not None)
    )


def load(options: DepthOptions) -> Job:
    """A job with its pictures decoded.

    Raises:
        DepthMapError, PictureError: the source that was chosen is missing or cannot be read.
    """
    job = Job(options)
    if options.enabled and "map" in (options.source, options.under_mask):
        if options.depth_map is None:
            raise DepthMapError("'My own depth map' is chosen, but there is none.", fix="Upload a depth map.")
        job.own = read_depth_map(options.depth_map)
    if options.enabled and options.source == "reference":
        if options.reference is None:
            raise PictureError("'Another picture' is chosen, but there is none.", fix="Upload a picture.")
        job.reference = read_picture(options.reference)
    if options.enabled and options.region is not None:
        job.region = read_region(options.region)
    return job
