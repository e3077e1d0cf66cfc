"""A depth map from what a user gives: files of all formats, by content, arrays, tensors, pictures."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Final, cast

import numpy as np
from PIL import Image

from ..errors import DepthMapError
from ..io import images, phone
from ..options import DepthOptions
from .depth_map import DepthMap
from .holds import Holds, to_depth_map
from .readers import arrays, exr, pfm, pictures
from .readers.raw import Raw, from_array

READERS: Final[tuple[tuple[Callable[[bytes], bool], Callable[[bytes, str], Raw]], ...]] = (
    (arrays.is_npy, arrays.read_npy),
    (arrays.is_npz, arrays.read_npz),
    (exr.matches, exr.read),
    (pfm.matches, pfm.read),
)
"""Test for a format, and its reader; all other contents are pictures."""


def read_depth_map(source: object, holds: Holds = "nearness", channel: str = "") -> DepthMap:
    """Read a depth map from what a user gives.

    Args:
        source: a `DepthMap`, which is returned as it is, a path (`os.PathLike`), file content (`bytes`), base64 or a
            data URL (`str`), a Pillow image, a torch tensor, or an array (H, W) of any real type; axes of length 1 are
            dropped. Files: PNG and TIFF (8 or 16 bits, float), .npy, .npz, EXR, PFM and the formats of
            `images.FORMATS`; no bit is lost. Of a grey picture stored as RGB one channel is taken, the colours of a
            known colour map are turned back to grey, and an alpha channel is ignored.
        holds: what the numbers mean, see `holds.to_depth_map`.
        channel: which channel, layer or array of a file that holds several; ignoring case; empty to find out.

    Raises:
        DepthMapError: it is none of these, damaged, in colour, too large or without a valid value; or there are
            several channels that could be depth, or none of that name.
    """
    if isinstance(source, DepthMap):
        return source
    return to_depth_map(_raw(source, channel), holds)


@dataclasses.dataclass(frozen=True)
class MapReader:
    """`read_depth_map` as a job's options say; equal options make equal readers.

    Attributes:
        holds, channel: see `read_depth_map`.
    """

    holds: Holds = "nearness"
    channel: str = ""

    @classmethod
    def of(cls, options: DepthOptions) -> MapReader:
        """Make the reader for the options of a job."""
        return cls(cast(Holds, options.holds), options.map_channel)

    def __call__(self, source: object) -> DepthMap:
        """Read a depth map.

        Raises:
            DepthMapError: see `read_depth_map`.
        """
        return read_depth_map(source, self.holds, self.channel)


def has_depth_inside(path: os.PathLike[str]) -> bool:
    """Tell whether a picture file carries depth of its own, as phones' portraits do.

    Raises:
        DepthMapError: the file cannot be read.
    """
    with images.decoding("The picture is damaged.", fix="Save it again.", error=DepthMapError):
        return phone.embedded_depth(images.read_file(path, DepthMapError)) is not None


def is_numbers(content: bytes) -> bool:
    """Tell whether a file's content is of a format for numbers, not a picture's."""
    return any(matches(content) for matches, _ in READERS)


def _raw(source: object, channel: str) -> Raw:
    if isinstance(source, np.ndarray):
        return from_array(source, "array", None, channel)
    if arrays.is_tensor(source):
        return arrays.read_tensor(source, channel)
    if isinstance(source, Image.Image):
        return pictures.read_image(source, channel)
    if isinstance(source, os.PathLike):
        return _from_content(images.read_file(source, DepthMapError), channel)
    if isinstance(source, (str, bytes)):
        return _from_content(images.payload_bytes(source, DepthMapError), channel)
    raise DepthMapError(
        "This is not a depth map.",
        got=type(source).__name__,
        fix="Give a PNG, TIFF, EXR, PFM or .npy file, or an array.",
    )


def _from_content(content: bytes, channel: str) -> Raw:
    for matches, read in READERS:
        if matches(content):
            return read(content, channel)
    return pictures.read(content, channel)
