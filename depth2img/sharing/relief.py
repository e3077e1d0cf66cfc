"""The hover view without a browser: the picture as a relief, seen from the side.

The mathematics are those of javascript/depth2img-viewer.mjs, whose constants have the same names; a test compares what
both show.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from ..depth.depth_map import DepthMap
from ..io.images import Picture

MOST_STEPS: Final = 24
STRIDE: Final = 2.5
"""Pixels between two steps of a ray."""

OVERSCAN: Final = 1.06
"""Enlargement, so that the picture's borders stay outside."""

REACH: Final = 0.035
"""Largest shift at movement 1, as a part of the width."""

LEAST_WALL: Final = 0.08
"""Depth in front of a ray from which it has met the side of something near."""

GROWN: Final = 2
"""Pixels by which near areas are grown, so that no halo of the far side shows."""

SOFTENED: Final = 0.7
"""Standard deviation in pixels of the blur after that."""


@dataclasses.dataclass(frozen=True, eq=False)
class Relief:
    """A picture and its depth, ready to be looked at.

    Attributes:
        picture: uint8 (H, W, 3).
        near: float32 (H, W), 0 (farthest) .. 1 (nearest).
        movement: how far things move, 0..2.
        focus: the depth that stays where it is, 0 (farthest) .. 1 (nearest).
    """

    picture: Picture
    near: npt.NDArray[np.float32]
    movement: float = 1.0
    focus: float = 0.5

    @classmethod
    def of(cls, picture: Picture, depth: DepthMap, *, movement: float = 1.0, focus: float = 0.5) -> Relief:
        """Make the relief of a picture, uint8 (H, W, 3), and the map of the whole of it, of any size."""
        height, width = picture.shape[:2]
        grown = cv2.dilate(depth.resized(width, height).normalised(), np.ones((2 * GROWN + 1,) * 2, np.uint8))
        soft = cv2.GaussianBlur(grown, (0, 0), SOFTENED, borderType=cv2.BORDER_REPLICATE)
        return cls(picture, np.asarray(soft, np.float32), movement, focus)

    def seen_from(self, x: float, y: float) -> Picture:
        """Draw the relief, uint8 (H, W, 3), as seen from a direction, -1..1 to the right and down.

        Each pixel's ray is walked from the nearest plane to the farthest; the first hit is what is in front. Where a
        ray meets the side of something near, what lies behind shows: the last place before it.
        """
        height, width = self.near.shape
        reach = REACH * self.movement
        shift = (-x * reach, -y * reach * width / height)
        across = _centred(width)[None, :].repeat(height, 0)
        down = _centred(height)[:, None].repeat(width, 1)

        def at(depth: npt.NDArray[np.float32] | float) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
            beyond = np.float32(depth) - np.float32(self.focus)
            return (
                np.asarray((across - shift[0] * beyond) * width - 0.5, np.float32),
                np.asarray((down - shift[1] * beyond) * height - 0.5, np.float32),
            )

        return np.asarray(_sampled(self.picture, *at(self._hit(shift, at))), np.uint8)

    def _hit(self, shift: tuple[float, float], at: object) -> npt.NDArray[np.float32]:
        """Return the depth, float32 (H, W), at which each ray's place is taken."""
        assert callable(at)
        height, width = self.near.shape
        steps = min(MOST_STEPS, max(4, math.ceil(math.hypot(shift[0] * width, shift[1] * height) / STRIDE)))
        wall = max(LEAST_WALL, 1.5 / steps)
        taken = np.ones_like(self.near)
        gap = np.ones_like(self.near)
        walking = np.ones(self.near.shape, bool)
        for step in range(steps + 1):
            plane = 1 - step / steps
            under = _sampled(self.near, *at(plane)) - np.float32(plane)
            hit = walking & (under >= 0)
            if step == 0:
                taken[hit] = plane
            else:
                # The surface lies between two planes; the side of something near is not a surface.
                part = np.where(under > wall, 0, gap / np.maximum(gap + under, 1e-9))
                taken[hit] = (plane + (1 - part) / steps)[hit]
            walking &= ~hit
            gap = np.where(walking, -under, gap)
            taken[walking] = plane
        return taken


def loop(part: float) -> tuple[float, float]:
    """Return the direction of view at a part 0..1 of a loop, which begins and ends in the middle."""
    return math.sin(2 * math.pi * part), 0.35 * math.sin(4 * math.pi * part)


def _centred(side: int) -> npt.NDArray[np.float64]:
    """Return the places of a side's pixels in the picture, as parts of the side, under `OVERSCAN`."""
    return ((np.arange(side) + 0.5) / side - 0.5) / OVERSCAN + 0.5


def _sampled(
    values: npt.NDArray[np.float32] | Picture, columns: npt.NDArray[np.float32], rows: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    found = cv2.remap(values, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found)
