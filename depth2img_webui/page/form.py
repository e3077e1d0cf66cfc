"""The img2img page's form, and the picture of the open tab as the host will bring it to the sampler."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import cv2
import numpy as np
from modules import images, masking, processing, shared
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from depth2img.depth.placement import Box, ResizeMode
from depth2img.io.images import Picture, check_size, read_picture

from ..hosts import compat
from ..jobs.host_frame import HostFrame
from . import canvas
from .canvas import SKETCH_ORIGINAL

SETTINGS: Final = {
    "img_inpaint_mask": "mask",
    "img2img_mask_blur": "mask_blur",
    "img2img_mask_alpha": "mask_alpha",
    "img2img_mask_mode": "mask_invert",
    "img2img_inpainting_fill": "fill",
    "img2img_inpaint_full_res": "only_masked",
    "img2img_inpaint_full_res_padding": "padding",
    "resize_mode": "resize_mode",
    "img2img_width": "width",
    "img2img_height": "height",
    "img2img_scale": "scale",
    SKETCH_ORIGINAL: "original",
}
"""The host's other components -> field of `Form`."""


@dataclasses.dataclass(frozen=True)
class Form:
    """The values of the img2img page besides the pictures of its tabs, as the host has them.

    `strokes` are what was drawn on the canvases of the first tabs, None in hosts without canvases.
    """

    mask: Any = None
    mask_blur: float = 4
    mask_alpha: float = 0
    mask_invert: int = 0
    fill: int = 1
    only_masked: int = 0
    padding: float = 32
    resize_mode: int = 0
    width: float = 512
    height: float = 512
    scale: float = 1
    original: Any = None
    strokes: tuple[Image.Image | None, ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Framed:
    """A picture on its way into the sampler.

    Attributes:
        picture: uint8 (h, w, 3) as it enters; None without one.
        frame: its frame.
    """

    picture: Picture | None
    frame: HostFrame


def frame(tab: int, scale_tab: int, pictures: tuple[Any, ...], form: Form) -> Framed:
    """Bring the picture of the open tab into the sampler's frame as the host will.

    The steps are those of `img2img()` (modules/img2img.py) and `StableDiffusionProcessingImg2Img.init`
    (modules/processing.py) and call the same functions of the host.
    """
    held = pictures[tab] if 0 <= tab < len(pictures) else None
    image, mask = _opened(tab, held, form)
    width, height = int(form.width), int(form.height)
    if scale_tab == 1 and image is not None:
        multiple = 1 if form.strokes is None else 8  # as the host with canvases does
        width, height = (int(side * form.scale) // multiple * multiple for side in image.size)
    check_size(width, height)
    mode = ResizeMode(int(form.resize_mode))
    if image is None:
        return Framed(None, HostFrame((width, height), mode))
    check_size(*_largest_on_the_way(image.size, width, height))
    flat = images.flatten(image, shared.opts.img2img_background_color)
    box = _crop_box(mask, form, width, height)
    whole_mask = None if box is None else mask
    if box is not None:
        flat = images.resize_image(ResizeMode.RESIZE_AND_FILL, flat.crop(box), width, height)
        mask = images.resize_image(ResizeMode.RESIZE_AND_FILL, mask.convert("L").crop(box), width, height)
    elif mode is not ResizeMode.LATENT_UPSCALE:
        flat = images.resize_image(mode, flat, width, height)
    if mask is not None and box is None:
        mask = None if form.only_masked else images.resize_image(mode, mask, width, height)
    if mask is not None and form.fill != 1:
        flat = masking.fill(flat, mask)
    return Framed(read_picture(flat), HostFrame((width, height), mode, (image,), box, mask, whole_mask))


def _largest_on_the_way(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """Size of a picture before "Crop and resize" crops it: a strip becomes very long."""
    scale = max(width / size[0], height / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _opened(tab: int, held: Any, form: Form) -> tuple[Any, Any]:
    """Picture and mask (blurred, None without one) of the open tab."""
    image, mask = held, None
    if form.strokes is not None and 0 <= tab < len(form.strokes):
        image, mask = canvas.opened(tab, held, form.strokes[tab])
    elif isinstance(held, dict):
        image, mask = held["image"], held["mask"]
    elif tab == canvas.INPAINT_SKETCH and held is not None:
        original = form.original if isinstance(form.original, Image.Image) else held
        drawn = np.any(np.array(held) != np.array(original), axis=-1) if original.size == held.size else None
        if drawn is not None:
            mask = ImageEnhance.Brightness(Image.fromarray(drawn.astype(np.uint8) * 255, "L")).enhance(
                1 - form.mask_alpha / 100
            )
            blur = ImageFilter.GaussianBlur(form.mask_blur)
            image = Image.composite(held.filter(blur), original, mask.filter(blur))
    elif tab == canvas.INPAINT_UPLOAD:
        mask = form.mask
    image, mask = compat.upright(image), compat.upright(mask)
    if mask is None or image is None:
        return image, None
    if form.strokes is not None:
        mask = canvas.without_greys(mask)
    mask = processing.create_binary_mask(mask)
    if form.mask_invert:
        mask = ImageOps.invert(mask)
    if form.mask_blur > 0:
        side = 2 * int(2.5 * form.mask_blur + 0.5) + 1
        blurred = cv2.GaussianBlur(np.array(mask), (side, 1), form.mask_blur)
        mask = Image.fromarray(cv2.GaussianBlur(blurred, (1, side), form.mask_blur))
    return image, mask


def _crop_box(mask: Any, form: Form, width: int, height: int) -> Box | None:
    if mask is None or not form.only_masked:
        return None
    box = compat.crop_box(mask.convert("L"), int(form.padding))
    if box is None:
        return None
    left, top, right, bottom = masking.expand_crop_region(box, width, height, mask.width, mask.height)
    return left, top, right, bottom
