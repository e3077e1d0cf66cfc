"""Adjust a depth map before it becomes conditioning, and change it under a mask."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import DepthMapError
from ..options import DepthOptions
from .depth_map import DepthMap, Span

BLUR_REACH: Final = 3.0
"""The Gaussian's kernel ends at this many standard deviations."""

WIDEST: Final = 32.0
"""Standard deviation in pixels from which the Gaussian is done on a smaller map."""


HOLE: Final = 0.02
"""A mask counts as a hole to fill above this: the rim of a blurred mask belongs to it."""

COARSEST: Final = 4
"""Shorter side, in pixels, at which the pyramid of `fill_under` ends."""

NEIGHBOURS: Final = np.array([[0, 0.25, 0], [0.25, 0, 0.25], [0, 0.25, 0]])

FILL_ITERATIONS: Final = 40
"""Jacobi steps per level of the pyramid; the coarser level has brought the long waves already."""

LARGE, FEW_ITERATIONS = 2**22, 8
"""Levels of more pixels than this get so many steps: a map of 8192 x 8192 would take most of a minute otherwise."""


def adjust(depth: DepthMap, options: DepthOptions, span: Span | None = None) -> DepthMap:
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
        span: the values that are farthest and nearest, where other pictures share them; None for the map's own.
    """
    if not options.adjusts:
        return depth
    values = depth.normalised(span if span is not None and span[0] < span[1] else None).astype(np.float64)
    if options.invert:
        values = 1.0 - values
    values = np.clip((values - options.far) / (options.near - options.far), 0.0, 1.0) ** (1.0 / options.gamma)
    sigma = options.blur / 100.0 * min(values.shape)
    if sigma > 0:
        values = _blurred(values, sigma)
    return dataclasses.replace(depth, values=values.astype(np.float32))


def _blurred(values: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    """Blur by a Gaussian of `sigma` pixels, a wide one on a smaller map.

    The difference is within 0.003 of the range even along hard edges, and a map of 8192 x 8192 takes seconds instead of
    the better part of an hour.
    """
    height, width = values.shape
    scale = min(1.0, WIDEST / sigma)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if scale < 1:
        values = np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.float64)
        sigma *= min(size) / min(width, height)
    side = 2 * max(1, round(BLUR_REACH * sigma)) + 1
    values = np.asarray(cv2.GaussianBlur(values, (side, side), sigma, borderType=cv2.BORDER_REPLICATE), np.float64)
    if scale < 1:
        values = np.clip(cv2.resize(values, (width, height), interpolation=cv2.INTER_CUBIC), 0.0, 1.0)
    return values


def finish(depth: DepthMap, options: DepthOptions, span: Span | None = None) -> tuple[DepthMap, Span | None]:
    """Apply everything that the options say to a map that stands alone: outliers, range and adjustments.

    Args:
        depth: any map.
        options: `range` and its values, and the adjustments are read.
        span: the range of several maps together, where they share one; None for the map's own or the fixed one.

    Returns:
        The map, and the values of it that are farthest and nearest; None for its extremes.
    """
    depth = without_outliers(depth, options)
    span = sequence_span(options, [depth]) if span is None else span
    return adjust(depth, options, span), adjusted_span(options, span)


def joint_span(depths: Iterable[DepthMap]) -> Span | None:
    """Return the extremes of several maps together; None for no maps."""
    ranges = [depth.range for depth in depths]
    return (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None


def sequence_span(options: DepthOptions, depths: Iterable[DepthMap]) -> Span | None:
    """Choose the range of maps that belong together: fixed, or their joint one; None for each its own.

    Args:
        options: `range`, `range_far` and `range_near` are read.
        depths: all maps of the sequence, or those that stand for it.
    """
    if options.range == "fixed":
        return options.range_far, options.range_near
    return joint_span(depths) if options.range == "shared" else None


def without_outliers(depth: DepthMap, options: DepthOptions) -> DepthMap:
    """Limit a map to its percentiles, where the options leave outliers out of its range.

    Args:
        depth: any map, before it is cut or adjusted.
        options: `range` and `range_clip` are read: so many per cent of the values at each end are limited to the next.
    """
    if options.range != "percentile":
        return depth
    low, high = np.percentile(depth.values, (options.range_clip, 100 - options.range_clip))
    return dataclasses.replace(depth, values=np.clip(depth.values, low, high)) if low < high else depth


def adjusted_span(options: DepthOptions, span: Span | None) -> Span | None:
    """Return the farthest and nearest value of a map that `adjust` has made with a shared range."""
    return (0.0, 1.0) if span is not None and options.adjusts else span


def under_mask(
    depth: DepthMap, options: DepthOptions, own: DepthMap | None, mask: npt.NDArray[np.float32] | None
) -> DepthMap:
    """Change the part of a map under a mask as the options say.

    Args:
        depth: a map with the mask's proportions.
        options: `under_mask` is read.
        own: what takes its place with "map", of the same proportions; None keeps the map.
        mask: float32 (H, W) of any size, 0 keep .. 1 repaint; None keeps the map.
    """
    if mask is None or options.under_mask == "keep":
        return depth
    hole = np.clip(DepthMap(values=mask, origin="mask").resized(depth.width, depth.height).values, 0, 1)
    if options.under_mask == "fill":
        return fill_under(depth, hole)
    return depth if own is None else replace_under(depth, own, hole)


def fill_under(depth: DepthMap, hole: npt.NDArray[np.float32]) -> DepthMap:
    """Fill the part under a mask from the depth around it, as a stretched membrane would lie.

    A plane (a floor, a wall) is continued as a plane. If the mask leaves nothing around, the hole gets the mean.

    Args:
        depth: any map.
        hole: float32 (H, W) of the map's size, 0 keep .. 1 fill; above `HOLE` it is filled.

    Raises:
        DepthMapError: the mask has another size.
    """
    _check_mask(depth, hole)
    known = ~(hole > HOLE)
    return depth if known.all() else dataclasses.replace(depth, values=fill(depth.values, known))


def fill(values: npt.NDArray[np.float32], known: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Fill the values that are not known from their surroundings, as a stretched membrane would lie.

    Args:
        values: float32 (H, W), finite.
        known: bool (H, W); nothing known gives the mean.

    Returns:
        float32 (H, W) within the range of `values`.
    """
    empty = ~known
    if not empty.any():
        return values
    rows, columns = np.flatnonzero(empty.any(axis=1)), np.flatnonzero(empty.any(axis=0))
    # One more pixel on each side: what the membrane is fixed to.
    part = np.s_[max(rows[0] - 1, 0) : rows[-1] + 2, max(columns[0] - 1, 0) : columns[-1] + 2]
    filled = values.astype(np.float64)
    filled[part] = _membrane(filled[part], known[part])
    return np.clip(filled, float(values.min()), float(values.max())).astype(np.float32)


