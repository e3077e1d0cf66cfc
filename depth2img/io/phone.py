"""Read what phones write: HEIC and AVIF pictures, and the depth inside a portrait.

Sources: ISO/IEC 23008-12 (HEIF); Google's "Depthmap metadata" (GDepth) and "Dynamic Depth" 1.0; Adobe's XMP
specification, part 3, for how JPEG carries XMP.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import io
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

from PIL import Image

from ..errors import PictureError

HEIC_BRANDS: Final = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
AVIF_BRANDS: Final = frozenset((b"avif", b"avis"))

XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
EXTENDED: Final = b"http://ns.adobe.com/xmp/extension/\0"
"""First bytes of a JPEG's segments that hold XMP, and its continuation."""

MOST_ITEMS: Final = 64
UNIFORM_Z: Final = 2
"""HEIF's number of a depth image whose values are distances; all others are inverse depth or disparity."""


@dataclasses.dataclass(frozen=True)
class Embedded:
    """A depth image that lies inside a picture.

    Attributes:
        image: the content of its file; or a depth image of pillow-heif, with `size` and `to_pillow`.
        origin: the standard that it follows.
        farther: whether larger values are farther.
        near, far: distances that the smallest and the largest value stand for, where the values are distances; else
            both 0.
    """

    image: Any
    origin: str
    farther: bool = False
    near: float = 0.0
    far: float = 0.0


def is_heif(content: bytes) -> bool:
    """Tell whether the content begins as a HEIC or AVIF file does."""
    return content[4:8] == b"ftyp" and content[8:12] in HEIC_BRANDS | AVIF_BRANDS


def open_heif(content: bytes, check: Callable[[int, int], None]) -> Image.Image:
    """Open a HEIC or AVIF file.

    Args:
        content: of the file.
        check: raises where a width and a height are out of bounds; asked before anything of that size is allocated.

    Raises:
        PictureError: no decoder is installed.
        Exception: whatever the decoder raises of damaged files; call it inside `images.decoding`.
    """
    if content[8:12] in AVIF_BRANDS or AVIF_BRANDS & set(_brands(content)):
        return _open_avif(content)  # which decodes later
    file = _heic(content)
    check(*file.size)
    image: Image.Image = file.to_pillow()
    image.format = "HEIC"
    return image


def _heic(content: bytes) -> Any:
    try:
        import pillow_heif
    except ModuleNotFoundError as problem:
        raise PictureError(
            "HEIC pictures are read by the package pillow-heif, which is not installed.",
            fix="Run: pip install pillow-heif; or save the picture as JPEG.",
        ) from problem
    return pillow_heif.open_heif(io.BytesIO(content), convert_hdr_to_8bit=True)


def _open_avif(content: bytes) -> Image.Image:
    """By Pillow's decoder (from 11.3 on, unless it was built without), or by pillow-avif-plugin."""
    Image.init()
    if "AVIF" not in Image.OPEN:
        try:
            import pillow_avif  # noqa: F401 - registers the decoder
        except ModuleNotFoundError as problem:
            raise PictureError(
                "AVIF pictures are read by Pillow 11.3 or the package pillow-avif-plugin; neither is installed.",
                fix="Run: pip install pillow-avif-plugin; or save the picture as JPEG.",
            ) from problem
    return Image.open(io.BytesIO(content), formats=("AVIF",))


def _brands(content: bytes) -> list[bytes]:
    """Read the compatible brands of an ISO base media file."""
    size = min(int.from_bytes(content[:4], "big"), 256)
    return [content[at : at + 4] for at in range(16, size, 4)]


def embedded_depth(content: bytes) -> Embedded | None:
    """Find the depth that a phone has put into a picture; None if there is none.

    Args:
        content: a file; of HEIC the auxiliary image, of JPEG GDepth and Dynamic Depth are looked for.

    Raises:
        PictureError: no decoder of HEIC is installed.
        Exception: as `open_heif`.
    """
    if content[:3] == b"\xff\xd8\xff":
        packet, extension = _xmp(content)
        return _gdepth(packet, extension) or _dynamic_depth(content, packet)
    if is_heif(content) and content[8:12] not in AVIF_BRANDS:
        return _auxiliary(_heic(content))
    return None


