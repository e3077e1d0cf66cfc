"""TIFF files that Pillow does not know: half and double floats, planes, floats in three channels."""

from __future__ import annotations

import contextlib
import io
import logging
import struct
import zlib
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from ...errors import DepthMapError
from ...io import images
from .raw import Raw, from_array

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what is wrong with a file is for our errors to say

MAGICS: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""TIFF and BigTIFF, of either byte order."""

UNCOMPRESSED, DEFLATE = 1, (8, 32946)
"""TIFF's numbers of the compressions that are unpacked here; OpenCV has others."""

PACKED: Final = {5: "lzw", 32773: "packbits", 50000: "zstd"}
"""TIFF's numbers of the compressions that the package imagecodecs unpacks, where it is installed, and its names.

OpenCV knows the first two, but not of half and double floats.
"""

PREDICTORS: Final = {False: (1, 2), True: (1, 2, 3)}
"""True with imagecodecs installed, False without -> TIFF's numbers of the predictors that tifffile can undo."""

MOST_BYTES: Final = 2 * images.MAX_BYTES
"""Unpacked size of all channels: the largest map in float64."""

FORMATS: Final = {1: "unsigned", 2: "signed", 3: "float"}
"""TIFF's numbers of sample formats."""

WIDTH_TAG, HEIGHT_TAG, BITS_TAG, ORIENTATION_TAG, MAX_TAGS = 256, 257, 258, 274, 4096
"""TIFF's tags of the size, of the bits per channel and of the orientation, and how many tags are looked at."""

PLANAR_TAG, PLANES = 284, 2
"""TIFF's tag of where channels lie, and its value where each has a plane of its own."""

SIMPLER: Final = "Save it as 32-bit float or 16-bit grey without compression."


def matches(content: bytes) -> bool:
    """Tell whether the content begins as a TIFF file does."""
    return content[:4] in MAGICS


def read(content: bytes, channel: str) -> Raw:
    """Read the first page of a TIFF file of 1 to 4 channels, by tifffile or OpenCV.

    Raises:
        DepthMapError: it is damaged, too large, or of a kind that nothing here reads; the message says of which.
    """
    try:
        import tifffile
    except ModuleNotFoundError as problem:
        raise DepthMapError(
            "TIFF files of this kind are read by the package tifffile, which is not installed.",
            fix="Run: pip install tifffile",
        ) from problem
    with images.decoding("The TIFF file is damaged.", fix="Save it again.", error=DepthMapError):
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            page: Any = file.pages[0]
            kind = _described(page)
            _check(page, kind)
            codecs = _codecs()
            known = (UNCOMPRESSED, *DEFLATE, *(PACKED if codecs else ()))
            if page.compression in known and page.predictor in PREDICTORS[codecs is not None]:
                array = _unpacked(page, kind, codecs)
            else:
                planar = page.planarconfig == PLANES and page.samplesperpixel > 1
                array = _by_opencv(content, page.imagewidth, page.imagelength, planar, kind)
            orientation = page.tags.valueof(ORIENTATION_TAG)
        return from_array(upright(array, orientation), "TIFF", array.dtype.itemsize * 8, channel)


def _codecs() -> Any:
    """Import imagecodecs; None where it is not installed."""
    try:
        import imagecodecs
    except ModuleNotFoundError:
        return None
    return imagecodecs


def upright(array: npt.NDArray[Any], orientation: object) -> npt.NDArray[Any]:
    """Apply EXIF's orientation: 2 to 8 are a mirroring, for 5 to 8 after swapping rows and columns."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array


def _described(page: Any) -> str:
    """Name the kind of a page: bits, format, channels, compression."""
    what = FORMATS.get(page.sampleformat, "unknown")
    packed = getattr(page.compression, "name", str(page.compression))
    return f"{page.bitspersample} bits {what}, {page.samplesperpixel} channels, compression {packed}"


def _check(page: Any, kind: str) -> None:
    """Bound everything that will be allocated.

    Raises:
        DepthMapError: too large, or not a picture of 1 to 4 channels.
    """
    images.check_size(page.imagewidth, page.imagelength, DepthMapError)
    if page.is_tiled:
        images.check_size(page.tilewidth, page.tilelength, DepthMapError)
    if page.dtype is None or page.imagedepth != 1 or page.samplesperpixel not in (1, 2, 3, 4):
        raise DepthMapError("This kind of TIFF file is not read.", got=kind, fix=SIMPLER)
    sides = [(page.imagewidth, page.imagelength), (page.tilewidth, page.tilelength) if page.is_tiled else (0, 0)]
    if max(width * height for width, height in sides) * page.samplesperpixel * page.dtype.itemsize > MOST_BYTES:
        raise DepthMapError("The TIFF file is too large.", got=kind, fix="Save one channel alone.")


def _unpacked(page: Any, kind: str, codecs: Any) -> npt.NDArray[Any]:
    """(H, W) or (H, W, C) by tifffile.

    Raises:
        DepthMapError: a part would unpack to more than it should.
    """
    if page.compression != UNCOMPRESSED:
        rows = page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength)
        columns = page.tilewidth if page.is_tiled else page.imagewidth
        bands = page.samplesperpixel if page.planarconfig == 1 else 1
        most = rows * columns * bands * page.dtype.itemsize
        file = page.parent.filehandle
        for offset, size in zip(page.dataoffsets, page.databytecounts, strict=False):
            file.seek(offset)
            # tifffile unpacks without a bound.
            if _length(page.compression, file.read(size), most + 1, codecs) > most:
                raise DepthMapError("The TIFF file is damaged.", got=f"too much data in {kind}", fix="Save it again.")
    array = np.asarray(page.asarray(maxworkers=1))
    # Planes of their own come first.
    return np.moveaxis(array, 0, 2) if array.ndim == 3 and page.planarconfig == PLANES else array


def _length(compression: int, packed: bytes, most: int, codecs: Any) -> int:
    """Return the unpacked length of a part, of which not more than `most` bytes are unpacked."""
    if compression in DEFLATE:
        return len(zlib.decompressobj().decompress(packed, most))
    return len(getattr(codecs, f"{PACKED[compression]}_decode")(packed, out=most))  # Zstandard raises for more


def _by_opencv(content: bytes, width: int, height: int, planar: bool, kind: str) -> npt.NDArray[Any]:
    """(H, W) or (H, W, C), red first, by OpenCV's libtiff, which mixes up channels that have planes of their own.

    Raises:
        DepthMapError: it does not read this kind.
    """
    array = None
    if not planar and first_size(content) == (width, height):
        try:
            array = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            array = None
    if array is None or array.shape[:2] != (height, width):
        fix = SIMPLER if _codecs() else f"{SIMPLER} Some compressions are read with: pip install imagecodecs"
        raise DepthMapError("This kind of TIFF file is not read.", got=kind, fix=fix)
    return rgb(np.asarray(array))


def rgb(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Turn OpenCV's order of three or four channels into red, green, blue, alpha."""
    return array[:, :, [2, 1, 0, 3][: array.shape[2]]] if array.ndim == 3 and array.shape[2] >= 3 else array


def first_size(content: bytes) -> tuple[int, int] | None:
    """Return width and height as a TIFF or BigTIFF says them first: tags 256 and 257 of its first directory."""
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
