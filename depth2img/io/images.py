"""Files, data URLs, base64, Pillow images and arrays -> checked pictures.

A picture is uint8 (H, W, 3) RGB, or float32 (H, W, 3) RGB in 0..1. Everything that arrives is untrusted: sizes are
read from headers and bounded before anything is decoded.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import io
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ..errors import Depth2ImgError, PictureError
from . import phone
from .atomic import refusing

Picture: TypeAlias = npt.NDArray[np.uint8]
"""uint8 (H, W, 3) RGB."""

FloatPicture: TypeAlias = npt.NDArray[np.float32]
"""float32 (H, W, 3) RGB, 0..1."""

MAX_PIXELS: Final = 64 * 1024 * 1024
"""Largest picture or depth map, in pixels: 8192 x 8192."""

MAX_SIDE: Final = 65_535
"""Longest side, in pixels."""

MAX_BYTES: Final = 256 * 1024 * 1024
"""Largest encoded file or base64 text, in bytes."""

FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Pillow decoders that are tried, besides HEIC and AVIF, see `phone`; the rest stay closed to untrusted data."""


STANDARD: Final = str.maketrans("-_", "+/")
"""base64url's letters -> base64's."""


@contextlib.contextmanager
def decoding(what: str, *, got: str = "", fix: str, error: type[Depth2ImgError] = PictureError) -> Iterator[None]:
    """Turn whatever a decoder of untrusted data raises into one error, and drop its warnings.

    Pillow, OpenCV and numpy promise no list: besides OSError and ValueError they raise SyntaxError, struct.error,
    tokenize.TokenError, RecursionError, cv2.error and more, depending on the damage.

    Raises:
        error: anything was raised inside. An error of this library passes as it is.
    """

    def describe(problem: Exception) -> str:
        return got or str(problem)[:80] or type(problem).__name__

    with refusing(what, error, on=(Exception,), got=describe, fix=fix), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_size(width: int, height: int, error: type[Depth2ImgError] = PictureError) -> None:
    """Refuse empty and over-large sizes.

    Raises:
        error: a side is 0 or longer than `MAX_SIDE`, or there are more than `MAX_PIXELS` pixels.
    """
    if width < 1 or height < 1:
        raise error("The picture is empty.", got=f"{width} x {height} pixels", fix="Choose another file.")
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise error(
            "The picture is too large.",
            got=f"{width} x {height} pixels",
            fix=f"Scale it down to at most {MAX_SIDE} pixels a side and {MAX_PIXELS // 2**20} megapixels.",
        )


def payload_bytes(payload: str | bytes, error: type[Depth2ImgError] = PictureError) -> bytes:
    """Return the file content in a payload: bytes as they are, text as base64, base64url or a data URL.

    Text is never taken for a path.

    Raises:
        error: the text is not base64, or there is more than `MAX_BYTES`.
    """
    # Base64 is a third longer than its content; what is much longer than that is not worth decoding.
    if isinstance(payload, str) and len(payload) <= MAX_BYTES * 3 // 2 + 128:
        text = payload.partition(",")[2] if payload[:5].lower() == "data:" else payload
        try:
            payload = _from_base64(text)
        except (binascii.Error, ValueError) as problem:
            raise error(
                "The text is neither base64 nor a data URL.",
                got=repr(text[:24]),
                fix="Encode the file's content with base64.",
            ) from problem
    if isinstance(payload, str) or len(payload) > MAX_BYTES:
        raise error("The file is too large.", got=f"{len(payload):,} bytes", fix=f"Send at most {MAX_BYTES:,} bytes.")
    if not payload:
        raise error("The file is empty.", fix="Choose another file.")
    return payload


def _from_base64(text: str) -> bytes:
    """Decode base64 of either alphabet (RFC 4648, sections 4 and 5), with or without padding, spaces ignored.

    Raises:
        ValueError: it is not base64.
    """
    # In a URL "+", "/" and "=" may be percent-encoded.
    text = "".join((unquote(text) if "%" in text else text).split()).translate(STANDARD)
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def read_file(path: str | os.PathLike[str], error: type[Depth2ImgError] = PictureError) -> bytes:
    """Read the content of a file, at most `MAX_BYTES`.

    Raises:
        error: the file is missing, unreadable or too large.
    """
    path, content = Path(path), b""
    try:
        # A pipe would keep us waiting and a device never end.
        regular = stat.S_ISREG(path.stat().st_mode)
        if regular:
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as problem:  # ValueError: a null character in the path
        raise error(
            f"The file {path.name} cannot be read.",
            got=getattr(problem, "strerror", None) or str(problem),
            fix="Check its name and permissions.",
        ) from problem
    if not regular:
        raise error(f"The file {path.name} cannot be read.", got="a folder, a pipe or a device", fix="Choose a file.")
    if len(content) > MAX_BYTES:
        got = f"more than {MAX_BYTES:,} bytes"
        raise error(f"The file {path.name} is too large.", got=got, fix="Choose another file.")
    return content


