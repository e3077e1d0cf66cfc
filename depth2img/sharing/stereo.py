"""Stereo pairs: what each eye sees of a relief, beside each other or in two colours."""

from __future__ import annotations

from typing import Final

import numpy as np

from ..io.images import Picture
from .relief import Relief

KINDS: Final = {
    "side-by-side": "the left eye's picture on the left, for viewers and parallel eyes",
    "cross-eyed": "the left eye's picture on the right, for crossed eyes",
    "anaglyph": "both in one picture, for red-cyan glasses (red on the left)",
}
"""Kind of stereo pair -> what it is."""


def stereo(relief: Relief, kind: str) -> Picture:
    """Draw a stereo pair, uint8 (H, 2 W, 3), or (H, W, 3) as an anaglyph; `kind` is a key of `KINDS`."""
    left, right = relief.seen_from(-1, 0), relief.seen_from(1, 0)
    if kind == "anaglyph":
        return np.dstack([left[:, :, :1], right[:, :, 1:]])
    return np.hstack([left, right] if kind == "side-by-side" else [right, left])
