"""The numbers of a depth map as a file or an array holds them, before anything says what they mean."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...errors import DepthMapError
from . import colours

GREY_TOLERANCE: Final = 0.03
"""Largest difference of the three channels of a grey picture, as a part of full scale: JPEG's colour rounding."""

LETTERS: Final = ("R", "G", "B")

PACKINGS: Final = {"R+256G+65536B": (0, 1, 2), "B+256G+65536R": (2, 1, 0)}
"""Name of a way to pack 24 bits into a colour -> its channels, low byte first. The first is CARLA's."""


@dataclasses.dataclass(frozen=True)
class Raw:
    """One channel of numbers.

    Attributes:
        values: (H, W) of any real type; NaN and infinity are allowed.
        origin: the file format, for display.
        bits: bits per value in the file, None for an array.
        notice: one sentence on how the numbers were obtained that the user should see; empty as a rule.
        distances: why the numbers seem to be distances, as the end of "These look like distances: "; empty if nothing
            says so.
        infinity: a distance of this or more means "nothing there".
        nearness: the file itself says that larger numbers are nearer, whatever its user says.
    """

    values: npt.NDArray[Any]
    origin: str
    bits: int | None = None
    notice: str = ""
    distances: str = ""
    infinity: float = math.inf
    nearness: bool = False


def from_array(array: npt.NDArray[Any], origin: str, bits: int | None, channel: str = "") -> Raw:
    """One channel of an array.

    Args:
        array: (H, W), or (H, W, C) with 1 to 4 channels: grey, grey and alpha, RGB, RGBA; further axes of length 1 are
            dropped. Any real type.
        origin: see `Raw`.
        bits: see `Raw`.
        channel: of a colour picture, which one: "R", "G", "B" or a name of `PACKINGS`; empty to find out.

    Raises:
        DepthMapError: complex numbers, text or objects; several maps; a colour picture that no colour table explains;
            an unknown channel.
    """
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == np.bool_) or np.iscomplexobj(array):
        raise DepthMapError("A depth map must hold real numbers.", got=f"{array.dtype}", fix="Convert it first.")
    array = array.reshape(squeezed(array.shape))
    if array.ndim == 3 and 3 <= array.shape[2] <= 4:
        return _of_colour(array[:, :, :3], origin, bits, channel)
    choose(channel, [], origin)
    if array.ndim == 3 and 1 <= array.shape[2] <= 2:
        array = array[:, :, 0]
    return Raw(array, origin, bits)


def squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """Drop axes of length 1 from a shape, leading ones first, until (H, W) or (H, W, 1 to 4 channels) is left."""
    left = list(shape)
    while len(left) > 2 and not (len(left) == 3 and 1 <= left[2] <= 4) and 1 in left:
        left.remove(1)
    return tuple(left)


def choose(channel: str, names: Sequence[str], what: str) -> str:
    """Return the channel, layer or array that the user named, ignoring case; empty for no choice.

    Raises:
        DepthMapError: there is none of that name.
    """
    if not channel:
        return ""
    for name in names:
        if name.casefold() == channel.casefold():
            return name
    raise DepthMapError(
        f"There is no channel '{channel[:80]}' in this {what} depth map.",
        got=listed(names) if names else "one channel without a name",
        fix="Name one of these as 'Map channel', or leave it empty." if names else "Leave 'Map channel' empty.",
    )


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names of channels as part of a sentence, at most `most` of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(name[:80] for name in names[:most]) + more