def replace_under(depth: DepthMap, other: DepthMap, hole: npt.NDArray[np.float32]) -> DepthMap:
    """Replace the part under a mask by another map, stretched to this map's range.

    Args:
        depth: any map.
        other: a map of the same proportions, any size.
        hole: float32 (H, W) of `depth`'s size, 0 keep .. 1 replace, partly in between.

    Raises:
        DepthMapError: the mask has another size.
    """
    _check_mask(depth, hole)
    low, high = depth.range
    inserted = low + (high - low) * other.resized(depth.width, depth.height).normalised()
    return dataclasses.replace(depth, values=depth.values * (1 - hole) + inserted * hole)


def _check_mask(depth: DepthMap, hole: npt.NDArray[np.float32]) -> None:
    if hole.shape != depth.values.shape:
        raise DepthMapError(
            "The mask has another size than the depth map.",
            got=f"{hole.shape[1]} x {hole.shape[0]} for {depth.width} x {depth.height}",
        )


def _membrane(values: npt.NDArray[np.float64], known: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Solve Laplace's equation where values are unknown, coarse to fine."""
    if known.all() or not known.any():
        return values if known.any() else np.full_like(values, values.mean())
    height, width = values.shape
    weight = known.astype(np.float64)
    if min(height, width) <= COARSEST:
        guess = np.full_like(values, values[known].mean())
    else:
        size = ((width + 1) // 2, (height + 1) // 2)
        small_weight = np.asarray(cv2.resize(weight, size, interpolation=cv2.INTER_AREA))
        small = np.asarray(cv2.resize(values * weight, size, interpolation=cv2.INTER_AREA))
        small_known = small_weight > 0
        small = _membrane(np.where(small_known, small / np.maximum(small_weight, 1e-12), 0.0), small_known)
        guess = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))
    solved = np.where(known, values, guess)
    for _ in range(FILL_ITERATIONS if values.size <= LARGE else FEW_ITERATIONS):
        around = cv2.filter2D(solved, -1, NEIGHBOURS, borderType=cv2.BORDER_REPLICATE)
        solved = np.where(known, values, around)
    return solved
