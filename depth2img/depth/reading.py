"""A depth map from what a user gives: files of all formats, arrays, pictures."""

from __future__ import annotations

import contextlib
import io
import os
import struct
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ..errors import DepthMapError
from ..io import images
from ..io.png import plain_png
from .depth_map import DepthMap

GREY_TOLERANCE: Final = 0.03
"""Largest difference between the channels of a grey picture, as a part of full scale: JPEG's colour rounding."""


EXR_MAGIC: Final = b"\x76\x2f\x31\x01"


ORIENTATION_TAG: Final = 0x0112
"""EXIF's tag of the orientation."""


WIDTH_TAG, HEIGHT_TAG, BITS_TAG, MAX_TAGS = 256, 257, 258, 4096
"""TIFF's tags of the size and of the bits per channel, and how many tags of a directory are looked at."""


def read_depth_map(source: object) -> DepthMap:
    """Read a depth map from what a user gives; larger (whiter) values are taken as nearer.

    Args:
        source: a `DepthMap`, a path (`os.PathLike`), file content (`bytes`), base64 or a data URL (`str`), a Pillow
            image, or an array (H, W) of any real type. Files: PNG and TIFF (8 or 16 bits, float), .npy, EXR where
            OpenCV's reader is switched on, and the formats of `images.FORMATS`; no bit is lost. Of a grey picture
            stored as RGB one channel is taken; an alpha channel is ignored.

    Raises:
        DepthMapError: it is none of these, damaged, in colour, too large or not finite.
    """
    if isinstance(source, DepthMap):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source, "array", None)
    if isinstance(source, Image.Image):
        images.check_size(*source.size, DepthMapError)
        return _from_array(*_decoded(source))
    if isinstance(source, os.PathLike):
        return _from_content(images.read_file(source, DepthMapError))
    if isinstance(source, (str, bytes)):
        return _from_content(images.payload_bytes(source, DepthMapError))
    raise DepthMapError(
        "This is no depth map.", got=type(source).__name__, fix="Give a PNG, TIFF or .npy file, or an array."
    )


def _from_content(content: bytes) -> DepthMap:
    if content[:6] == b"\x93NUMPY":
        return _from_array(_read_npy(content), "NPY", None)
    if content[:4] == EXR_MAGIC:
        return _from_array(_read_exr(content), "EXR", 32)
    image = images.open_image(content, DepthMapError)
    kept = _for_opencv(content, image)
    if kept is None:
        return _from_array(*_decoded(image))
    with images.decoding("The depth map is damaged.", fix="Save it anew.", error=DepthMapError):
        array = cv2.imdecode(np.frombuffer(kept, np.uint8), cv2.IMREAD_UNCHANGED)
        if array is None or array.shape[:2] != (image.height, image.width):
            raise ValueError("OpenCV does not read it")
        upright = _upright(np.asarray(array), image.getexif().get(ORIENTATION_TAG))
    return _from_array(upright, image.format or "picture", array.dtype.itemsize * 8)


def _for_opencv(content: bytes, image: Image.Image) -> bytes | None:
    """Choose the content for OpenCV to decode, None where Pillow loses no bit: it has no 16-bit colour pictures.

    OpenCV gets no more than it must: its decoders crash on some damaged files (4.11 on animated PNGs).
    """
    if image.format == "PNG" and content[24:25] == b"\x10" and content[25:26] in (b"\2", b"\4", b"\6"):
        with images.decoding("The depth map is damaged.", fix="Save it anew.", error=DepthMapError):
            return plain_png(content, image.size)
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(BITS_TAG, ())
        # A file may say its size twice: Pillow believes the last, OpenCV the first, and allocates it.
        if len(bits) > 1 and max(bits) > 8 and _first_size(content) == image.size:
            return content
    return None


def _read_exr(content: bytes) -> npt.NDArray[Any]:
    """OpenCV has the format, but opens it only where the user has said that files are to be trusted so far."""
    with images.decoding("The EXR file is damaged.", fix="Save it anew.", error=DepthMapError):
        left, top, right, bottom = _exr_window(content)
        # Before anything of the size that the header claims is allocated.
        images.check_size(right - left + 1, bottom - top + 1, DepthMapError)
    try:
        array = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as problem:
        raise DepthMapError(
            "OpenCV does not read this EXR file.",
            got="its EXR reader is switched off" if "disabled" in str(problem) else str(problem)[:80],
            fix="Save it as TIFF with floats, or start with OPENCV_IO_ENABLE_OPENEXR=1 if you trust your files.",
        ) from problem
    if array is None:
        raise DepthMapError("The EXR file is damaged.", fix="Save it anew.")
    return np.asarray(array)


