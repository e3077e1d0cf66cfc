"""Bring a depth map of another size, or of a whole picture, into the frame that the sampler works in.

The rules are those the host applies to pictures (modules/images.py, `resize_image`; 1.10.1), applied to the map without
resampling: only its proportions change here, and `conditioning` resizes once.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Final

import numpy as np

from ..errors import OptionError
from .depth_map import DepthMap

Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels, ends excluded."""


class ResizeMode(enum.IntEnum):
    """The ways to bring a picture of other proportions into the frame, by the host's numbers."""

    JUST_RESIZE = 0
    CROP_AND_RESIZE = 1
    RESIZE_AND_FILL = 2
    LATENT_UPSCALE = 3

    @classmethod
    def _missing_(cls, value: object) -> ResizeMode:
        raise OptionError("resize_mode", "The resize mode does not exist.", got=str(value), fix="Use 0, 1, 2 or 3.")

    @classmethod
    def named(cls, name: str) -> ResizeMode:
        """Find a mode by its label, in any case."""
        return next(mode for mode in cls if mode.label.lower() == name.lower())

    @property
    def label(self) -> str:
        """The host's name of the mode."""
        return LABELS[self]


LABELS: Final = ("Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)")
"""The host's names of the resize modes, in the order of their numbers."""

MAX_FILLED: Final = 8 * 1024 * 1024
"""Pixels that "Resize and fill" may make of a map; frames are far smaller."""

SAME_PROPORTIONS: Final = 0.01
"""Proportions that differ by less than this part are the same: sizes are rounded to whole pixels and multiples of 8."""


def same_proportions(depth: DepthMap, width: int, height: int) -> bool:
    """Tell whether a map has the proportions of a frame, within `SAME_PROPORTIONS`."""
    return abs(depth.width * height / (depth.height * width) - 1) < SAME_PROPORTIONS


def fit(depth: DepthMap, *, width: int, height: int, resize_mode: ResizeMode) -> DepthMap:
    """Give a map the proportions of a frame.

    Args:
        depth: any map.
        width, height: the frame, in pixels; only their ratio matters.
        resize_mode: "Just resize" (both kinds) returns the map as it is, to be stretched by `conditioning`; "Crop and
            resize" cuts it to the frame's proportions around the centre; "Resize and fill" fills it up to them, edges
            repeated.
    """
    stretched = resize_mode in (ResizeMode.JUST_RESIZE, ResizeMode.LATENT_UPSCALE)
    if stretched or same_proportions(depth, width, height):
        return depth
    wide = depth.width * height > depth.height * width  # the map is wider than the frame
    if resize_mode is ResizeMode.CROP_AND_RESIZE:
        new_width = max(1, round(depth.height * width / height)) if wide else depth.width
        new_height = depth.height if wide else max(1, round(depth.width * height / width))
        left, top = (depth.width - new_width) // 2, (depth.height - new_height) // 2
        return depth.cropped(left, top, left + new_width, top + new_height)
    depth = _room_to_fill(depth, width / height)
    new_width = depth.width if wide else round(depth.height * width / height)
    new_height = round(depth.width * height / width) if wide else depth.height
    left, top = (new_width - depth.width) // 2, (new_height - depth.height) // 2
    around = ((top, new_height - depth.height - top), (left, new_width - depth.width - left))
    return dataclasses.replace(depth, values=np.pad(depth.values, around, mode="edge"))


def _room_to_fill(depth: DepthMap, proportions: float) -> DepthMap:
    """Shrink a map if padding it to the proportions would take more than `MAX_FILLED` pixels.

    A strip of 65,535 x 1 would become a square of that side.
    """
    width = max(float(depth.width), depth.height * proportions)
    scale = math.sqrt(MAX_FILLED / (width * width / proportions))
    if scale >= 1:
        return depth
    return depth.resized(max(1, int(depth.width * scale)), max(1, int(depth.height * scale)))


def crop(depth: DepthMap, *, picture_size: tuple[int, int], box: Box) -> DepthMap:
    """Cut the part under a crop box out of a whole picture's map.

    Args:
        depth: the map of the whole picture, at any size.
        picture_size: width and height of the picture, in pixels.
        box: the part, in pixels of the picture (the host's `crop_region`).
    """
    return depth.resized(*picture_size).cropped(*box)


@dataclasses.dataclass(frozen=True)
class Placement:
    """The position of the sampler's frame in the picture.

    Attributes:
        picture: width and height of the whole picture; those of the frame where there is none.
        frame: width and height of the frame.
        box: the part of the picture that the frame shows, None for all of it.
        resize_mode: how the whole picture gets into the frame.
    """

    picture: tuple[int, int]
    frame: tuple[int, int]
    box: Box | None
    resize_mode: ResizeMode

    @property
    def covers(self) -> tuple[int, int]:
        """Size whose proportions a map of the whole picture gets: the picture's for a box, else the frame's."""
        return self.frame if self.box is None else self.picture

    def fitted(self, depth: DepthMap) -> DepthMap:
        """Give a map of the whole picture, of any proportions, those of `covers`."""
        width, height = self.covers
        return fit(depth, width=width, height=height, resize_mode=self.resize_mode)

    def remark(self, depth: DepthMap, name: str) -> str:
        """Say in a sentence that a map's proportions differ from those of `covers`; empty if they do not.

        Args:
            depth: a map of the whole picture.
            name: what to call it.
        """
        width, height = self.covers
        if same_proportions(depth, width, height):
            return ""
        return (
            f"The {name} has other proportions ({depth.width} x {depth.height}) than the picture "
            f"({width} x {height}): '{self.resize_mode.label}' was applied to it."
        )

    def boxed(self, depth: DepthMap) -> DepthMap:
        """Cut the frame's part out of a fitted map and give it the frame's proportions."""
        if self.box is None:
            return depth
        width, height = self.frame
        part = crop(depth, picture_size=self.picture, box=self.box)
        return fit(part, width=width, height=height, resize_mode=ResizeMode.RESIZE_AND_FILL)

    def part(self, depth: DepthMap) -> DepthMap:
        """Fit a map of the whole picture, of any proportions, and cut the frame's part out of it."""
        return self.boxed(self.fitted(depth))
