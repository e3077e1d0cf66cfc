"""Stereo pairs: what each eye sees of a relief, beside each other or in two colours."""

from __future__ import annotations

import numpy as np

from ..io.images import Picture
from .relief import Relief


def stereo(relief: Relief, kind: str) -> Picture:
    """Draw a stereo pair, uint8 (H, 2 W, 3), or (H, W, 3) as an anaglyph; `kind` is a key of `STEREO`."""
    left, right = relief.seen_from(-1, 0), relief.seen_from(1, 0)
    if kind == "anaglyph":
        return np.dstack([left[:, :, :1], right[:, :, 1:]])
    return np.hstack([left, right] if kind == "side-by-side" else [right, left])