def _exr_window(content: bytes) -> tuple[int, int, int, int]:
    """`dataWindow` of the header: a list of name, type, size and value that ends with an empty name."""
    at = 8
    while content[at] != 0:
        name_end = content.index(0, at)
        type_end = content.index(0, name_end + 1)
        (size,) = struct.unpack_from("<i", content, type_end + 1)
        if size < 0:
            raise ValueError("an attribute of negative size")
        if content[at:name_end] == b"dataWindow":
            left, top, right, bottom = struct.unpack_from("<4i", content, type_end + 5)
            return left, top, right, bottom
        at = type_end + 5 + size
    raise ValueError("no dataWindow")


def _first_size(content: bytes) -> tuple[int, int] | None:
    """Width and height as a TIFF or BigTIFF says them first: tags 256 and 257 of its first directory."""
    order = "<" if content[:2] == b"II" else ">"
    big = content[2:4] in (b"+\0", b"\0+")
    count_type, entry_type, size = ("Q", "HHQ", 20) if big else ("H", "HHI", 12)
    found: dict[int, int] = {}
    with contextlib.suppress(struct.error):
        (at,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", content, 8 if big else 4)
        (count,) = struct.unpack_from(order + count_type, content, at)
        at += struct.calcsize(order + count_type)
        for entry in range(at, at + size * min(count, MAX_TAGS), size):
            tag, kind, _ = struct.unpack_from(order + entry_type, content, entry)
            if tag in (WIDTH_TAG, HEIGHT_TAG) and tag not in found:
                number = {3: "H", 4: "I", 16: "Q"}.get(kind, "I")
                (found[tag],) = struct.unpack_from(order + number, content, entry + size - (8 if big else 4))
    return (found[WIDTH_TAG], found[HEIGHT_TAG]) if len(found) == 2 else None


def _upright(array: npt.NDArray[Any], orientation: object) -> npt.NDArray[Any]:
    """EXIF orientation applied: 2 to 8 are a mirroring, for 5 to 8 after swapping rows and columns."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array


def _decoded(image: Image.Image) -> tuple[npt.NDArray[Any], str, int | None]:
    with images.decoding("The depth map is damaged.", fix="Save it anew.", error=DepthMapError):
        upright = ImageOps.exif_transpose(image) or image
        if upright.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "1"):
            upright = upright.convert("RGB")
        array = np.asarray(upright)
    bits = array.dtype.itemsize * 8
    return array, image.format or "picture", min(bits, 16) if image.format == "PNG" else bits


def _read_npy(content: bytes) -> npt.NDArray[Any]:
    npy: Any = np.lib.format  # numpy 1.26 does not type it
    with images.decoding(
        "The .npy file holds no depth map.", fix="Save a two-dimensional array of numbers.", error=DepthMapError
    ):
        file = io.BytesIO(content)
        version = npy.read_magic(file)
        reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = reader(file)
        # All of it before anything of the size that the header claims is allocated.
        if dtype.kind not in "biuf" or not (len(shape) == 2 or (len(shape) == 3 and 1 <= shape[2] <= 4)):
            raise ValueError(f"shape {shape}, type {dtype}")
        images.check_size(shape[1], shape[0], DepthMapError)
        return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))


def _from_array(array: npt.NDArray[Any], origin: str, bits: int | None) -> DepthMap:
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == np.bool_) or np.iscomplexobj(array):
        raise DepthMapError("A depth map must hold real numbers.", got=f"{array.dtype}", fix="Convert it first.")
    if array.ndim == 3 and 1 <= array.shape[2] <= 4:
        array = _one_channel(array)
    with np.errstate(over="ignore"):
        return DepthMap(values=array.astype(np.float32), origin=origin, bits=bits)


def _one_channel(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The grey channel of (H, W, 1), (H, W, 2: grey, alpha), (H, W, 3) or (H, W, 4)."""
    if array.shape[2] < 3:
        return array[:, :, 0]
    colour = array[:, :, :3]
    scale = float(np.iinfo(array.dtype).max) if np.issubdtype(array.dtype, np.integer) else 1.0
    apart = float((colour.max(axis=2).astype(np.float64) - colour.min(axis=2)).max()) if colour.size else 0.0
    if not apart <= GREY_TOLERANCE * scale:
        raise DepthMapError(
            "The depth map is a colour picture.",
            got=f"channels up to {apart / scale:.0%} apart",
            fix="Give a grey map, white = near, or use the picture as 'Another picture' to have its depth estimated.",
        )
    return colour[:, :, 1]
