"""The DepthMap value: what it is, how it is read, written and shown."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import struct
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from . import images
from .errors import DepthMapError
from .files import write_file
from .png import plain_png

LARGEST: Final = 1e30
"""Largest magnitude of a depth value, so that differences and bicubic sums stay finite in float32."""

GREY_TOLERANCE: Final = 0.03
"""How far the three channels of a grey picture may lie apart, as a part of full scale: JPEG's colour rounding."""

EXR_MAGIC: Final = b"\x76\x2f\x31\x01"

ORIENTATION_TAG: Final = 0x0112
"""EXIF's tag of the orientation."""

WIDTH_TAG, HEIGHT_TAG, BITS_TAG, MAX_TAGS = 256, 257, 258, 4096
"""TIFF's tags of the size and of the bits per channel, and how many tags of a directory are looked at."""

COLOUR_MAPS: Final = {
    "grey": None,
    "inferno": cv2.COLORMAP_INFERNO,
    "magma": cv2.COLORMAP_MAGMA,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "turbo": cv2.COLORMAP_TURBO,
}
"""Name -> OpenCV colour map of `DepthMap.to_image`; near is the bright end."""


def check_colour_map(name: str) -> None:
    """Refuse a name that is not in `COLOUR_MAPS`.

    Raises:
        DepthMapError: it is not.
    """
    if name not in COLOUR_MAPS:
        raise DepthMapError(f"There is no colour map '{name[:40]}'.", fix=f"Use {', '.join(COLOUR_MAPS)}.")


Span = tuple[float, float]
"""Two values of a map: what counts as farthest and as nearest."""


@dataclasses.dataclass(frozen=True, eq=False)
class DepthMap:
    """Relative inverse depth, **larger = nearer** (MiDaS' sense, white = near).

    Attributes:
        values: float32 (H, W), finite, C-contiguous and read-only; an estimator's raw values at its own resolution,
            or a file's values at the file's.
        origin: where it came from: an estimator's name or a file format, for display.
        bits: bits per value of the file it was read from, None if it was estimated.
        notice: one sentence on how it came about that its user should see; empty as a rule.

    Raises:
        DepthMapError: the array is not two-dimensional, empty, too large or not finite.
    """

    values: npt.NDArray[np.float32]
    origin: str = "array"
    bits: int | None = None
    notice: str = ""

    def __post_init__(self) -> None:
        values = self.values
        if values.ndim != 2:
            raise DepthMapError(
                "A depth map must have two dimensions, height and width.",
                got=f"shape {values.shape}",
                fix="Give one channel.",
            )
        images.check_size(values.shape[1], values.shape[0], DepthMapError)
        if not np.isfinite(values).all() or float(np.abs(values).max()) > LARGEST:
            raise DepthMapError(
                "The depth map contains NaN, infinity or values beyond 1e30.",
                got=f"{int((~np.isfinite(values)).sum()):,} values that are not finite out of {values.size:,}",
                fix="Replace them with the farthest finite value before using it.",
            )
        values = np.array(values, dtype=np.float32, order="C")
        values.setflags(write=False)
        object.__setattr__(self, "values", values)

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.values.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.values.shape[1])

    @property
    def range(self) -> tuple[float, float]:
        """Smallest (farthest) and largest (nearest) value."""
        return float(self.values.min()), float(self.values.max())

    def normalised(self, span: Span | None = None) -> npt.NDArray[np.float32]:
        """Values stretched to 0 (farthest) .. 1 (nearest), float32 (H, W); a flat range gives 0.5 everywhere.

        Args:
            span: what is farthest and nearest, to which values are limited; None for the map's own extremes.
        """
        low, high = self.range if span is None else span
        if high <= low:
            return np.full(self.values.shape, 0.5, np.float32)
        stretched = (self.values.astype(np.float64) - low) / (high - low)
        return np.clip(stretched, 0.0, 1.0).astype(np.float32)

    def resized(self, width: int, height: int) -> DepthMap:
        """The map at another size: cubic when it grows, area average when it shrinks on both sides."""
        if (width, height) == (self.width, self.height):
            return self
        images.check_size(width, height, DepthMapError)
        shrinks = width <= self.width and height <= self.height
        method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        values = np.asarray(cv2.resize(self.values, (width, height), interpolation=method), np.float32)
        return dataclasses.replace(self, values=np.clip(values, *self.range))

    def cropped(self, left: int, top: int, right: int, bottom: int) -> DepthMap:
        """Columns left..right and rows top..bottom, ends excluded.

        Raises:
            DepthMapError: the box is empty or reaches outside.
        """
        if not (0 <= left < right <= self.width and 0 <= top < bottom <= self.height):
            raise DepthMapError(
                "The crop box does not lie inside the depth map.",
                got=f"box ({left}, {top}, {right}, {bottom}) in {self.width} x {self.height}",
            )
        return dataclasses.replace(self, values=self.values[top:bottom, left:right])

    def to_image(self, colour_map: str = "grey") -> Image.Image:
        """An 8-bit RGB picture of the map, white (or the colour map's bright end) = near.

        Raises:
            DepthMapError: `colour_map` is not in `COLOUR_MAPS`.
        """
        check_colour_map(colour_map)
        grey = np.round(self.normalised() * 255).astype(np.uint8)
        table = COLOUR_MAPS[colour_map]
        if table is None:
            return Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2))
        return Image.fromarray(np.ascontiguousarray(cv2.applyColorMap(grey, table)[:, :, ::-1]))

    def to_png(self) -> bytes:
        """A 16-bit grey PNG, the range stretched to 0..65535, 65535 = nearest."""
        sixteen = np.round(self.normalised().astype(np.float64) * 65535).astype(np.uint16)
        done, content = cv2.imencode(".png", sixteen)
        if not done:
            raise DepthMapError("The depth map cannot be written as PNG.", got=f"{self.width} x {self.height}")
        return bytes(content.tobytes())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `.png` (16-bit, stretched), `.tiff`/`.tif` (float32, raw values) or `.npy` (float32, raw values).

        The file appears whole or not at all.

        Raises:
            DepthMapError: the suffix is another, or the folder cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix == ".png":
            content = self.to_png()
        elif suffix in (".tif", ".tiff"):
            content = bytes(cv2.imencode(".tiff", self.values)[1].tobytes())
        elif suffix == ".npy":
            buffer = io.BytesIO()
            np.save(buffer, self.values, allow_pickle=False)
            content = buffer.getvalue()
        else:
            raise DepthMapError(
                "A depth map is written as .png, .tiff or .npy.", got=f"'{path.name}'", fix="Change the suffix."
            )
        write_file(path, content, DepthMapError, what="The depth map")


def read_depth_map(source: object) -> DepthMap:
    """A depth map from what a user gives; larger (whiter) values are taken as nearer.

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
    """What OpenCV is to decode, None where Pillow loses no bit: it has no 16-bit pictures of several channels.

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
