"""Describe problems of a user's own depth map: the same sentences in panel, command line, batch and API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ..options import DepthOptions
from .depth_map import DepthMap

UPSIDE_DOWN: Final = 0.2
"""Difference between the upper and the lower quarter from which a map is suspected to have black = near."""

NARROW: Final = 0.02
"""A part of the range as small as this, five of 256 grey levels, shows no shape any more."""

MOST: Final = 0.5
"""Part of the picture in so small a part of the range from which on that is worth saying."""

EIGHT: Final = 8
"""Bits of a map that a program has stretched to black and white: what is 0 there is the nearest, not a hole."""

SAMPLE: Final = 250_000
"""So many pixels, in a regular grid, are looked at."""


def hints(depth: DepthMap, options: DepthOptions) -> dict[str, str]:
    """Say what is noteworthy about a user's depth map: how it was read, and what the options may have missed.

    Args:
        depth: the map as `read_depth_map` returns it, before `adjust`.
        options: `holds`, `invert` and `range` are read; what they deal with already is not said.

    Returns:
        What it is about ("reading", "distances", "inverted", "bits", "crowded") -> one or two sentences; empty for
        most maps.
    """
    found = {"reading": depth.notice} if depth.notice else {}
    if not options.invert:
        if depth.distances:
            found["distances"] = (
                f"The depth map seems to hold distances: {depth.distances}. If so, choose 'Map holds': Distance."
            )
        elif looks_inverted(depth):
            found["inverted"] = f"Black seems to be near in the depth map. If so, choose {REMEDIES[options.holds]}."
    if options.holds == "distance" and depth.bits == EIGHT:
        found["bits"] = (
            "The depth map has 8 bits, which hold the order of distances at best, not distances. If black is near in "
            "it, choose 'Invert' instead of 'Map holds': Distance."
        )
    part = crowded(depth)
    if part is not None and options.range == "own":
        share, width = part
        found["crowded"] = (
            f"{share:.0%} of the depth map lies within {width:.2g} of its range, so that little of its shape counts. "
            "Choose 'Range': Without outliers, or clip it with 'Near' and 'Far'."
        )
    return found


AS_DISTANCES: Final = "choose 'Map holds': Distance"
"""The remedy that a page offers as a button beside the sentence; only where it is one is it worded so."""

REMEDIES: Final = {
    "nearness": "'Map holds': Distance if the numbers are distances, otherwise 'Invert'",
    "distance": "'Map holds': Nearness",
}
"""`holds` -> remedy when the near side seems to be black."""


def noteworthy(depth: DepthMap | None, options: DepthOptions) -> list[str]:
    """Say what `hints` does, but for how the map was read, which `view.describe` says; empty without a map."""
    return [] if depth is None else [one for kind, one in hints(depth, options).items() if kind != "reading"]


def counted(found: Sequence[tuple[str, Mapping[str, str]]]) -> list[str]:
    """Sum up the hints about several maps: each kind of thing once, with the first map's sentence and a count.

    Args:
        found: name of a map -> what `hints` says about it.
    """
    sentences = []
    for kind in dict.fromkeys(kind for _, said in found for kind in said):
        name, sentence = next((name, said[kind]) for name, said in found if kind in said)
        count = sum(kind in said for _, said in found)
        more = f" So it is with {count} of {len(found)} depth maps." if count > 1 else ""
        sentences.append(f"{name}: {sentence}{more}")
    return sentences


def looks_inverted(depth: DepthMap) -> bool:
    """Tell whether a map looks as if black were near: its upper quarter lies clearly nearer than its lower one.

    A guess, good enough to ask the user and not good enough to act upon: floors and tables are nearer below.
    """
    values = depth.normalised()
    quarter = max(1, depth.height // 4)
    return float(values[:quarter].mean() - values[-quarter:].mean()) > UPSIDE_DOWN


def crowded(depth: DepthMap) -> tuple[float, float] | None:
    """Find whether most of a map lies in a small part of its range, with a shape that is lost there.

    A flat background does not count, since it has no shape to lose.

    Returns:
        The part of the picture, and the part of the range that it lies in; None if all is well.
    """
    low, high = depth.range
    if high <= low:
        return None
    step = max(1, round((depth.values.size / SAMPLE) ** 0.5))
    values = np.sort(depth.values[::step, ::step], axis=None).astype(np.float64)
    # The window of that width with the most values in it.
    ends = np.searchsorted(values, values + NARROW * (high - low), "right")
    counts = ends - np.arange(values.size)
    begin = int(counts.argmax())
    inside = values[begin : ends[begin]]
    if inside.size < MOST * values.size or _flat(inside):
        return None
    return inside.size / values.size, float(inside[-1] - inside[0]) / (high - low)


def _flat(values: npt.NDArray[np.float64]) -> bool:
    """Tell whether sorted values are all but one value: its middle half is no wider than rounding."""
    quarter = values.size // 4
    return bool(values[-1 - quarter] - values[quarter] <= 1e-6 * max(abs(values[0]), abs(values[-1])))
