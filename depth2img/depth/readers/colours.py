"""Colour-mapped depth maps turned back to grey: which colour map a picture's colours lie on, and where on it."""

from __future__ import annotations

import dataclasses
import functools
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

OPENCV: Final = {
    "inferno": cv2.COLORMAP_INFERNO,
    "magma": cv2.COLORMAP_MAGMA,
    "plasma": cv2.COLORMAP_PLASMA,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "cividis": cv2.COLORMAP_CIVIDIS,
    "turbo": cv2.COLORMAP_TURBO,
    "jet": cv2.COLORMAP_JET,
    "parula": cv2.COLORMAP_PARULA,
}
"""Name -> OpenCV's colour map of that name. MiDaS writes inferno, ZoeDepth magma, Depth Pro turbo, cameras jet. Nearly
grey ones (bone, hot) are left out: screenshots fit them."""

SPECTRAL: Final = (0x9E0142, 0xD53E4F, 0xF46D43, 0xFDAE61, 0xFEE08B, 0xFFFFBF, 0xE6F598, 0xABDDA4, 0x66C2A5, 0x3288BD,
                   0x5E4FA2)  # fmt: skip
"""ColorBrewer's "Spectral" with eleven classes (Cynthia Brewer, colorbrewer2.org), red first. Matplotlib's colour map
runs straight between them; Depth Anything and Marigold write it with red near."""

SAMPLE: Final = 20_000
"""So many pixels, in a regular grid, decide which colour map it is."""

NEAR_TABLE: Final = 24.0
"""Distance in RGB (0..255 each) from the colour map within which a pixel counts as on it. JPEG at quality 75 with
halved colour resolution leaves 90 % of the pixels of a map within 20."""

ON_TABLE: Final = 0.85
"""Part of the pixels that must be on the colour map. Edges of a JPEG or of a resized map lie between two colours."""

MEAN_DISTANCE: Final = 9.0
"""Mean distance of the pixels that are on it at most; colours of photographs that chance to be near lie farther."""

RANGE: Final = 0.5
"""Part of the colour map that the picture must use: a depth map is stretched over all of it."""

CHUNK: Final = 65_536
"""Colours that are compared with a table at a time."""


@dataclasses.dataclass(frozen=True)
class Recognised:
    """A colour-mapped picture.

    Attributes:
        name: of the colour map.
        how: which end was taken for near, in words.
        grey: uint8 (H, W), 255 = near.
    """

    name: str
    how: str
    grey: npt.NDArray[np.uint8]


def recognise(colour: npt.NDArray[np.uint8]) -> Recognised | None:
    """Return the picture's position on the colour map that it fits; None if it fits none.

    Args:
        colour: uint8 (H, W, 3) RGB.
    """
    if not colour.size:
        return None
    packed = _pack(colour)
    step = max(1, round((packed.size / SAMPLE) ** 0.5))
    sample, counts = np.unique(packed[::step, ::step], return_counts=True)
    best, name = MEAN_DISTANCE, ""
    for candidate, table in tables().items():
        codes, distances = _nearest(sample, table)
        on = distances <= NEAR_TABLE
        if not counts[on].sum() >= ON_TABLE * counts.sum():
            continue
        low, high = np.percentile(np.repeat(codes[on], counts[on]), (1, 99))
        mean = float((distances * counts)[on].sum() / counts[on].sum())
        if high - low >= RANGE * 255 and mean < best:
            best, name = mean, candidate
    if not name:
        return None
    seen = np.zeros(1 << 24, np.bool_)
    seen[packed.ravel()] = True
    every = np.flatnonzero(seen).astype(np.uint32)
    grey = np.zeros(1 << 24, np.uint8)
    grey[every] = _nearest(every, tables()[name])[0]
    return Recognised(name, "red counts as near" if name in RED_NEAR else "its bright end counts as near", grey[packed])


RED_NEAR: Final = frozenset(("turbo", "jet", "spectral"))
"""Colour maps whose last colour is red and not their brightest."""


@functools.cache
def tables() -> dict[str, npt.NDArray[np.float32]]:
    """Name of a colour map -> float32 (256, 3), RGB 0..255, from far to near."""
    ramp = np.arange(256, dtype=np.uint8)[None]
    found = {
        name: np.asarray(cv2.applyColorMap(ramp, number))[0, :, ::-1].astype(np.float32)
        for name, number in OPENCV.items()
    }
    anchors = np.array([[one >> 16, one >> 8 & 255, one & 255] for one in reversed(SPECTRAL)], np.float32)
    at = np.linspace(0, len(anchors) - 1, 256)
    found["spectral"] = np.stack(
        [np.interp(at, np.arange(len(anchors)), anchors[:, band]) for band in range(3)], axis=1
    ).astype(np.float32)
    return found


def _pack(colour: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    red, green, blue = (colour[:, :, band].astype(np.uint32) for band in range(3))
    return np.asarray(red << 16 | green << 8 | blue, np.uint32)


def _nearest(
    packed: npt.NDArray[np.uint32], table: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Of each colour the nearest entry of a table, and how far it is."""
    codes = np.empty(packed.size, np.uint8)
    distances = np.empty(packed.size, np.float32)
    length = (table**2).sum(axis=1)
    for begin in range(0, packed.size, CHUNK):
        part = packed[begin : begin + CHUNK]
        colour = np.stack([part >> 16, part >> 8 & 255, part & 255], axis=1).astype(np.float32)
        # |c - t|^2 without the intermediate array of differences
        square = (colour**2).sum(axis=1)[:, None] - 2 * colour @ table.T + length
        codes[begin : begin + CHUNK] = square.argmin(axis=1)
        distances[begin : begin + CHUNK] = np.sqrt(np.maximum(square.min(axis=1), 0))
    return codes, distances
