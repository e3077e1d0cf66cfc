"""PFM, which MiDaS writes: three lines of text, then floats, bottom row first."""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from ...errors import DepthMapError
from ...io import images
from .raw import Raw, from_array

HEADER: Final = re.compile(
    rb"P([fF])\s+(?:#[^\n]{0,200}\n\s*){0,8}(\d{1,9})\s+(\d{1,9})\s+([+-]?[\d.]{1,32}(?:[eE][+-]?\d{1,4})?)\r?[ \t\n]"
)
"""Kind, width, height and scale, whose sign is the byte order, and the one space that ends the header."""


def matches(content: bytes) -> bool:
    """Tell whether the content begins as a PFM file does."""
    return content[:2] in (b"Pf", b"PF") and content[2:3].isspace()


def read(content: bytes, channel: str) -> Raw:
    """Read a PFM file of one or three channels; the scale's amount is not applied, as it changes no proportion.

    Raises:
        DepthMapError: the header or the length is wrong, or it is a colour picture.
    """
    header = HEADER.match(content, 0, 1024)
    if header is None:
        raise DepthMapError("The PFM file is damaged.", got=repr(content[:24]), fix="Save it again.")
    width, height, bands = int(header[2]), int(header[3]), 3 if header[1] == b"F" else 1
    images.check_size(width, height, DepthMapError)
    wanted, found = width * height * bands * 4, len(content) - header.end()
    if found < wanted:
        raise DepthMapError(
            "The PFM file is cut short.", got=f"{found:,} of {wanted:,} bytes", fix="Copy or save it again."
        )
    order = "<f4" if header[4].startswith(b"-") else ">f4"
    values = np.frombuffer(content, order, width * height * bands, header.end())
    values = values.reshape((height, width, bands) if bands == 3 else (height, width))
    return from_array(values[::-1].astype(np.float32), "PFM", 32, channel)
