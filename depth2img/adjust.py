"""DepthMap -> DepthMap: what the user may do to a map before it becomes conditioning."""

from __future__ import annotations

import dataclasses
from typing import Final

import cv2
import numpy as np

from .depth_map import DepthMap
from .options import DepthOptions

BLUR_REACH: Final = 3.0
"""The Gaussian's kernel ends at this many standard deviations."""


def adjust(depth: DepthMap, options: DepthOptions) -> DepthMap:
    """Apply the adjustments of the options, in this order: invert, far/near clip, gamma, blur.

    All act on the map stretched to 0 (farthest) .. 1 (nearest); the result is in 0..1 too. With default adjustments
    the map is returned untouched, raw values and all.

    - invert: v -> 1 - v.
    - clip: v -> (v - far) / (near - far), limited to 0..1.
    - gamma: v -> v ** (1 / gamma), so that above 1 the middle comes nearer.
    - blur: Gaussian, standard deviation = blur per cent of the shorter side in pixels, edges replicated.

    Args:
        depth: any map.
        options: `near`, `far`, `gamma`, `blur` and `invert` are read.
    """
    if not options.adjusts:
        return depth
    values = depth.normalised().astype(np.float64)
    if options.invert:
        values = 1.0 - values
    values = np.clip((values - options.far) / (options.near - options.far), 0.0, 1.0) ** (1.0 / options.gamma)
    sigma = options.blur / 100.0 * min(values.shape)
    if sigma > 0:
        side = 2 * max(1, round(BLUR_REACH * sigma)) + 1
        values = np.asarray(cv2.GaussianBlur(values, (side, side), sigma, borderType=cv2.BORDER_REPLICATE), np.float64)
    return dataclasses.replace(depth, values=values.astype(np.float32))
