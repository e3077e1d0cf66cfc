"""Score how much of a picture's structure another picture keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from .depth_map import DepthMap


FIDELITY: Final = "Depth fidelity"
"""Infotext key of the structure that a result keeps of the depth that was asked for."""


def structure(one: DepthMap, other: DepthMap, mean: DepthMap | None = None) -> float:
    """Pearson's correlation of two depth maps, after a mean map has been taken off both.

    Floor below and sky above are alike in most pictures, so that plain correlation is high between any two; what all
    pictures of a kind share does not count once their mean map is removed.

    Args:
        one, other: inverse depth on one scale; the second is brought to the first's size.
        mean: what the pictures have in common, on the same scale; None for plain correlation.

    Returns:
        -1..1; 0 where either map is flat.
    """
    width, height = one.width, one.height
    first, second = one.values.astype(np.float64), other.resized(width, height).values.astype(np.float64)
    if mean is not None:
        common = mean.resized(width, height).values.astype(np.float64)
        first, second = first - common, second - common
    first, second = first - first.mean(), second - second.mean()
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float((first * second).sum()) / size if size > 0 else 0.0
