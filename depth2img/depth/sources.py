"""Decode the pictures and maps that a user gives for depth to come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ..errors import DepthMapError, PictureError
from ..io.images import Picture, read_picture
from ..options import DepthOptions
from .depth_map import DepthMap
from .masks import read_region
from .reading import MapReader


@dataclasses.dataclass(frozen=True, eq=False)
class Sources:
    """The payloads of the options that are used, decoded; None for the others.

    Attributes:
        own: the user's depth map of the whole picture.
        reference: uint8 (H, W, 3), the other picture whose depth is used.
        region: where depth counts, 0 outside .. 1 inside, over the whole picture.
    """

    own: DepthMap | None = None
    reference: Picture | None = None
    region: DepthMap | None = None


def read_sources(
    options: DepthOptions, read: Callable[[Callable[[Any], Any], Any], Any] = lambda reader, payload: reader(payload)
) -> Sources:
    """Decode what the options use.

    Args:
        options: of the job; with depth off nothing is read.
        read: calls a reader on a payload; given where several jobs share payloads, to read each once.

    Raises:
        DepthMapError, PictureError: what was selected is missing or cannot be read.
    """
    own = reference = region = None
    if options.enabled and options.needs_own_map:
        if options.depth_map is None:
            raise DepthMapError("'My own depth map' is selected, but no map was given.", fix="Give a depth map.")
        own = read(MapReader.of(options), options.depth_map)
    if options.enabled and options.source == "reference":
        if options.reference is None:
            raise PictureError("'Another picture' is selected, but no picture was given.", fix="Give a picture.")
        reference = read(read_picture, options.reference)
    if options.enabled and options.region is not None:
        region = read(read_region, options.region)
    return Sources(own, reference, region)
