"""Decide which depth a picture is generated with.

The one place where `source`, `under_mask`, `estimate_on` and `hires` are looked at together: the engine, the WebUI's
jobs and its preview all follow what is decided here.
"""

from __future__ import annotations

import dataclasses
import enum

import numpy as np
import numpy.typing as npt

from ..options import DepthOptions
from .adjustments import adjust, adjusted_span, under_mask, without_outliers
from .depth_map import DepthMap, Span
from .placement import Placement

Mask = npt.NDArray[np.float32]
"""float32 (H, W), 0 keep .. 1 repaint."""


class Basis(enum.Enum):
    """The origin of a picture's depth map."""

    OWN_MAP = "the user's own map"
    REFERENCE = "an estimate on another picture"
    ORIGINAL = "an estimate on the picture as the user gave it"
    ENTERING = "an estimate on the picture as it enters the sampler"


@dataclasses.dataclass(frozen=True, eq=False)
class Framing:
    """The way a picture enters the sampler, as far as its depth is concerned.

    Attributes:
        placement: where the frame lies in the picture.
        mask: of the frame; None without one.
        whole_mask: of the whole picture, where the frame is a box of it; None without one.
        has_original: whether depth can be estimated on the whole picture: it is there, and the box lies inside it.
    """

    placement: Placement
    mask: Mask | None = None
    whole_mask: Mask | None = None
    has_original: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class PlacedMap:
    """A map in the frame.

    Attributes:
        depth: adjusted, with the frame's proportions.
        span: the values that are farthest and nearest, None for the map's own.
        raw: what was adjusted: the map in the frame, or of the whole picture where `whole` is given.
        whole: the adjusted map of the whole picture where the frame is a box of it and the map covers more.
    """

    depth: DepthMap
    span: Span | None
    raw: DepthMap
    whole: DepthMap | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Resolved:
    """Which depth a picture is generated with.

    Attributes:
        basis: what the map comes from; one that is estimated on the entering picture covers the frame, every other the
            whole picture.
        placement: where the frame lies in the picture.
        mask: where the map is filled or replaced as `under_mask` says, over what the map covers; None keeps all of it.
        options: `under_mask` and the adjustments are read.
    """

    basis: Basis
    placement: Placement
    mask: Mask | None
    options: DepthOptions

    def place(self, depth: DepthMap, own: DepthMap | None, span: Span | None = None) -> PlacedMap:
        """Bring a map into the frame: the part under the mask replaced, adjusted, then cut.

        A map of the whole picture is adjusted before the frame's box is cut out of it, and the part keeps the whole
        map's range.

        Args:
            depth: the map that `basis` names; any proportions unless it covers the frame.
            own: the user's map of the whole picture, for `under_mask` "map".
            span: a range that several pictures share, in raw values; None for the map's own.
        """
        in_frame = self.basis is Basis.ENTERING
        depth = without_outliers(depth, self.options)
        own = None if own is None else without_outliers(own, self.options)
        fitted = self.placement.part if in_frame else self.placement.fitted
        other = None if own is None or self.mask is None else fitted(own)
        raw = under_mask(depth if in_frame else fitted(depth), self.options, other, self.mask)
        adjusted, kept = adjust(raw, self.options, span), adjusted_span(self.options, span)
        if in_frame or self.placement.box is None:
            return PlacedMap(adjusted, kept, raw)
        return PlacedMap(self.placement.boxed(adjusted), kept or adjusted.range, raw, adjusted)


def resolve(options: DepthOptions, framing: Framing, *, hires: bool = False) -> Resolved | None:
    """Decide what a picture's depth map comes from, where it lies, and what happens to it under the mask.

    Args:
        options: of the job.
        framing: how the picture enters the sampler.
        hires: the pass is a hires pass, and its picture is at hand.

    Returns:
        The decision; None where depth is off.
    """
    if not options.enabled:
        return None
    basis = _basis(options, framing, hires)
    covers_frame = basis is Basis.ENTERING or framing.placement.box is None
    mask = framing.mask if covers_frame else framing.whole_mask
    keeps = options.under_mask == "keep" or (options.under_mask == "map" and basis is Basis.OWN_MAP)
    return Resolved(basis, framing.placement, None if keeps else mask, options)


def _basis(options: DepthOptions, framing: Framing, hires: bool) -> Basis:
    if not (hires and options.hires == "estimate"):
        if options.source == "map":
            return Basis.OWN_MAP
        if options.source == "reference":
            return Basis.REFERENCE
        partial = framing.placement.box is not None
        on_original = options.estimate_on == "original" or (options.estimate_on == "auto" and partial)
        if on_original and framing.has_original:
            return Basis.ORIGINAL
    return Basis.ENTERING
