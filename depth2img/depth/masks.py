"""Masks that a user gives: where to repaint, and where depth counts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..io.images import read_picture, to_float
from .depth_map import DepthMap


def read_mask(source: object) -> npt.NDArray[np.uint8]:
    """Read an inpaint mask.

    Grey is taken as it is, of a colour picture the mean, rounded; transparent parts are kept.

    Args:
        source: anything that `images.read_picture` takes.

    Returns:
        uint8 (H, W), 0 keep .. 255 repaint.

    Raises:
        PictureError: it cannot be read.
    """
    mask: npt.NDArray[np.uint8] = np.round(read_picture(source, background=(0, 0, 0)).mean(axis=2)).astype(np.uint8)
    return mask


def read_region(source: object) -> DepthMap:
    """Read a region mask, which says where depth counts.

    Grey counts partly, of a colour picture the mean, not rounded; transparent parts are outside.

    Args:
        source: anything that `images.read_picture` takes, or a region that was read before.

    Returns:
        A map whose values are 0 outside .. 1 inside.

    Raises:
        PictureError: it cannot be read.
    """
    if isinstance(source, DepthMap):
        return source
    grey = to_float(read_picture(source, background=(0, 0, 0))).mean(axis=2)
    return DepthMap(values=grey, origin="region")
