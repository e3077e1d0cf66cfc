"""How a depth map of another size or of a whole picture is brought into the frame that the sampler works in.

The rules are those the host applies to pictures (modules/images.py, `resize_image`; 1.10.1), done on the map without
resampling: only proportions change here, and `conditioning` resizes once.
"""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np

from .depth_map import DepthMap
from .errors import OptionError

RESIZE_MODES: Final = ("Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)")
"""The host's names, by its index."""

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
    new_width = depth.width if wide else round(depth.height * width / height)
    new_height = round(depth.width * height / width) if wide else depth.height
    left, top = (new_width - depth.width) // 2, (new_height - depth.height) // 2
    around = ((top, new_height - depth.height - top), (left, new_width - depth.width - left))
    return dataclasses.replace(depth, values=np.pad(depth.values, around, mode="edge"))


def crop(depth: DepthMap, *, picture_size: tuple[int, int], box: tuple[int, int, int, int]) -> DepthMap:
    """The part of a whole picture's map that lies under a crop box.

    Args:
        depth: the map of the whole picture, at any size.
        picture_size: width and height of the picture, in pixels.
        box: left, top, right, bottom in pixels of the picture, ends excluded (the host's `crop_region`).
    """
    return depth.resized(*picture_size).cropped(*box)