def _auxiliary(file: Any) -> Embedded | None:
    depths: list[Any] = [one for one in file.info.get("depth_images", ()) if one is not None]
    if not depths:
        return None
    kind = (depths[0].info.get("metadata") or {}).get("representation_type")
    # Of distances it is said nowhere what unit they have: only their order is certain.
    return Embedded(depths[0], "depth in HEIC", farther=kind == UNIFORM_Z)


def _xmp(content: bytes) -> tuple[str, str]:
    """XMP of a JPEG, and its continuation; empty where there is none."""
    packet, parts = b"", dict[bytes, bytearray]()
    for body in _app1(content):
        if body.startswith(XMP) and not packet:
            packet = body[len(XMP) :]
        elif body.startswith(EXTENDED):
            at = len(EXTENDED)
            digest = body[at : at + 32]
            whole, begin = struct.unpack_from(">II", body, at + 32)
            piece = body[at + 40 :]
            if whole <= len(content) and begin + len(piece) <= whole:
                parts.setdefault(digest, bytearray(whole))[begin : begin + len(piece)] = piece
    text = packet.decode("utf-8", "replace")
    wanted = _value(text, "HasExtendedXMP").encode()
    return text, bytes(parts.get(wanted, b"")).decode("utf-8", "replace")


def _app1(content: bytes) -> Iterator[bytes]:
    """Yield the bodies of a JPEG's APP1 segments, up to the picture's own data."""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker, size = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if marker in (0xD9, 0xDA) or size < 2:
            return
        if marker == 0xE1:
            yield content[at + 4 : at + 2 + size]
        at += 2 + size


def _value(text: str, name: str) -> str:
    """Read an XMP property by its local name, from an attribute or an element; empty if it is not there."""
    found = re.search(rf'[\w-]{{1,64}}:{name}\s*=\s*"([^"]*)"', text) or re.search(rf":{name}>([^<]*)</", text)
    return found[1].strip() if found else ""


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if 0 < number < 1e9 else 0.0


def _ranged(image: bytes, origin: str, packet: str, prefix: str) -> Embedded:
    """Decode a depth image whose values run from near to far, evenly in distance or in inverse distance."""
    linear = _prefixed(packet, prefix, "Format") == "RangeLinear"
    near, far = (_number(_prefixed(packet, prefix, name)) for name in ("Near", "Far"))
    if linear and 0 < near < far:
        return Embedded(image, origin, near=near, far=far)
    return Embedded(image, origin, farther=True)


def _prefixed(packet: str, prefix: str, name: str) -> str:
    found = re.search(rf'\b{prefix}:{name}\s*=\s*"([^"]*)"', packet) or re.search(
        rf"<{prefix}:{name}>([^<]*)</", packet
    )
    return found[1].strip() if found else ""


def _gdepth(packet: str, extension: str) -> Embedded | None:
    data = _prefixed(extension, "GDepth", "Data") or _prefixed(packet, "GDepth", "Data")
    if not data:
        return None
    try:
        image = base64.b64decode("".join(data.split()))
    except binascii.Error:
        return None
    return _ranged(image, "GDepth", packet, "GDepth")


def _dynamic_depth(content: bytes, packet: str) -> Embedded | None:
    """Find the container's depth item; items follow the picture, and the last one ends with the file."""
    end = len(content)
    items = re.findall(r"<[\w-]{1,64}:Item\b([^>]{0,2000})>", packet)
    for item in reversed(items[:MOST_ITEMS]):
        length, padding = (
            int(text) if text.isdecimal() and len(text) < 12 else 0
            for text in (_value(item, "Length"), _value(item, "Padding"))
        )
        begin = end - padding - length
        if length <= 0 or begin <= 0:
            return None
        named = f"{_value(item, 'Semantic')} {_value(item, 'DataURI')}".casefold()
        if "depth" in named:
            return _ranged(content[begin : begin + length], "Dynamic Depth", packet, "DepthMap")
        end = begin
    return None
