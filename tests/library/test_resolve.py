"""Which depth a picture is generated with, and the map in the frame that comes of it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from depth2img import DepthMap, DepthOptions
from depth2img.depth.adjustments import fill_under, replace_under
from depth2img.depth.depth_map import Span
from depth2img.depth.placement import Placement, ResizeMode
from depth2img.depth.resolve import Basis, Framing, Mask, PlacedMap, Resolved, resolve

BOXED = Placement(picture=(30, 20), frame=(16, 16), box=(4, 6, 12, 10), resize_mode=ResizeMode.CROP_AND_RESIZE)
WHOLE = Placement(picture=(30, 20), frame=(30, 20), box=None, resize_mode=ResizeMode.CROP_AND_RESIZE)


def smooth(height: int, width: int) -> DepthMap:
    rows, columns = np.mgrid[:height, :width]
    return DepthMap(values=(3 + np.sin(rows / 7) + columns / 20).astype(np.float32))


# --- what is decided ---------------------------------------------------------------------------------------------

IN_FRAME = np.full((16, 16), 0.5, np.float32)
IN_PICTURE = np.full((20, 30), 0.25, np.float32)


def decided(placement: Placement, *, is_hires: bool = False, original: bool = True, **options: Any) -> Resolved:
    framing = Framing(placement, IN_FRAME, IN_PICTURE, original)
    given = {"map": {"depth_map": OWN}, "reference": {"reference": np.zeros((4, 4, 3), np.uint8)}}
    resolved = resolve(DepthOptions(**given.get(options.get("source", ""), {}), **options), framing, hires=is_hires)
    assert resolved is not None
    return resolved


def test_off_is_nothing_at_all() -> None:
    assert resolve(DepthOptions(enabled=False), Framing(WHOLE)) is None


@pytest.mark.parametrize(
    ("estimate_on", "placement", "original", "basis"),
    [
        ("auto", WHOLE, True, Basis.ENTERING),
        ("auto", BOXED, True, Basis.ORIGINAL),
        ("auto", BOXED, False, Basis.ENTERING),
        ("original", WHOLE, True, Basis.ORIGINAL),
        ("original", BOXED, True, Basis.ORIGINAL),
        ("original", WHOLE, False, Basis.ENTERING),
        ("original", BOXED, False, Basis.ENTERING),
        ("entering", WHOLE, True, Basis.ENTERING),
        ("entering", BOXED, True, Basis.ENTERING),
    ],
)
def test_what_is_estimated(estimate_on: str, placement: Placement, original: bool, basis: Basis) -> None:
    resolved = decided(placement, original=original, estimate_on=estimate_on)
    assert resolved.basis is basis and resolved.placement is placement


@pytest.mark.parametrize("estimate_on", ["auto", "original", "entering"])
@pytest.mark.parametrize(("source", "basis"), [("map", Basis.OWN_MAP), ("reference", Basis.REFERENCE)])
@pytest.mark.parametrize("placement", [WHOLE, BOXED])
def test_what_is_given_goes_first(source: str, basis: Basis, estimate_on: str, placement: Placement) -> None:
    assert decided(placement, source=source, estimate_on=estimate_on).basis is basis


@pytest.mark.parametrize("source", ["picture", "map", "reference"])
@pytest.mark.parametrize("estimate_on", ["auto", "original"])
def test_a_hires_pass_estimates_again_only_where_it_is_asked_to(source: str, estimate_on: str) -> None:
    first = decided(WHOLE, source=source, estimate_on=estimate_on)
    again = {"source": source, "estimate_on": estimate_on, "hires": "estimate"}
    assert decided(WHOLE, source=source, estimate_on=estimate_on, is_hires=True).basis is first.basis
    assert decided(WHOLE, **again).basis is first.basis
    assert decided(WHOLE, **again, is_hires=True).basis is Basis.ENTERING


@pytest.mark.parametrize(
    ("under_mask", "source"), [*itertools.product(["fill", "map"], ["picture", "reference", "map"])]
)
def test_the_mask_covers_what_the_map_covers(under_mask: str, source: str) -> None:
    """Of a box the map of the whole picture has the mask of the whole picture; else it is that of the frame."""
    given = {"under_mask": under_mask, "source": source}
    if under_mask == "map" and source == "map":
        assert decided(BOXED, **given).mask is None and decided(WHOLE, **given).mask is None
        return
    more = {"depth_map": OWN} if source != "map" else {}
    assert decided(BOXED, **given, **more).mask is IN_PICTURE
    assert decided(WHOLE, **given, **more).mask is IN_FRAME
    if source == "picture":
        assert decided(BOXED, estimate_on="entering", **given, **more).mask is IN_FRAME


@pytest.mark.parametrize("source", ["picture", "reference", "map"])
def test_nothing_happens_under_a_mask_that_keeps(source: str) -> None:
    assert decided(BOXED, source=source).mask is None


@pytest.mark.parametrize("placement", [WHOLE, BOXED])
def test_without_a_mask_nothing_is_under_it(placement: Placement) -> None:
    resolved = resolve(DepthOptions(under_mask="fill"), Framing(placement))
    assert resolved is not None and resolved.mask is None


# --- the map in the frame ----------------------------------------------------------------------------------------


def of_picture(
    placement: Placement,
    depth: DepthMap,
    options: DepthOptions,
    own: DepthMap | None,
    mask: Mask | None,
    span: Span | None = None,
) -> PlacedMap:
    return Resolved(Basis.ORIGINAL, placement, mask, options).place(depth, own, span)


def of_frame(
    placement: Placement,
    depth: DepthMap,
    options: DepthOptions,
    own: DepthMap | None,
    mask: Mask | None,
    span: Span | None = None,
) -> PlacedMap:
    return Resolved(Basis.ENTERING, placement, mask, options).place(depth, own, span)


OWN = DepthMap(values=np.tile(np.linspace(0, 1, 60, dtype=np.float32), (20, 1)))
"""60 x 20: of the 30 x 20 that is covered it is twice as wide."""
MASK = np.zeros((20, 30), np.float32)
MASK[4:12, 2:20] = 1


def test_a_map_of_the_picture_with_defaults() -> None:
    depth = smooth(20, 30)
    placed = of_picture(WHOLE, depth, DepthOptions(), None, None)
    assert placed.depth is depth and placed.raw is depth
    assert placed.span is None and placed.whole is None


def test_a_shared_range_is_handed_on() -> None:
    depth, span = smooth(20, 30), (1.0, 9.0)
    assert of_picture(WHOLE, depth, DepthOptions(), None, None, span).span == span
    adjusted = of_picture(WHOLE, depth, DepthOptions(gamma=2.0), None, None, span)
    assert adjusted.span == (0.0, 1.0)
    wanted = np.sqrt((depth.values - 1) / 8)
    # float32 steps of the map, stretched to 0..1 and taken the root of.
    assert adjusted.depth.values == pytest.approx(wanted, abs=1e-6)
    assert adjusted.raw is depth
    boxed = of_picture(BOXED, depth, DepthOptions(), None, None, span)
    assert boxed.span == span


def test_a_box_keeps_the_range_of_the_whole() -> None:
    depth = smooth(20, 30)
    placed = of_picture(BOXED, depth, DepthOptions(), None, None)
    assert placed.whole is depth and placed.raw is depth
    assert placed.span == depth.range
    assert np.array_equal(placed.depth.values, BOXED.boxed(depth).values)
    inverted = of_picture(BOXED, depth, DepthOptions(invert=True), None, None)
    assert inverted.whole is not None and inverted.span == (0.0, 1.0)
    assert np.array_equal(inverted.depth.values, BOXED.boxed(inverted.whole).values)
    assert inverted.whole.values == pytest.approx(1 - depth.normalised(), abs=1e-6)


@pytest.mark.parametrize("placement", [WHOLE, BOXED])
def test_fill_and_own_map_in_the_picture(placement: Placement) -> None:
    """Of the map as it covers the picture, before a box is cut."""
    depth = smooth(20, 40)
    fitted = placement.fitted(depth)
    filled = of_picture(placement, depth, DepthOptions(under_mask="fill"), None, MASK)
    assert np.array_equal(filled.raw.values, fill_under(fitted, MASK).values)
    replaced = of_picture(placement, depth, DepthOptions(under_mask="map", depth_map=OWN), OWN, MASK)
    assert np.array_equal(replaced.raw.values, replace_under(fitted, placement.fitted(OWN), MASK).values)
    kept = of_picture(placement, depth, DepthOptions(), OWN, MASK)
    assert np.array_equal(kept.raw.values, fitted.values)


def test_a_map_of_the_frame_is_neither_fitted_nor_boxed() -> None:
    depth, span = smooth(16, 16), (1.0, 9.0)
    placed = of_frame(BOXED, depth, DepthOptions(), None, None)
    assert placed.depth is depth and placed.raw is depth
    assert placed.span is None and placed.whole is None
    assert of_frame(BOXED, depth, DepthOptions(), None, None, span).span == span
    adjusted = of_frame(BOXED, depth, DepthOptions(near=0.5), None, None, span)
    assert adjusted.span == (0.0, 1.0)
    assert adjusted.depth.values == pytest.approx(np.clip((depth.values - 1) / 4, 0, 1), abs=1e-6)


def test_fill_and_own_map_in_the_frame() -> None:
    """The own map is of the whole picture, and its part in the box is taken."""
    depth, mask = smooth(16, 16), np.zeros((16, 16), np.float32)
    mask[3:9, 5:15] = 1
    filled = of_frame(BOXED, depth, DepthOptions(under_mask="fill"), None, mask)
    assert np.array_equal(filled.raw.values, fill_under(depth, mask).values)
    replaced = of_frame(BOXED, depth, DepthOptions(under_mask="map", depth_map=OWN), OWN, mask)
    assert np.array_equal(replaced.raw.values, replace_under(depth, BOXED.part(OWN), mask).values)
    assert not np.array_equal(replaced.raw.values, depth.values)
