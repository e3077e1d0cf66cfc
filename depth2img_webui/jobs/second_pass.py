"""Passes that never ask our script: a script runs them for itself, as a face detailer does on a finished picture.

Such a pass has depth all the same, with the options of the job that started it, or else with the defaults.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from depth2img import DepthOptions
from depth2img.depth.placement import Placement
from depth2img.depth.resolve import PlacedMap
from depth2img.depth.sources import Sources
from depth2img.options import ADJUSTMENTS

from ..errors import under_way
from .request import Request, frame_of, request_of

SCHEDULE: Final = ("enabled", "strength", "start", "end", "guidance", "neutral")
"""Options that a pass takes over in any case."""

ESTIMATE: Final = ("estimator", "estimate_on", "range_far", "range_near", "range_clip", *ADJUSTMENTS)
"""Options that it takes over where depth is estimated, on its own picture."""


def request_of_pass(p: Any) -> Request:
    """Make the request of a job on which `hook.begin` was never called.

    Its picture is taken to be the finished one of the job that started it.
    """
    for outer in reversed(under_way()):
        if outer is not p and (request := request_of(outer)) is not None:
            return _taken_over(outer, request)
    return Request(DepthOptions())


def _taken_over(outer: Any, request: Request) -> Request:
    options = request.options
    kept = {name: getattr(options, name) for name in SCHEDULE}
    if not (options.enabled and request.used):
        return Request(DepthOptions(**kept))
    region = request.sources.region
    if region is not None:
        region = _placement(outer, request).part(region)
    if options.source == "picture":
        kept |= {name: getattr(options, name) for name in ESTIMATE}
        kept["range"] = "own" if options.range == "shared" else options.range
        return Request(DepthOptions(**kept), Sources(region=region))
    placed = _placed(outer, request)
    if placed.span is None:
        return Request(DepthOptions(source="map", **kept), Sources(own=placed.depth, region=region))
    own = dataclasses.replace(placed.depth, values=placed.depth.normalised(placed.span))
    fixed = DepthOptions(source="map", range="fixed", range_far=0.0, range_near=1.0, **kept)
    return Request(fixed, Sources(own=own, region=region))


def _placement(outer: Any, request: Request) -> Placement:
    framings = frame_of(outer, request).framings
    return framings[_index(outer) % len(framings)].placement


def _placed(outer: Any, request: Request) -> PlacedMap:
    """Return the map of the picture that the job has come to."""
    used = request.used.get(outer.iteration) or next(iter(request.used.values()))
    return used[_index(outer) % len(used)]


def _index(outer: Any) -> int:
    """Position in the batch of the picture that is being finished."""
    return int(getattr(outer, "batch_index", 0))
