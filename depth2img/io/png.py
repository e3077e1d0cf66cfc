"""A PNG with nothing in it that could upset a decoder: the pixels and no more, checked to the last row.

After the specification (ISO/IEC 15948): chunks in section 5.3, filters in 9.2, interlacing in 8.2.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
CHANNELS: Final = {0: 1, 2: 3, 4: 2, 6: 4}
"""Colour type -> channels, without palettes."""

ADAM7: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column, first row, and steps of each pass."""

LAST_FILTER: Final = 4


def plain_png(content: bytes, size: tuple[int, int]) -> bytes:
    """Rewrite a PNG as three chunks with the same pixels, without animation, colour profile or text.

    Args:
        content: a PNG with 16 bits per channel and no palette.
        size: width and height that its header must say.

    Raises:
        ValueError, struct.error, zlib.error: its header says something else, or its pixels are incomplete.
    """
    header, data = b"", []
    at = len(SIGNATURE)
    while at + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        if kind == b"IHDR" and not header:
            header = body
        elif kind == b"IDAT":
            data.append(body)
        elif kind == b"IEND":
            break
        at += 12 + length
    width, height, bits, colour, packing, filtering, interlaced = struct.unpack(">2I5B", header)
    if (width, height, bits, packing, filtering) != (*size, 16, 0, 0) or interlaced > 1 or colour not in CHANNELS:
        raise ValueError("unexpected header")
    pixels = _checked(b"".join(data), width, height, 2 * CHANNELS[colour], interlaced == 1)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(pixels, 1)) + _chunk(b"IEND", b"")


def _checked(packed: bytes, width: int, height: int, pixel: int, interlaced: bool) -> bytes:
    """Unpack the rows, and check that each has a known filter; `pixel` is the bytes of one pixel."""
    passes = [(width, height)]
    if interlaced:
        passes = [(-((left - width) // x), -((top - height) // y)) for left, top, x, y in ADAM7]
    rows = [1 + columns * pixel for columns, lines in passes if columns > 0 for _ in range(lines)]
    rows_bytes = zlib.decompressobj().decompress(packed, sum(rows))
    if len(rows_bytes) != sum(rows):
        raise ValueError("rows are missing")
    at = 0
    for row in rows:
        if rows_bytes[at] > LAST_FILTER:
            raise ValueError("unknown filter")
        at += row
    return rows_bytes


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
