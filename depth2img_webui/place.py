"""From a map of a picture to the map in the frame that the sampler works in, by the very geometry the host applies.

The frame is the whole picture, resized, or with "Only masked" a box of it (`p.paste_to`). A map of the whole picture is
adjusted before it is cut, and the cut keeps the whole map's range.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import numpy as np
from modules import images, shared
from PIL import Image

from depth2img import DepthMap, DepthOptions, adjust, geometry, read_picture
from depth2img.adjust import adjusted_span, under_mask
from depth2img.depth_map import Span
from depth2img.images import Picture

from . import tiles

CROP_AND_RESIZE: Final = geometry.RESIZE_MODES.index("Crop and resize")
RESIZE_AND_FILL: Final = geometry.RESIZE_MODES.index("Resize and fill")


Box = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class Placed:
    """A map in the frame.

    Attributes:
        depth: adjusted, with the frame's proportions.
        span: the values that are farthest and nearest, None for the map's own.
        whole: the adjusted map of the whole picture where the frame is a box of it and the map covers more.
        raw: what was adjusted: the map in the frame, or of the whole picture where `whole` is given.
    """

    depth: DepthMap
    span: Span | None = None
    whole: DepthMap | None = None
    raw: DepthMap | None = None


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


def canvas(p: Any, index: int) -> tuple[tuple[int, int], Box | None]:
    """Width and height of what a map of the whole picture covers, and the frame's box in it, None for all of it."""
    box = box_of(p)
    if box is not None:
        return p.init_images[0].size, box
    tile = tiles.tile_of(p, index)
    return ((p.width, p.height), None) if tile is None else (tile.whole.size, tile.box)


def fitted(p: Any, depth: DepthMap, name: str = "", *, index: int = 0) -> DepthMap:
    """A map of the whole picture with the proportions of the picture ("Only masked", SD upscale) or of the frame.

    Args:
        p: the job.
        depth: any proportions.
        name: what a comment under the result calls the map where its proportions are others; empty for no comment.
        index: number of the sample.
    """
    mode = getattr(p, "resize_mode", CROP_AND_RESIZE)
    (width, height), _ = canvas(p, index)
    placed = geometry.fit(depth, width=width, height=height, resize_mode=mode)
    if name and not geometry.same_proportions(depth, width, height):
        p.comment(
            f"The {name} has other proportions ({depth.width} x {depth.height}) than the picture "
            f"({width} x {height}): '{geometry.RESIZE_MODES[mode]}' was applied to it."
        )
    return placed


def boxed(p: Any, depth: DepthMap, *, index: int = 0) -> DepthMap:
    """The part of a fitted map that lies in the frame."""
    size, box = canvas(p, index)
    if box is None:
        return depth
    part = geometry.crop(depth, picture_size=size, box=box)
    return geometry.fit(part, width=p.width, height=p.height, resize_mode=RESIZE_AND_FILL)


def place(
    p: Any,
    depth: DepthMap,
    options: DepthOptions,
    own: DepthMap | None,
    mask: Image.Image | None,
    *,
    given: str = "",
    index: int = 0,
    span: Span | None = None,
) -> Placed:
    """A map of the whole picture in the frame, adjusted, the part under the mask as the options say.

    Args:
        p: the job; its resize mode, box, masks and size are read.
        depth: any proportions.
        options: the adjustments and `under_mask` are read.
        own: the user's map for `under_mask` "map".
        mask: the host's mask in the frame, white = repaint, None without one.
        given: see `fitted`, `name`.
        index: number of the sample.
        span: a shared range in raw values, None for the map's own.
    """
    whole = fitted(p, depth, given, index=index)
    own = None if own is None else fitted(p, own, index=index)
    if canvas(p, index)[1] is None:
        raw = _under(whole, options, own, mask)
        return Placed(adjust(raw, options, span), adjusted_span(options, span), raw=raw)
    if box_of(p) is not None:
        whole = _under(whole, options, own, p.mask_for_overlay if mask is not None else None)
    raw, whole = whole, adjust(whole, options, span)
    return Placed(boxed(p, whole, index=index), adjusted_span(options, span) or whole.range, whole, raw)


def entering(
    p: Any,
    depth: DepthMap,
    options: DepthOptions,
    own: DepthMap | None,
    mask: Image.Image | None,
    span: Span | None = None,
) -> Placed:
    """The same for a map that was estimated in the frame."""
    inserted = None if own is None or options.under_mask != "map" else boxed(p, fitted(p, own))
    raw = _under(depth, options, inserted, mask)
    return Placed(adjust(raw, options, span), adjusted_span(options, span), raw=raw)


def _under(depth: DepthMap, options: DepthOptions, own: DepthMap | None, mask: Image.Image | None) -> DepthMap:
    weights = None if mask is None else np.asarray(mask.convert("L"), np.float32) / 255
    return under_mask(depth, options, own, weights)


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