def _of_colour(colour: npt.NDArray[Any], origin: str, bits: int | None, channel: str) -> Raw:
    chosen = choose(channel, (*LETTERS, *PACKINGS), "colour")
    if chosen in LETTERS:
        return Raw(colour[:, :, LETTERS.index(chosen)], origin, bits)
    if chosen:
        low, middle, high = (_bytes(colour)[:, :, one].astype(np.uint32) for one in PACKINGS[chosen])
        return Raw(
            low + (middle << 8) + (high << 16), origin, 24, distances=f"unpacked as {chosen}", infinity=2**24 - 1
        )
    scale = float(np.iinfo(colour.dtype).max) if np.issubdtype(colour.dtype, np.integer) else 1.0
    if not np.issubdtype(colour.dtype, np.integer) and colour.size:
        # Floats have no full scale of their own: distances in RGB reach thousands.
        finite = np.abs(colour[np.isfinite(colour)].astype(np.float64))
        scale = max(1.0, float(finite.max())) if finite.size else 1.0
    apart = _apart(colour)
    if apart <= GREY_TOLERANCE * scale:
        return Raw(colour[:, :, 1], origin, bits)
    if colour.dtype in (np.uint8, np.uint16) or (colour.dtype.kind == "f" and scale == 1.0):
        found = colours.recognise(_bytes(colour))
        if found is not None:
            return Raw(
                found.grey, origin, 8, notice=f"The colours are those of the colour map {found.name}: {found.how}."
            )
        packing = _packed(_bytes(colour))
        if packing:
            raise DepthMapError(
                "The depth map seems to hold 24-bit distances packed into the colours.",
                got=f"the pattern of {packing}" + (", as CARLA writes it" if packing == "R+256G+65536B" else ""),
                fix=f"Give 'Map channel' {packing} and 'Map holds' distance to have it decoded.",
            )
    raise DepthMapError(
        "The depth map is a colour picture.",
        got=f"channels up to {apart / scale:.0%} apart" if apart < math.inf else "NaN in some channels alone",
        fix="Its colours are of no known colour map. Give a grey map, white = near, or use the picture as 'Another "
        "picture' to have its depth estimated.",
    )


def _apart(colour: npt.NDArray[Any]) -> float:
    """Return the largest difference between the channels of a pixel; NaN equals NaN, infinity infinity."""
    if not colour.size:
        return 0.0
    if np.issubdtype(colour.dtype, np.integer) or colour.dtype == np.bool_:
        return float((colour.max(axis=2).astype(np.float64) - colour.min(axis=2)).max())
    finite = np.isfinite(colour)
    if not np.array_equal(finite.all(axis=2), finite.any(axis=2)):
        return math.inf
    known = np.where(finite, colour, 0).astype(np.float64)
    return float((known.max(axis=2) - known.min(axis=2)).max())


def _bytes(colour: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Convert a colour picture to 8 bits per channel: the high byte of 16 bits, floats 0 to 1 stretched."""
    if colour.dtype.kind == "f":
        return np.asarray(np.round(np.clip(np.nan_to_num(colour), 0, 1) * 255), np.uint8)
    return np.asarray(colour >> 8 if colour.dtype == np.uint16 else np.clip(colour, 0, 255), np.uint8)


WRAPS: Final = 16
"""So many overflows of a lower byte are needed to tell a packed picture from chance."""

CARRIED: Final = 0.1
"""Part of those overflows that the next byte must carry exactly. In photographs none does; in distances those do where
the distance changes by less than 256 units from pixel to pixel."""


VARIED: Final = 64
"""So many values must occur in the lower byte: a palette of few colours proves nothing."""


def _packed(colour: npt.NDArray[np.uint8]) -> str:
    """Name the packing whose lower bytes carry into the next one when they overflow; empty if there is none."""
    steps = [np.diff(colour.astype(np.int16), axis=axis) for axis in (0, 1)]
    for name, (low, middle, high) in PACKINGS.items():
        for lower, upper in ((middle, high), (low, middle)):
            total = carried = 0
            for step in steps:
                wraps = np.abs(step[:, :, lower]) > 128
                total += int(wraps.sum())
                carried += int((wraps & (step[:, :, upper] == -np.sign(step[:, :, lower]))).sum())
            if total >= WRAPS and carried >= CARRIED * total and len(np.unique(colour[:, :, lower])) >= VARIED:
                return name
    return ""
