"""A job's request: its options, and their pictures decoded."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from PIL import Image

from depth2img import DepthOptions
from depth2img.depth.resolve import PlacedMap
from depth2img.depth.sources import Sources, read_sources
from depth2img.io.images import FloatPicture
from depth2img.io.uploads import uploaded

from .host_frame import HostFrame, read_frame

REQUEST: Final = "_depth2img_request"
"""Attribute of `p` that holds the `Request`."""


@dataclasses.dataclass
class Request:
    """One job's request, and what became of it so far.

    Attributes:
        options: as given.
        sources: the payloads of the options, decoded.
        script: title of the script of the dropdown that runs the job, empty where it is unknown; None without one.
        frame: how the pictures enter the sampler; None until the host has brought them there, see `frame_of`.
        pictures: the pictures as they enter the sampler, one per sample; kept for a depth checkpoint that comes in
            later (refiner, hires).
        used: number of the batch -> the placed maps of its latest conditioning, one per sample; empty before and when
            depth is off. img2img's maps of all batches, computed at once, have one number.
        scored: how many results have their fidelity score.
        seen: the pictures of the latest conditioning.
    """

    options: DepthOptions
    sources: Sources = dataclasses.field(default_factory=Sources)
    script: str | None = None
    frame: HostFrame | None = None
    pictures: list[FloatPicture] = dataclasses.field(default_factory=list)
    used: dict[int, list[PlacedMap]] = dataclasses.field(default_factory=dict)
    scored: int = 0
    seen: list[FloatPicture] = dataclasses.field(default_factory=list)


def request_of(p: Any) -> Request | None:
    """Return the request of a job; None where depth has no part in it."""
    found: Request | None = getattr(p, REQUEST, None)
    return found


def frame_of(p: Any, request: Request, mask: Image.Image | None = None) -> HostFrame:
    """Return the frame of a job whose pictures the host has brought into the sampler; it is read at the first call.

    Args:
        p: the job.
        request: of the job.
        mask: the host's mask in the frame, white = repaint; None without one.

    Raises:
        OptionError: the job has an unknown resize mode.
    """
    if request.frame is None:
        request.frame = read_frame(p, mask, request.script)
    return request.frame


def read_options(args: tuple[Any, ...], changes: dict[str, Any] | None = None) -> DepthOptions:
    """Read the options from the script's arguments, as the page or the API sends them.

    Args:
        args: a list by position, or one object with names first.
        changes: named values that replace the others, from an X/Y/Z axis.

    Raises:
        Depth2ImgError: a value is bad; the message names it.
    """
    options = DepthOptions.from_args([uploaded(value) for value in args])
    return dataclasses.replace(options, **changes) if changes else options


def wants_given_depth(options: DepthOptions) -> bool:
    """Tell whether depth is switched on and comes from an explicitly given map or picture."""
    given = {"map": options.depth_map, "reference": options.reference}
    return options.enabled and given.get(options.source) is not None


def load(options: DepthOptions, script: str | None = None) -> Request:
    """Decode the payloads of a job's options.

    Raises:
        DepthMapError, PictureError: the source that was selected is missing or cannot be read.
    """
    return Request(options, read_sources(options), script)
