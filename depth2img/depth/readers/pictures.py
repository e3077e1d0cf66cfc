"""Depth maps in picture formats: PNG, TIFF, JPEG and the rest of `images.FORMATS`; no bit is lost."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ...errors import DepthMapError
from ...io import images, phone
from ...io.png import plain_png
from . import tiff
from .raw import Raw, from_array

COLOUR_MODES: Final = ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "1")
"""Pillow's modes whose numbers are not grey or RGB yet."""


def read(content: bytes, channel: str) -> Raw:
    """Read a picture file as numbers; what Pillow does not know of TIFF goes to `tiff`.

    Of a phone's portrait with depth inside, that depth is read, not the portrait.

    Raises:
        DepthMapError: it is not a picture, damaged, too large or in colour.
    """
    with images.decoding("The depth map is damaged.", fix="Save it again.", error=DepthMapError):
        inside = phone.embedded_depth(content)
    if inside is not None:
        return _embedded(inside)
    try:
        image = images.open_image(content, DepthMapError)
        return _read(content, image, channel)
    except DepthMapError as problem:
        if not tiff.matches(content):
            raise
        # Its error names the kind of file; a size out of bounds is refused there, too.
        return _tiff(content, channel, problem)


def _embedded(inside: phone.Embedded) -> Raw:
    """Read the depth inside a picture as nearness: inverse depth, up to a linear scale where its units are unknown."""
    with images.decoding("The depth inside the picture is damaged.", fix="Save it alone.", error=DepthMapError):
        if isinstance(inside.image, bytes):
            image = images.open_image(inside.image, DepthMapError)
        else:
            width, height = inside.image.size
            images.check_size(width, height, DepthMapError)
            image = inside.image.to_pillow()
    grey = read_image(image, "")
    values = grey.values.astype(np.float32)
    scale = float(2 ** (grey.bits or 8) - 1)
    if inside.far:
        values = 1 / (inside.near + (inside.far - inside.near) * values / scale)
    elif inside.farther:
        values = scale - values
    notice = f"The depth map is the one inside the picture ({inside.origin})."
    return Raw(values, inside.origin, grey.bits, notice, nearness=True)


def _tiff(content: bytes, channel: str, problem: DepthMapError) -> Raw:
    try:
        return tiff.read(content, channel)
    except DepthMapError as other:
        raise other from problem


def read_image(image: Image.Image, channel: str) -> Raw:
    """Read a Pillow image as numbers.

    Raises:
        DepthMapError: it is damaged, too large or in colour.
    """
    images.check_size(*image.size, DepthMapError)
    with images.decoding("The depth map is damaged.", fix="Save it again.", error=DepthMapError):
        upright = ImageOps.exif_transpose(image) or image
        if upright.mode in COLOUR_MODES:
            upright = upright.convert("RGB")
        array = np.asarray(upright)
        if image.format == "PNG" and array.dtype == np.int32:  # Pillow 9.5's way with 16 bits
            array = array.astype(np.uint16)
    bits = array.dtype.itemsize * 8
    return from_array(array, image.format or "picture", bits, channel)


def _read(content: bytes, image: Image.Image, channel: str) -> Raw:
    if _has_deep_planes(image):
        return tiff.read(content, channel)
    kept = _for_opencv(content, image)
    if kept is None:
        return read_image(image, channel)
    with images.decoding("The depth map is damaged.", fix="Save it again.", error=DepthMapError):
        array: npt.NDArray[Any] | None = cv2.imdecode(np.frombuffer(kept, np.uint8), cv2.IMREAD_UNCHANGED)
        if array is None or array.shape[:2] != (image.height, image.width):
            raise ValueError("OpenCV does not read it")
        upright = tiff.upright(tiff.rgb(np.asarray(array)), image.getexif().get(tiff.ORIENTATION_TAG))
    return from_array(upright, image.format or "picture", array.dtype.itemsize * 8, channel)


def _has_deep_planes(image: Image.Image) -> bool:
    """Tell whether a TIFF has channels of more than 8 bits in planes of their own, which OpenCV mixes up."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    return tags.get(tiff.PLANAR_TAG) == tiff.PLANES and max(tags.get(tiff.BITS_TAG, (8,))) > 8


def _for_opencv(content: bytes, image: Image.Image) -> bytes | None:
    """Return the bytes that OpenCV decodes; None where Pillow, which has no 16-bit colour, loses no bit.

    OpenCV gets no more than it must: its decoders crash on some damaged files (4.11 on animated PNGs).
    """
    if image.format == "PNG" and content[24:25] == b"\x10" and content[25:26] in (b"\2", b"\4", b"\6"):
        with images.decoding("The depth map is damaged.", fix="Save it again.", error=DepthMapError):
            return plain_png(content, image.size)
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(tiff.BITS_TAG, ())
        # A file may say its size twice: Pillow believes the last, OpenCV the first, and allocates it.
        if len(bits) > 1 and max(bits) > 8 and tiff.first_size(content) == image.size:
            return content
    return None
