"""Bring a picture and its mask into the frame of the sampler, and the result back into the picture.

The steps and their meanings are the WebUI's (modules/processing.py and modules/masking.py, 1.10.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from ..depth.placement import Box, Placement, ResizeMode
from ..depth.resolve import Framing, Mask
from ..errors import PictureError
from ..io.images import Picture
from .settings import SIDE_STEP, Settings

FILL_RADII: Final = (1 / 2, 1 / 8, 1 / 32, 1 / 64, 1 / 128)
"""Standard deviations of the blurs that fill the area under a mask, relative to the longer side, coarse to fine."""


@dataclass(frozen=True)
class Frame:
    """One picture as it enters the sampler.

    Attributes:
        picture: uint8 (h, w, 3), encoded, and the picture that depth is estimated from.
        mask: float32 (h, w) in the frame, None without one.
        whole: uint8 (H, W, 3), the picture that the result is pasted into.
        overlay: float32 (H, W), opacity of the result, None without a mask.
        box: the frame's box in `whole`, None if it is all of it.
        resize_mode: the way the picture was brought into the frame.
        original: uint8 (H, W, 3), the picture before it was resized, cropped or filled.
    """

    picture: Picture
    mask: Mask | None
    whole: Picture
    overlay: Mask | None
    box: Box | None
    resize_mode: ResizeMode
    original: Picture

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frame."""
        return self.picture.shape[1], self.picture.shape[0]

    @property
    def placement(self) -> Placement:
        """The position of the frame in the picture."""
        shown = self.original
        return Placement((shown.shape[1], shown.shape[0]), self.size, self.box, self.resize_mode)

    @property
    def framing(self) -> Framing:
        """The input of the decision about depth; see `resolve.resolve`."""
        return Framing(self.placement, self.mask, self.overlay)

    def finish(self, result: Picture) -> Picture:
        """Paste the result, uint8 (h, w, 3), into the picture, weighted by the overlay."""
        if self.overlay is None:
            return result
        laid = result
        if self.box is not None:
            laid = self.whole.copy()
            left, top, right, bottom = self.box
            # The crop was padded to the frame's proportions; the padding is cut off again.
            laid[top:bottom, left:right] = resize(result, right - left, bottom - top, ResizeMode.CROP_AND_RESIZE)
        shown = self.overlay[:, :, None]
        return np.round(self.whole * (1 - shown) + laid * shown).astype(np.uint8)


def frame_size(picture: Picture, settings: Settings, side: int) -> tuple[int, int]:
    """Choose width and height of the frame: as set, else the picture's with its shorter side at `side` pixels.

    Raises:
        PictureError: the proportions are so extreme that the frame would be longer than the settings allow.
    """
    height, width = picture.shape[:2]
    scale = side / min(width, height)
    wanted = settings.width or _multiple(width * scale), settings.height or _multiple(height * scale)
    if max(wanted) > 4 * side and not (settings.width and settings.height):
        raise PictureError(
            "The picture's proportions are too extreme.",
            got=f"{width} x {height} pixels",
            fix="Crop it, or set width and height.",
        )
    return wanted


def _multiple(length: float) -> int:
    return max(SIDE_STEP, round(length / SIDE_STEP) * SIDE_STEP)


