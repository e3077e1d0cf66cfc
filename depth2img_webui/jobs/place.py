"""Where the host puts a picture into the frame of the sampler, read from a job: what `placement.Placement` needs."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from modules import images, shared
from PIL import Image

from depth2img import DepthMap, DepthOptions, read_picture
from depth2img.depth import placement
from depth2img.depth.depth_map import Span
from depth2img.depth.placement import Box, Placed, Placement
from depth2img.io.images import Picture

from . import tiles

CROP_AND_RESIZE: Final = placement.RESIZE_MODES.index("Crop and resize")


def estimates_on_original(p: Any, options: DepthOptions) -> bool:
    """Whether depth is to be estimated on the pictures as the user gave them.

    Never where there are none (txt2img), and not where the host's box reaches outside of a picture, because the mask
    has another size than it.
    """
    pictures = getattr(p, "init_images", None)
    if not pictures or options.estimate_on == "entering" or getattr(p, "is_hr_pass", False):
        return False
    box = box_of(p)
    if box is None:
        return options.estimate_on == "original" or tiles.tile_of(p, 0) is not None
    return all(box[2] <= picture.width and box[3] <= picture.height for picture in pictures)


def original(p: Any, index: int) -> Picture:
    """A picture as the user gave it, flattened as the host does, before it is resized, cropped or filled; of SD upscale
    the whole of it, upscaled."""
    tile = tiles.tile_of(p, index)
    picture = p.init_images[index] if tile is None else tile.whole
    return read_picture(images.flatten(picture, shared.opts.img2img_background_color))


def box_of(p: Any) -> Box | None:
    """left, top, right, bottom of "Only masked" in pixels of the picture; None where the frame is the whole picture."""
    # With a blank mask the host unsets `inpaint_full_res` and leaves the box of an earlier picture of the batch tab.
    if getattr(p, "paste_to", None) is None or not getattr(p, "inpaint_full_res", False):
        return None
    left, top, width, height = p.paste_to
    return left, top, left + width, top + height


def tiled(p: Any) -> bool:
    """Whether the samples are tiles of one picture."""
    return box_of(p) is None and tiles.tile_of(p, 0) is not None


def placement_of(p: Any, index: int = 0) -> Placement:
    """Where the frame of a sample lies in its picture: the box of "Only masked", a tile of SD upscale, or all of it."""
    frame, box, tile = (p.width, p.height), box_of(p), tiles.tile_of(p, index)
    covers = frame
    if box is not None:
        covers = p.init_images[0].size
    elif tile is not None:
        covers, box = tile.whole.size, tile.box
    return Placement(covers, frame, box, getattr(p, "resize_mode", CROP_AND_RESIZE))


def tell_proportions(p: Any, depth: DepthMap, name: str) -> None:
    """A comment under the result where a map has other proportions than what it covers; `name` is what it is called."""
    if remark := placement_of(p).remark(depth, name):
        p.comment(remark)


def of_picture(
    p: Any,
    depth: DepthMap,
    options: DepthOptions,
    own: DepthMap | None,
    mask: Image.Image | None,
    *,
    index: int = 0,
    span: Span | None = None,
) -> Placed:
    """A map of the whole picture in the frame; see `Placement.of_picture`.

    Args:
        p: the job; its resize mode, box, masks and size are read.
        depth: any proportions.
        options: the adjustments and `under_mask` are read.
        own: the user's map for `under_mask` "map".
        mask: the host's mask in the frame, white = repaint, None without one.
        index: number of the sample.
        span: a shared range in raw values, None for the map's own.
    """
    to = placement_of(p, index)
    if to.box is not None and mask is not None:
        mask = p.mask_for_overlay if box_of(p) is not None else None  # a mask says nothing about tiles
    return to.of_picture(depth, options, own, _weights(mask), span)


def of_frame(
    p: Any,
    depth: DepthMap,
    options: DepthOptions,
    own: DepthMap | None,
    mask: Image.Image | None,
    span: Span | None = None,
) -> Placed:
    """The same for a map that was estimated in the frame."""
    return placement_of(p).of_frame(depth, options, own, _weights(mask), span)


def _weights(mask: Image.Image | None) -> npt.NDArray[np.float32] | None:
    return None if mask is None else np.asarray(mask.convert("L"), np.float32) / 255


def at_picture_size(p: Any, placed: Placed, size: tuple[int, int]) -> DepthMap:
    """The map at the picture's size; where it covers only a box of the picture, the rest is farthest."""
    box = box_of(p)
    if placed.whole is not None and box is not None and shared.opts.overlay_inpaint:
        return placed.whole.resized(*size)
    if box is None or not shared.opts.overlay_inpaint:  # without the overlay the picture is the crop alone
        return placed.depth.resized(*size)
    left, top, right, bottom = box
    canvas = np.zeros((size[1], size[0]), np.float32)
    canvas[top:bottom, left:right] = placed.depth.resized(right - left, bottom - top).normalised()
    return dataclasses.replace(placed.depth, values=canvas)
