"""How a depth map of another size or of a whole picture is brought into the frame that the sampler works in.

The rules are those the host applies to pictures (modules/images.py, `resize_image`; 1.10.1), done on the map without
resampling: only proportions change here, and `conditioning` resizes once. A map of the whole picture is adjusted before
a part of it is cut, and the part keeps the whole map's range.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Final

import numpy as np
import numpy.typing as npt

from ..errors import OptionError
from ..options import DepthOptions
from .adjustments import adjust, adjusted_span, under_mask
from .depth_map import DepthMap, Span

Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels, ends excluded."""

RESIZE_MODES: Final = ("Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)")
"""The host's names, by its index."""

RESIZE_AND_FILL: Final = RESIZE_MODES.index("Resize and fill")

MAX_FILLED: Final = 8 * 1024 * 1024
"""Pixels that "Resize and fill" may make of a map; frames are far smaller."""

SAME_PROPORTIONS: Final = 0.01
"""Proportions that differ by less than this part are the same: sizes are rounded to whole pixels and multiples of 8."""


def same_proportions(depth: DepthMap, width: int, height: int) -> bool:
    """Whether a map has the proportions of a frame, within `SAME_PROPORTIONS`."""
    return abs(depth.width * height / (depth.height * width) - 1) < SAME_PROPORTIONS


def fit(depth: DepthMap, *, width: int, height: int, resize_mode: int) -> DepthMap:
    """A map with the proportions of a frame.

    Args:
        depth: any map.
        width, height: the frame, in pixels; only their ratio matters.
        resize_mode: index into `RESIZE_MODES`. 0 and 3: the map is returned as it is, to be stretched by
            `conditioning`. 1: cut to the frame's proportions around the centre. 2: filled up to them, edges repeated.

    Raises:
        OptionError: there is no such mode.
    """
    if resize_mode not in range(len(RESIZE_MODES)):
        raise OptionError("resize_mode", "There is no such resize mode.", got=str(resize_mode), fix="Use 0, 1, 2 or 3.")
    if resize_mode in (0, 3) or same_proportions(depth, width, height):
        return depth
    wide = depth.width * height > depth.height * width  # the map is wider than the frame
    if resize_mode == 1:
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
    """The map, made smaller where filling it up to the proportions would take more than `MAX_FILLED` pixels: a strip of
    65,535 x 1 would become a square of that side."""
    width = max(float(depth.width), depth.height * proportions)
    scale = math.sqrt(MAX_FILLED / (width * width / proportions))
    if scale >= 1:
        return depth
    return depth.resized(max(1, int(depth.width * scale)), max(1, int(depth.height * scale)))


def crop(depth: DepthMap, *, picture_size: tuple[int, int], box: tuple[int, int, int, int]) -> DepthMap:
    """The part of a whole picture's map that lies under a crop box.

    Args:
        depth: the map of the whole picture, at any size.
        picture_size: width and height of the picture, in pixels.
        box: left, top, right, bottom in pixels of the picture, ends excluded (the host's `crop_region`).
    """
    return depth.resized(*picture_size).cropped(*box)


@dataclasses.dataclass(frozen=True, eq=False)
class Placed:
    """A map in the frame.

    Attributes:
        depth: adjusted, with the frame's proportions.
        span: the values that are farthest and nearest, None for the map's own.
        raw: what was adjusted: the map in the frame, or of the whole picture where `whole` is given.
        whole: the adjusted map of the whole picture where the frame is a box of it and the map covers more.
    """

    depth: DepthMap
    span: Span | None
    raw: DepthMap
    whole: DepthMap | None = None


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the sampler's frame lies in the picture.

    Attributes:
        covers: width and height of what a map of the whole picture covers: the picture where the frame is a box of it,
            else the frame.
        frame: width and height of the frame.
        box: the frame in pixels of the picture, None where it is the whole picture.
        resize_mode: index into `RESIZE_MODES`.
    """

    covers: tuple[int, int]
    frame: tuple[int, int]
    box: Box | None
    resize_mode: int

    def fitted(self, depth: DepthMap) -> DepthMap:
        """A map of the whole picture, any proportions, with those of what it covers."""
        width, height = self.covers
        return fit(depth, width=width, height=height, resize_mode=self.resize_mode)

    def remark(self, depth: DepthMap, name: str) -> str:
        """A sentence where a map has other proportions than what it covers, else empty; `name` is what it is called."""
        width, height = self.covers
        if same_proportions(depth, width, height):
            return ""
        return (
            f"The {name} has other proportions ({depth.width} x {depth.height}) than the picture "
            f"({width} x {height}): '{RESIZE_MODES[self.resize_mode]}' was applied to it."
        )

    def boxed(self, depth: DepthMap) -> DepthMap:
        """The part of a fitted map that lies in the frame, with the frame's proportions."""
        if self.box is None:
            return depth
        width, height = self.frame
        part = crop(depth, picture_size=self.covers, box=self.box)
        return fit(part, width=width, height=height, resize_mode=RESIZE_AND_FILL)

    def part(self, depth: DepthMap) -> DepthMap:
        """What of a map of the whole picture, any proportions, lies in the frame."""
        return self.boxed(self.fitted(depth))

    def of_picture(
        self,
        depth: DepthMap,
        options: DepthOptions,
        own: DepthMap | None,
        mask: npt.NDArray[np.float32] | None,
        span: Span | None = None,
    ) -> Placed:
        """A map of the whole picture in the frame, adjusted, the part under the mask as the options say.

        Args:
            depth: any proportions.
            options: the adjustments and `under_mask` are read.
            own: the user's map of the whole picture for `under_mask` "map".
            mask: float32 (H, W), 0 keep .. 1 repaint, of what the map covers; None without one.
            span: a range that several pictures share, in raw values; None for the map's own.
        """
        raw = under_mask(self.fitted(depth), options, None if own is None else self.fitted(own), mask)
        whole, kept = adjust(raw, options, span), adjusted_span(options, span)
        if self.box is None:
            return Placed(whole, kept, raw)
        return Placed(self.boxed(whole), kept or whole.range, raw, whole)

    def of_frame(
        self,
        depth: DepthMap,
        options: DepthOptions,
        own: DepthMap | None,
        mask: npt.NDArray[np.float32] | None,
        span: Span | None = None,
    ) -> Placed:
        """The same for a map that was estimated in the frame; the mask is of the frame."""
        raw = under_mask(depth, options, None if own is None else self.part(own), mask)
        return Placed(adjust(raw, options, span), adjusted_span(options, span), raw)
