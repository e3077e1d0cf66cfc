"""Pictures as files, with their infotext where the WebUI reads it."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import OptionError
from .atomic import write_file
from .images import decoding, open_image, read_file
from .pairing import PICTURE_KINDS

EXIF_FOLDER: Final = 0x8769
USER_COMMENT: Final = 0x9286
"""EXIF's tags of the sub-IFD and of the field in it (EXIF 2.3, 4.6.5)."""

LARGEST_EXIF: Final = 65533
"""Most bytes that a JPEG segment can hold."""


def picture_path(path: Path) -> Path:
    """Return the path, after checking that its suffix is one of `PICTURE_KINDS`.

    Raises:
        OptionError: it is not.
    """
    if path.suffix.lower() not in PICTURE_KINDS:
        raise OptionError(
            "output", "A picture is written as .png, .jpg or .webp.", got=f"'{path.name}'", fix="Change the suffix."
        )
    return path


def save_picture(picture: npt.NDArray[np.uint8] | Image.Image, path: Path, *, infotext: str = "") -> None:
    """Write a picture, in the format of its suffix.

    Args:
        picture: uint8 (H, W), (H, W, 3) or a Pillow image.
        path: the file.
        infotext: its parameters, written where the WebUI reads them: in the text chunk `parameters` of a PNG, in
            EXIF's `UserComment` of a JPEG or WebP, unless it is too long for that (some 32,000 characters).

    Raises:
        OptionError: the suffix is not in `PICTURE_KINDS`.
        Depth2ImgError: the folder cannot be written.
    """
    kind = PICTURE_KINDS[picture_path(path).suffix.lower()]
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    content = io.BytesIO()
    image.save(content, kind, quality=95, **_notes(kind, infotext))
    write_file(path, content.getvalue(), what="The picture")


def read_infotext(path: Path) -> str:
    """Return the infotext of a picture file, as `save_picture` and the WebUI write it; empty without one.

    Raises:
        PictureError: the file cannot be read as a picture.
    """
    image = open_image(read_file(path))
    found = image.info.get("parameters")
    if isinstance(found, str):
        return found
    with decoding(f"The EXIF of {path.name} cannot be read.", fix="Save it again."):
        exif: Any = image.getexif()
        comment = exif.get_ifd(EXIF_FOLDER).get(USER_COMMENT, b"")
    if not isinstance(comment, bytes) or not comment.startswith(b"UNICODE\0"):
        return ""
    text = comment[8:]
    return text.decode("utf-16-le" if text[1:2] == b"\0" else "utf-16-be", "replace")


def _notes(kind: str, infotext: str) -> dict[str, Any]:
    """Build the arguments with which `Image.save` writes an infotext into a picture of a format."""
    if not infotext:
        return {}
    if kind == "PNG":
        notes = PngInfo()
        notes.add_text("parameters", infotext)
        return {"pnginfo": notes}
    exif = _user_comment(infotext)
    return {"exif": exif} if len(exif) <= LARGEST_EXIF else {}


def _user_comment(text: str) -> bytes:
    """Build EXIF with only a comment, of type "undefined" as readers want it; Pillow would write type "byte"."""
    content = b"UNICODE\0" + text.encode("utf-16-be")
    header = struct.pack(">2sHI", b"MM", 42, 8)  # TIFF, big-endian; the first folder is 8 bytes from its start
    first = struct.pack(">HHHIII", 1, EXIF_FOLDER, 4, 1, 26, 0)  # one entry, a pointer to 26; no further folder
    second = struct.pack(">HHHIII", 1, USER_COMMENT, 7, len(content), 44, 0)
    return b"Exif\0\0" + header + first + second + content
