"""OpenEXR: which channel of which layer is depth, and its values.

The header is parsed here, so that the choice is made and sizes are bounded before the OpenEXR package sees the file.
"""

from __future__ import annotations

import dataclasses
import io
import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...errors import DepthMapError
from ...io import images
from .raw import Raw, choose, from_array, listed

MAGIC: Final = b"\x76\x2f\x31\x01"
MULTIPART, DEEP = 0x1000, 0x0800
"""Flags in the version field."""

MOST_PARTS: Final = 64
MOST_CHANNELS: Final = 1024
MOST_BYTES: Final = 4 * images.MAX_BYTES
"""Unpacked size of all channels: the package reads them together."""

SIZES: Final = {0: 4, 1: 2, 2: 4}
"""Pixel type (unsigned, half, float) -> bytes."""

DEPTH_CHANNELS: Final = ("Z", "V", "Y", "R")
"""Channels of a layer of depth, the likeliest first: Blender writes Z, older ones V, grey files Y, Unreal R."""

DEPTH_LAYERS: Final = ("depth", "disparity", "distance")
"""Parts of names of layers and parts that hold depth, in small letters: ViewLayer.Depth, FinalImageWorldDepth."""

HALF_INFINITY: Final = 65504.0
FLOAT_INFINITY: Final = 1e9
"""From here on a distance means "nothing there": the largest half, and less than what renderers write for the sky
(Blender 1e10), in whatever unit."""

SAVE_DEPTH: Final = "Save the depth channel alone, with ZIP compression."


@dataclasses.dataclass(frozen=True)
class Channel:
    """One channel of one part.

    Attributes:
        part: index of the part.
        name: in the file.
        label: for the user: with the part's name in front where there are several parts.
        kind: pixel type, see `SIZES`.
        sampled: whether it has a value for every pixel.
    """

    part: int
    name: str
    label: str
    kind: int
    sampled: bool

    @property
    def layer(self) -> str:
        """The label without its last component."""
        return self.label.rpartition(".")[0]

    @property
    def last(self) -> str:
        """The last component of the name."""
        return self.name.rpartition(".")[2]


def matches(content: bytes) -> bool:
    """Tell whether the content begins as an EXR file does."""
    return content[:4] == MAGIC


def read(content: bytes, channel: str) -> Raw:
    """Read the depth channel of an EXR file of one or several parts and layers.

    Raises:
        DepthMapError: it is damaged, deep or too large; there is no depth channel, or there are several; or the OpenEXR
            package is missing. The message names the channels.
    """
    with images.decoding("The EXR file is damaged.", fix="Save it again.", error=DepthMapError):
        channels = _channels(content)
        names = [one.label for one in channels]
        named = choose(channel, names, "EXR")
        found = [one for one in channels if one.label == named] if named else _depth_channels(channels)
        values = [_pixels(content, found)[one.label] for one in found]
    if len(found) == 3:  # red, green and blue
        raw = from_array(np.stack(values, axis=2), "EXR", 8 * SIZES[found[0].kind])
    else:
        raw = Raw(values[0], f"EXR, channel {found[0].label[:60]}", 8 * SIZES[found[0].kind])
    infinity = HALF_INFINITY if found[0].kind == 1 else FLOAT_INFINITY
    distances = f"the channel is called {found[0].label[:60]}" if len(found) == 1 and _is_z(found[0]) else ""
    return dataclasses.replace(raw, infinity=infinity, distances=distances)


def _is_z(channel: Channel) -> bool:
    """Tell whether a channel is a renderer's distance: by convention that is called Z."""
    return channel.last.casefold() == "z"


def _depth_channels(channels: Sequence[Channel]) -> list[Channel]:
    """Return the one channel that holds depth, or red, green and blue.

    Raises:
        DepthMapError: none or several.
    """
    named: dict[str, Channel] = {}
    # Normals and positions have a Z beside X and Y.
    vectors = {one.layer for one in channels if one.last.upper() == "X"}
    for wanted in DEPTH_CHANNELS:
        for one in channels:
            of_depth = any(word in one.layer.casefold() for word in DEPTH_LAYERS)
            if one.last.upper() == wanted and (of_depth or (wanted == "Z" and one.layer not in vectors)):
                named.setdefault(f"{one.part}/{one.layer}", one)
    whole = [one for one in channels if one.last.casefold() in DEPTH_LAYERS]
    candidates = [*named.values(), *(one for one in whole if one not in named.values())]
    if not candidates and len(channels) == 1:
        candidates = [*channels]
    if not candidates:
        colour = {one.name.upper(): one for one in channels if one.part == 0}
        if {"R", "G", "B"} <= set(colour):
            return [colour["R"], colour["G"], colour["B"]]
        candidates = [one for one in channels if one.name.upper() in ("Y", "V")]
    if len(candidates) == 1:
        return candidates
    names = listed([one.label for one in candidates or channels])
    what = "has several channels that could be the depth" if candidates else "has no channel that is known as depth"
    raise DepthMapError(f"The EXR file {what}.", got=names, fix="Name one as 'Map channel' (--map-channel).")