def open_image(content: bytes, error: type[Depth2ImgError] = PictureError) -> Image.Image:
    """Open a Pillow image and check its size; pixels are not decoded yet.

    Raises:
        error: the content is not a picture of a known format, or its size is out of bounds.
    """
    with decoding(
        "The file is not a picture that can be read.",
        got=f"{len(content):,} bytes starting with {content[:8]!r}",
        fix=f"Use one of {', '.join(FORMATS)}.",
        error=error,
    ):
        try:
            if phone.is_heif(content):
                image = phone.open_heif(content, functools.partial(check_size, error=error))
            else:
                image = Image.open(io.BytesIO(content), formats=FORMATS)
        except Image.DecompressionBombError as problem:
            # Pillow's own limit is a warning below 2x and an error above; ours is stricter and says what to do.
            raise error(
                "The picture is too large.",
                got=str(problem)[:80],
                fix=f"Scale it down to {MAX_PIXELS // 2**20} megapixels.",
            ) from problem
    check_size(*image.size, error)
    return image


def read_picture(source: object, *, background: tuple[int, int, int] = (255, 255, 255)) -> Picture:
    """Any kind of picture -> uint8 (H, W, 3) RGB.

    EXIF orientation is applied, transparency is composited on `background`, palettes, grey, CMYK and 16-bit pictures
    are converted to 8-bit RGB (16 bits by dividing by 257, rounded), and of an animation the first frame is taken.

    Args:
        source: a path (`os.PathLike`), file content (`bytes`), base64 or a data URL (`str`), a Pillow image, or an
            array (H, W), (H, W, 3) or (H, W, 4), uint8, uint16 or floating 0..1.
        background: colour behind transparent pixels, 0..255 each.

    Raises:
        PictureError: it is none of these, empty, too large, damaged or not finite.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, background)
    if isinstance(source, Image.Image):
        check_size(*source.size)
        return _from_image(source, background)
    if isinstance(source, os.PathLike):
        return _from_image(open_image(read_file(source)), background)
    if isinstance(source, (str, bytes)):
        return _from_image(open_image(payload_bytes(source)), background)
    raise PictureError(
        "This is not a picture.",
        got=type(source).__name__,
        fix="Give a path, file content, base64, a Pillow image or an array.",
    )


def to_float(picture: npt.NDArray[Any]) -> FloatPicture:
    """Convert a picture to float32 0..1; a floating one is returned unchanged.

    Args:
        picture: (H, W, 3), uint8 or float32.

    Raises:
        PictureError: the shape or the type is another.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype not in (np.uint8, np.float32):
        raise PictureError(
            "A picture must be uint8 or float32 of shape (H, W, 3).", got=f"{picture.dtype} {picture.shape}"
        )
    check_size(picture.shape[1], picture.shape[0])
    if picture.dtype == np.uint8:
        return picture.astype(np.float32) / np.float32(255)
    return picture


def _from_array(array: npt.NDArray[Any], background: tuple[int, int, int]) -> Picture:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise PictureError("A picture must be of shape (H, W), (H, W, 3) or (H, W, 4).", got=f"{array.shape}")
    check_size(array.shape[1], array.shape[0])
    if array.dtype == np.uint16:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise PictureError("The picture contains NaN or infinity.", fix="Replace them before passing it on.")
        array = np.round(np.clip(array, 0.0, 1.0) * 255).astype(np.uint8)
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        raise PictureError(
            "A picture must be uint8, uint16 or floating 0..1.", got=f"{array.dtype}", fix="Convert it first."
        )
    if array.ndim == 3 and channels == 1:
        array = array[:, :, 0]
    return _from_image(Image.fromarray(np.ascontiguousarray(array)), background)


def _from_image(image: Image.Image, background: tuple[int, int, int]) -> Picture:
    with decoding("The picture is damaged.", fix="Save it again."):
        image = ImageOps.exif_transpose(image) or image
        if image.mode.startswith("I"):
            image = Image.fromarray(_to_8_bit(np.asarray(image)))
        elif image.mode == "F":
            image = Image.fromarray(_from_array(np.asarray(image), background))
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            behind = Image.new("RGBA", image.size, (*background, 255))
            image = Image.alpha_composite(behind, image.convert("RGBA"))
        return np.array(image.convert("RGB"))


def _to_8_bit(values: npt.NDArray[Any]) -> Picture:
    """16-bit grey (Pillow modes I;16 and I) -> uint8 of the same shape."""
    return ((np.clip(values.astype(np.int64), 0, 65535) + 128) // 257).astype(np.uint8)