def resize(picture: Picture, width: int, height: int, mode: ResizeMode) -> Picture:
    """Resize a picture by Lanczos; (H, W, 3) or (H, W), uint8.

    Args:
        picture: any size.
        width, height: wanted size.
        mode: stretch it, cut it around the middle, or fill it up with its own edges.
    """
    image = Image.fromarray(picture)
    if mode is ResizeMode.JUST_RESIZE or image.width * height == image.height * width:
        return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
    factors = (width / image.width, height / image.height)
    scale = max(factors) if mode is ResizeMode.CROP_AND_RESIZE else min(factors)
    inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    scaled = np.asarray(image.resize(inner, Image.Resampling.LANCZOS))
    if mode is ResizeMode.CROP_AND_RESIZE:
        left, top = max(0, (inner[0] - width) // 2), max(0, (inner[1] - height) // 2)
        return scaled[top : top + height, left : left + width]
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    around = [(top, height - inner[1] - top), (left, width - inner[0] - left), (0, 0)]
    return np.pad(scaled, around[: scaled.ndim], mode="edge")


def make_frame(picture: Picture, mask: npt.NDArray[np.uint8] | None, settings: Settings, side: int) -> Frame:
    """Bring a picture into the frame of the sampler.

    Args:
        picture: uint8 (H, W, 3).
        mask: uint8 (H, W) of the same size, 255 = repaint, or None.
        settings: the job's.
        side: the model's side in pixels, for a frame whose size is not set.

    Raises:
        PictureError: the mask has another size or masks nothing.
    """
    width, height = frame_size(picture, settings, side)
    mode = ResizeMode.named(settings.resize_mode)
    if mask is None:
        framed = resize(picture, width, height, mode)
        return Frame(framed, None, framed, None, None, mode, picture)
    if mask.shape != picture.shape[:2]:
        raise PictureError(
            "The mask has another size than the picture.",
            got=f"{mask.shape[1]} x {mask.shape[0]} for {picture.shape[1]} x {picture.shape[0]} pixels",
            fix="Save the mask at the picture's size.",
        )
    mask = _blurred(np.bitwise_not(mask) if settings.mask_invert else mask, settings.mask_blur)
    if not mask.any():
        raise PictureError("The mask masks nothing: it is all black.", fix="Paint white what is to be repainted.")
    framed, framed_mask = resize(picture, width, height, mode), resize(mask, width, height, mode)
    whole, overlay, box = framed, np.minimum(framed_mask * 2.0, 255), None
    if settings.inpaint_area == "only masked":
        box = crop_box(mask, settings.only_masked_padding, width, height)
        left, top, right, bottom = box
        whole, overlay = picture, mask.astype(np.float64)
        framed = resize(picture[top:bottom, left:right], width, height, ResizeMode.RESIZE_AND_FILL)
        framed_mask = resize(mask[top:bottom, left:right], width, height, ResizeMode.RESIZE_AND_FILL)
    if settings.masked_content != "original":
        framed = fill(framed, framed_mask)
    unit = framed_mask.astype(np.float32) / 255
    return Frame(framed, unit, whole, (overlay / 255).astype(np.float32), box, mode, picture)


def _blurred(mask: npt.NDArray[np.uint8], deviation: int) -> npt.NDArray[np.uint8]:
    if deviation == 0:
        return mask
    side = 2 * int(2.5 * deviation + 0.5) + 1
    return np.asarray(cv2.GaussianBlur(mask, (side, side), deviation), np.uint8)


def crop_box(mask: npt.NDArray[np.uint8], padding: int, width: int, height: int) -> Box:
    """Choose the box that "only masked" works on.

    It is the mask's bounding box, padded, and widened to the frame's proportions as far as the picture reaches.

    Args:
        mask: uint8 (H, W), not all 0.
        padding: pixels on each side.
        width, height: the frame.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    high, wide = mask.shape
    left, right = max(0, int(columns[0]) - padding), min(wide, int(columns[-1]) + 1 + padding)
    top, bottom = max(0, int(rows[0]) - padding), min(high, int(rows[-1]) + 1 + padding)
    if (right - left) * height > (bottom - top) * width:
        top, bottom = _widened(top, bottom, int((right - left) * height / width), high)
    else:
        left, right = _widened(left, right, int((bottom - top) * width / height), wide)
    return left, top, right, bottom


def _widened(start: int, end: int, length: int, limit: int) -> tuple[int, int]:
    """Widen a stretch to `length`, moved and cut to lie within 0..limit."""
    length = min(max(length, end - start), limit)
    start = min(max(0, start - (length - (end - start)) // 2), limit - length)
    return start, start + length


def fill(picture: Picture, mask: npt.NDArray[np.uint8]) -> Picture:
    """Fill the part under the mask with colours from around it, coarse first, then ever finer."""
    keep = 1.0 - mask.astype(np.float32)[:, :, None] / 255
    colours = picture.astype(np.float32) * keep
    total = float(keep.sum())
    filled = np.broadcast_to(colours.sum(axis=(0, 1)) / total if total > 0 else 127.5, picture.shape)
    longer = max(picture.shape[:2])
    for radius in FILL_RADII:
        weight = _smooth(keep[:, :, 0], radius * longer)[:, :, None]
        filled = filled * (1 - weight) + _smooth(colours, radius * longer)
    done: Picture = np.round(np.clip(filled * (1 - keep) + colours, 0, 255)).astype(np.uint8)
    return done


def _smooth(values: npt.NDArray[np.float32], deviation: float) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), deviation, borderType=cv2.BORDER_REFLECT), np.float32)


def latent_mask(mask: Mask, width: int, height: int) -> Mask:
    """Resize a mask to the latent's size, rounded to 0 or 1 as in the host: float32 (height, width)."""
    eight = Image.fromarray(np.round(mask * 255).astype(np.uint8))
    return np.around(np.asarray(eight.resize((width, height)), np.float32) / 255)