def _pixels(content: bytes, wanted: Sequence[Channel]) -> dict[str, npt.NDArray[Any]]:
    """Label -> (H, W) values, by the OpenEXR package."""
    try:
        import OpenEXR
    except ModuleNotFoundError as problem:
        raise DepthMapError(
            "EXR files are read by the package OpenEXR, which is not installed.", fix="Run: pip install OpenEXR"
        ) from problem
    if not all(one.sampled for one in wanted):
        raise DepthMapError("The channel has not a value for every pixel.", got=wanted[0].label, fix=SAVE_DEPTH)
    # Threads of its own would outlive a fork of the host.
    with OpenEXR.File(io.BytesIO(content), separate_channels=True, num_threads=0) as file:
        return {one.label: np.array(file.parts[one.part].channels[one.name].pixels) for one in wanted}


def _channels(content: bytes) -> list[Channel]:
    """All channels that the headers name, sizes checked.

    Raises:
        DepthMapError: deep, or too large.
        ValueError, struct.error, IndexError: damaged.
    """
    (version,) = struct.unpack_from("<I", content, 4)
    if version & DEEP:
        raise DepthMapError("Deep EXR files hold many depths per pixel.", fix=SAVE_DEPTH)
    several = bool(version & MULTIPART)
    at, size, found = 8, 0, list[Channel]()
    for part in range(MOST_PARTS + 1):
        attributes, at = _header(content, at)
        if not attributes and several and part:
            break
        if not {"dataWindow", "channels"} <= set(attributes):
            raise ValueError("no dataWindow or no channels")
        left, top, right, bottom = struct.unpack("<4i", attributes["dataWindow"])
        # Before anything of the size that the header claims is allocated.
        images.check_size(right - left + 1, bottom - top + 1, DepthMapError)
        title = attributes.get("name", b"").decode("utf-8", "replace")
        for name, kind, sampled in _channel_list(attributes["channels"]):
            # Blender names each channel after its part already.
            label = f"{title}.{name}" if several and title and not name.startswith(f"{title}.") else name
            found.append(Channel(part, name, label, kind, sampled))
            size += (right - left + 1) * (bottom - top + 1) * SIZES[kind]
        if not several:
            break
    else:
        raise ValueError("too many parts")
    if size > MOST_BYTES or len(found) > MOST_CHANNELS:
        raise DepthMapError(
            "The EXR file is too large.", got=f"{len(found)} channels, {size // 2**20:,} MB unpacked", fix=SAVE_DEPTH
        )
    return found


def _header(content: bytes, at: int) -> tuple[dict[str, bytes], int]:
    """Attributes of one header and where it ends: a list of name, type, size and value, up to an empty name."""
    found: dict[str, bytes] = {}
    while content[at] != 0:
        name_end = content.index(0, at, at + 256)
        type_end = content.index(0, name_end + 1, name_end + 257)
        (size,) = struct.unpack_from("<i", content, type_end + 1)
        name = content[at:name_end].decode("utf-8", "replace")
        if size < 0 or name in found:
            raise ValueError("an attribute that is there twice or of negative size")
        begin = type_end + 5
        found[name] = content[begin : begin + size]
        at = begin + size
    return found, at + 1


def _channel_list(value: bytes) -> list[tuple[str, int, bool]]:
    """Name, pixel type and whether every pixel has a value, of each channel."""
    found, at = list[tuple[str, int, bool]](), 0
    while value[at] != 0:
        end = value.index(0, at, at + 256)
        kind, across, down = struct.unpack_from("<i4x2i", value, end + 1)
        if kind not in SIZES or len(found) > MOST_CHANNELS:
            raise ValueError("a channel of unknown type, or too many")
        found.append((value[at:end].decode("utf-8", "replace"), kind, (across, down) == (1, 1)))
        at = end + 17
    return found
