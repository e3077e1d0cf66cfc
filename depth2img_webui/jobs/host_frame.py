"""The frame into which the host brings a job's pictures, read from the job once."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from modules import images, shared
from PIL import Image

from depth2img import DepthMap, read_picture
from depth2img.depth.placement import Box, Placement, ResizeMode
from depth2img.depth.resolve import Framing, Mask
from depth2img.io.images import Picture

from ..hosts import compat
from .tiles import SCRIPT, Tile, tiles_of


@dataclasses.dataclass(frozen=True, eq=False)
class HostFrame:
    """The frame of a job's pictures.

    Attributes:
        size: width and height of the frame.
        resize_mode: how a picture of other proportions gets into it.
        pictures: as the user gave them; none in txt2img.
        box: the part of the picture that "Only masked" works on; None where the frame is the whole picture.
        mask: white = repaint, of the frame; None without one.
        whole_mask: the same of the whole picture, where there is a box.
        tiles: where each picture lies in the one that SD upscale works on; none elsewhere.
    """

    size: tuple[int, int]
    resize_mode: ResizeMode = ResizeMode.CROP_AND_RESIZE
    pictures: tuple[Image.Image, ...] = ()
    box: Box | None = None
    mask: Image.Image | None = None
    whole_mask: Image.Image | None = None
    tiles: tuple[Tile | None, ...] = ()

    @functools.cached_property
    def framings(self) -> list[Framing]:
        """The input of the decision about depth: one for all pictures, or one for each tile."""
        mask, whole_mask = _weights(self.mask), _weights(self.whole_mask)
        return [Framing(one, mask, whole_mask, self._has_original) for one in self._placements]

    @property
    def placement(self) -> Placement:
        """The position of the frame in the first picture."""
        return self._placements[0]

    @functools.cached_property
    def _placements(self) -> list[Placement]:
        if self.tiles:
            return [self._placement(tile) for tile in self.tiles]
        picture = self.pictures[0].size if self.pictures else self.size
        return [Placement(picture, self.size, self.box, self.resize_mode)]

    def _placement(self, tile: Tile | None) -> Placement:
        if tile is None:
            return Placement(self.size, self.size, None, self.resize_mode)
        return Placement(tile.whole.size, self.size, tile.box, self.resize_mode)

    @property
    def _has_original(self) -> bool:
        """False without a picture, and where the host's box reaches outside one because the mask has another size."""
        right, bottom = (0, 0) if self.box is None else self.box[2:]
        inside = all(right <= picture.width and bottom <= picture.height for picture in self.pictures)
        return bool(self.pictures) and inside

    @functools.cached_property
    def originals(self) -> list[Picture]:
        """The user's pictures, flattened as in the host, before they are resized, cropped or filled.

        For SD upscale it is the whole picture, upscaled. Equal ones are the same object.
        """
        tiled = dict(enumerate(self.tiles))
        sources = [picture if (tile := tiled.get(i)) is None else tile.whole for i, picture in enumerate(self.pictures)]
        background = shared.opts.img2img_background_color
        distinct = {id(source): source for source in sources}
        flat = {key: read_picture(images.flatten(source, background)) for key, source in distinct.items()}
        return [flat[id(source)] for source in sources]

    def at_picture_size(self, depth: DepthMap, whole: DepthMap | None, size: tuple[int, int]) -> DepthMap:
        """Bring a map in the frame to the size of a finished picture.

        Args:
            depth: the map in the frame.
            whole: the map of the whole picture, where it is known.
            size: width and height of the finished picture, which without the overlay is the box alone.

        Returns:
            The map at that size; where only a box of the picture is known, the rest is farthest.
        """
        if self.box is None or not compat.setting("overlay_inpaint", True):
            return depth.resized(*size)
        if whole is not None:
            return whole.resized(*size)
        left, top, right, bottom = self.box
        canvas = np.zeros((size[1], size[0]), np.float32)
        canvas[top:bottom, left:right] = depth.resized(right - left, bottom - top).normalised()
        return dataclasses.replace(depth, values=canvas)


def read_frame(p: Any, mask: Image.Image | None, script: str | None) -> HostFrame:
    """Read the frame from a job whose `init` is done but for the conditioning.

    Args:
        p: the job.
        mask: the host's mask in the frame, white = repaint; None without one.
        script: title of the script of the dropdown that runs the job.

    Raises:
        OptionError: the job has an unknown resize mode.
    """
    pictures = tuple(getattr(p, "init_images", None) or ())
    box = None
    # With a blank mask the host unsets `inpaint_full_res` and leaves the box of an earlier picture of the Batch tab.
    if getattr(p, "paste_to", None) is not None and getattr(p, "inpaint_full_res", False):
        left, top, width, height = p.paste_to
        box = left, top, left + width, top + height
    found = tiles_of(pictures) if script == SCRIPT and box is None else ()
    return HostFrame(
        (p.width, p.height),
        ResizeMode(getattr(p, "resize_mode", ResizeMode.CROP_AND_RESIZE)),
        pictures,
        box,
        mask,
        p.mask_for_overlay if box is not None and mask is not None else None,
        found if any(found) else (),
    )


def _weights(mask: Image.Image | None) -> Mask | None:
    return None if mask is None else np.asarray(mask.convert("L"), np.float32) / 255
