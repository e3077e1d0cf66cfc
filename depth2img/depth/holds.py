"""Interpret the numbers of a depth map: nearness, or distance, which becomes inverse depth; holes are filled."""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ..errors import DepthMapError
from .adjustments import fill
from .depth_map import LARGEST, DepthMap
from .readers.raw import Raw

Holds = Literal["nearness", "distance"]

SHORTEST: Final = 2.0 / LARGEST
"""A shorter distance is none: its inverse would be beyond what a `DepthMap` holds."""


def to_depth_map(raw: Raw, holds: Holds) -> DepthMap:
    """Make a depth map, larger = nearer, of numbers.

    - nearness: the numbers are taken as they are. NaN and infinity are not measurements.
    - distance: z becomes inverse depth 1/z, as metric estimators' results do. NaN, 0 and negative numbers are not
      measurements. Infinity, the integer type's largest number and what the format takes for infinity are as far as
      the farthest measurement.

    What is not a measurement is filled from its surroundings and takes no part in the range; the map's `notice` says
    how much that was.

    Args:
        raw: (H, W) numbers.
        holds: "nearness" or "distance".

    Raises:
        DepthMapError: no number is a measurement, or some are beyond 1e30.
    """
    values = raw.values
    if values.ndim != 2 or not values.size:
        return DepthMap(values=values.astype(np.float32), origin=raw.origin, bits=raw.bits)  # which refuses it
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32)
    if holds == "distance" and not raw.nearness:
        infinite = _infinite(values, raw.infinity)
        known = (numbers > SHORTEST) & ~infinite
        numbers = np.divide(1.0, numbers, out=np.zeros_like(numbers), where=known)
    else:
        infinite = np.zeros(values.shape, np.bool_)
        known = np.isfinite(values)
    if not known.any():
        what = "distances above 0 and below infinity" if holds == "distance" else "finite numbers, only NaN or infinity"
        raise DepthMapError(f"The depth map holds no {what}.", got=_counts(values), fix="Choose another file.")
    # Farthest for now, so that no number is without a value; what is empty is filled below.
    numbers[~known] = numbers[known].min()
    empty = ~known & ~infinite
    if empty.any():
        numbers = fill(numbers, ~empty)
    notices = [raw.notice]
    if empty.any():
        notices.append(f"{_share(empty)} of the map held no measurement and was filled from the surroundings.")
    if infinite.any():
        notices.append(f"{_share(infinite)} of the map lies at infinity and counts as its farthest.")
    return DepthMap(
        values=numbers,
        origin=raw.origin,
        bits=raw.bits,
        notice=" ".join(filter(None, notices)),
        distances=_suspicion(raw) if holds == "nearness" else "",
    )


def _infinite(values: npt.NDArray[Any], infinity: float) -> npt.NDArray[np.bool_]:
    """Find where a distance means that nothing is there."""
    if values.dtype.kind in "iu":
        infinity = min(infinity, int(np.iinfo(values.dtype).max))
    return np.asarray(values >= infinity)


def _suspicion(raw: Raw) -> str:
    """Why numbers that were taken for nearness seem to be distances; empty if nothing says so."""
    if raw.distances or raw.values.dtype.kind != "f":
        return raw.distances
    infinite = _infinite(raw.values, raw.infinity)
    return f"{_share(infinite)} of the map lies at infinity" if infinite.any() else ""


def _share(where: npt.NDArray[np.bool_]) -> str:
    """Say a part of all values, in per cent and in numbers."""
    count = int(where.sum())
    return f"{100 * count / where.size:.3g} % ({count:,} values)"


def _counts(values: npt.NDArray[Any]) -> str:
    """Count the values of each kind that are not measurements."""
    numbers = np.asarray(values, np.float64)
    kinds = {"NaN": np.isnan(numbers), "infinity": np.isinf(numbers), "0 or less": numbers <= 0}
    return ", ".join(f"{int(where.sum()):,} of {values.size:,} {name}" for name, where in kinds.items() if where.any())
