"""Each adjustment's formula, on the map stretched to 0..1."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth2img import DepthMap, DepthMapError, DepthOptions, adjust
from depth2img.depth.adjustments import (
    adjusted_span,
    fill_under,
    finish,
    joint_span,
    replace_under,
    sequence_span,
    under_mask,
    without_outliers,
)
from tests.refusing import refused

EXACT = 1e-6
"""The formulas are evaluated in float64 and stored in float32 between 0 and 1: half of 2**-23."""


def stretched(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    return (values - values.min()) / (values.max() - values.min())


def test_defaults_return_the_same_object(smooth):
    depth = DepthMap(smooth)
    assert adjust(depth, DepthOptions()) is depth
    assert adjust(depth, DepthOptions(append_map=True, save_map=True)) is depth


def test_origin_and_bits_stay(smooth):
    depth = adjust(DepthMap(smooth, origin="PNG", bits=16), DepthOptions(gamma=2.0))
    assert (depth.origin, depth.bits) == ("PNG", 16)
    assert depth.values.shape == smooth.shape


def test_the_given_map_stays(smooth):
    depth = DepthMap(smooth)
    adjust(depth, DepthOptions(near=0.7, far=0.2, gamma=2.0, blur=3.0, invert=True))
    np.testing.assert_array_equal(depth.values, smooth)


def test_invert(smooth):
    result = adjust(DepthMap(smooth), DepthOptions(invert=True)).values
    np.testing.assert_allclose(result, 1 - stretched(smooth), atol=EXACT)
    assert result.argmax() == smooth.argmin()


def test_invert_twice_is_the_stretched_map(smooth):
    once = adjust(DepthMap(smooth), DepthOptions(invert=True))
    np.testing.assert_allclose(adjust(once, DepthOptions(invert=True)).values, stretched(smooth), atol=EXACT)


@pytest.mark.parametrize(("near", "far"), [(0.7, 0.0), (1.0, 0.3), (0.8, 0.25), (0.51, 0.5)])
def test_clip(smooth, near, far):
    result = adjust(DepthMap(smooth), DepthOptions(near=near, far=far)).values
    # The slope 1 / (near - far) magnifies the float32 steps of the stretched map.
    np.testing.assert_allclose(
        result, np.clip((stretched(smooth) - far) / (near - far), 0, 1), atol=EXACT / (near - far)
    )
    assert (result.min(), result.max()) == (0, 1)


def test_near_flattens_the_near_end_and_far_the_far_end(smooth):
    part = stretched(smooth)
    near = adjust(DepthMap(smooth), DepthOptions(near=0.6)).values
    assert (near[part > 0.61] == 1).all()
    assert (near[part < 0.59] < 1).all()
    far = adjust(DepthMap(smooth), DepthOptions(far=0.4)).values
    assert (far[part < 0.39] == 0).all()
    assert (far[part > 0.41] > 0).all()


@pytest.mark.parametrize("gamma", [0.1, 0.5, 2.0, 10.0])
def test_gamma(smooth, gamma):
    result = adjust(DepthMap(smooth), DepthOptions(gamma=gamma)).values
    # A root's slope is unbounded at 0; there one float32 step of the input is much more in the output.
    inner = stretched(smooth) > 0.05
    np.testing.assert_allclose(result[inner], stretched(smooth)[inner] ** (1 / gamma), atol=10 * EXACT)
    assert (result.min(), result.max()) == (0, 1)


def test_gamma_above_one_brings_the_middle_nearer(smooth):
    middle = (stretched(smooth) > 0.2) & (stretched(smooth) < 0.8)
    plain = stretched(smooth)[middle]
    assert (adjust(DepthMap(smooth), DepthOptions(gamma=1.5)).values[middle] > plain).all()
    assert (adjust(DepthMap(smooth), DepthOptions(gamma=0.7)).values[middle] < plain).all()


def test_blur_is_a_gaussian_in_per_cent_of_the_shorter_side():
    values = np.zeros((101, 151), np.float32)
    values[50, 75] = 1
    result = adjust(DepthMap(values), DepthOptions(blur=4.0)).values
    sigma = 4.04  # 4 % of 101
    rows, columns = np.mgrid[-50:51, -75:76]
    wanted = np.exp(-(rows**2 + columns**2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    # The kernel ends at three standard deviations, which leaves out 0.5 % of the weight.
    assert np.abs(result - wanted).max() < 0.01 * wanted.max()
    assert result[50, 75 + 12] > 0 == result[50, 75 + 13], "12.12 pixels are three of them"
    assert abs(result.sum() - 1) < 1e-4


@pytest.mark.parametrize(("height", "width"), [(700, 1000), (1100, 640)])
def test_a_wide_blur_is_the_same_gaussian(rng, height, width):
    """It is done on a smaller map; here against the whole kernel, with hard edges everywhere."""
    values = cv2.resize(rng.random((9, 7)), (width, height), interpolation=cv2.INTER_NEAREST).astype(np.float32)
    depth = DepthMap(values)
    sigma = 0.08 * min(height, width)
    side = 2 * round(3 * sigma) + 1
    exact = cv2.GaussianBlur(
        depth.normalised().astype(np.float64), (side, side), sigma, borderType=cv2.BORDER_REPLICATE
    )
    assert np.ptp(exact) > 0.3
    np.testing.assert_allclose(adjust(depth, DepthOptions(blur=8.0)).values, exact, atol=3e-3)


@pytest.mark.parametrize(("blur", "exact"), [(8.0, True), (8.1, False)])
def test_a_blur_of_up_to_32_pixels_is_done_at_full_size(rng, blur, exact):
    """Which shows: the small map is another one, if not by much."""
    values = cv2.resize(rng.random((5, 7)), (500, 400), interpolation=cv2.INTER_NEAREST).astype(np.float32)
    sigma, depth = blur / 100 * 400, DepthMap(values)
    side = 2 * round(3 * sigma) + 1
    whole = cv2.GaussianBlur(
        depth.normalised().astype(np.float64), (side, side), sigma, borderType=cv2.BORDER_REPLICATE
    )
    apart = np.abs(adjust(depth, DepthOptions(blur=blur)).values - whole).max()
    assert apart < EXACT if exact else 10 * EXACT < apart < 3e-3


def test_blur_repeats_the_edges():
    values = np.tile(np.linspace(0, 1, 60, dtype=np.float32)[:, None], (1, 40))
    result = adjust(DepthMap(values), DepthOptions(blur=3.0)).values
    np.testing.assert_allclose(result, result[:, :1].repeat(40, 1), atol=EXACT)
    # With black borders the nearest row would lose about half its value.
    assert result[-1, 0] > 0.97
    assert result[0, 0] < 0.03


def test_the_smallest_blur_of_a_tiny_map(smooth):
    result = adjust(DepthMap(smooth[:2, :3]), DepthOptions(blur=0.1)).values
    assert np.isfinite(result).all()


def test_order_is_invert_clip_gamma_blur(smooth):
    options = DepthOptions(near=0.8, far=0.3, gamma=2.2, blur=4.0, invert=True)
    wanted = 1 - stretched(smooth)
    wanted = np.clip((wanted - 0.3) / 0.5, 0, 1) ** (1 / 2.2)
    sigma = 4.0 / 100 * 23
    side = 2 * round(3 * sigma) + 1
    wanted = cv2.GaussianBlur(wanted, (side, side), sigma, borderType=cv2.BORDER_REPLICATE)
    # Gamma's root next to 0 magnifies float32 steps; blurring spreads that.
    np.testing.assert_allclose(adjust(DepthMap(smooth), options).values, wanted, atol=1e-4)


@given(
    near=st.floats(0.01, 1),
    part=st.floats(0, 0.99),
    gamma=st.floats(0.1, 10),
    blur=st.floats(0, 10),
    invert=st.booleans(),
    flat=st.booleans(),
)
def test_any_adjustment_gives_a_map_between_zero_and_one(near, part, gamma, blur, invert, flat):
    options = DepthOptions(near=near, far=near * part, gamma=gamma, blur=blur, invert=invert)
    values = np.full((5, 7), 3.0) if flat else np.arange(35.0).reshape(5, 7)
    depth = DepthMap(values.astype(np.float32))
    result = adjust(depth, options)
    if result is not depth:
        # Blurring sums rounded weights.
        assert result.range[0] >= -1e-6
        assert result.range[1] <= 1 + 1e-6
        if flat:
            assert np.ptp(result.values) < 1e-6


# --- under a mask ------------------------------------------------------------------------------------------------


def plane(height=48, width=64):
    rows, columns = np.mgrid[0:height, 0:width]
    return (0.5 * rows + 0.25 * columns).astype(np.float32)


def hole_of(shape, rows, columns):
    hole = np.zeros(shape, np.float32)
    hole[rows, columns] = 1.0
    return hole


def test_a_plane_runs_on_under_the_mask():
    """An object before a floor and a wall: removed without a trace."""
    values, hole = plane(), hole_of((48, 64), slice(10, 35), slice(20, 50))
    with_object = np.where(hole > 0, 100.0, values).astype(np.float32)
    filled = fill_under(DepthMap(values=with_object), hole).values
    assert np.abs(filled - values).max() < 0.25
    assert np.array_equal(filled[hole == 0], values[hole == 0])


def test_a_hole_at_the_edge_is_filled():
    hole = hole_of((48, 64), slice(30, 48), slice(0, 64))
    filled = fill_under(DepthMap(values=np.where(hole > 0, 99.0, 3.0).astype(np.float32)), hole).values
    assert filled == pytest.approx(3.0)


@pytest.mark.parametrize("amount", [0.0, 1.0])
def test_a_mask_of_nothing_or_everything(amount):
    filled = fill_under(DepthMap(values=plane()), np.full((48, 64), amount, np.float32)).values
    assert np.array_equal(filled, plane()) if amount == 0 else np.ptp(filled) == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 5), (257, 129)])
def test_filling_any_size_stays_within_the_range(shape):
    generator = np.random.default_rng(3)
    values = generator.normal(size=shape).astype(np.float32)
    hole = (generator.random(shape) > 0.5).astype(np.float32)
    filled = fill_under(DepthMap(values=values), hole).values
    assert filled.shape == shape and np.isfinite(filled).all()
    assert filled.min() >= values.min() and filled.max() <= values.max()


def uneven():
    """37 x 52, with a step that no smooth surface continues."""
    rows, columns = np.mgrid[:37, :52]
    return DepthMap((10 + np.sin(rows / 5) * 3 + columns / 9 + (columns > 30) * 4).astype(np.float32))


@pytest.mark.parametrize(
    ("rows", "columns", "mean", "some"),
    [
        (slice(9, 29), slice(14, 40), 14.54320, (14.37428, 16.65535, 12.30198, 16.55906)),
        (slice(20, 37), slice(0, 23), 10.31608, (8.44489, 10.25608, 10.19918, 14.07510)),
        (slice(5, 7), slice(3, 49), 16.95561, (12.79363, 19.92551, 14.57717, 21.92602)),
        (slice(4, 30, 5), slice(6, 44, 4), 13.94368, (12.79729, 11.66162, 7.70796)),
        (slice(0, 37), slice(44, 52), 18.96751, (19.40551, 20.06947, 17.38793, 18.89121)),
    ],
    ids=["inside", "corner", "slit", "dots", "edge"],
)
def test_the_membrane_is_the_one_it_was(rows, columns, mean, some):
    """Steps and sizes of the solver show in the fourth digit: pictures are to stay what they were."""
    filled = fill_under(uneven(), hole_of((37, 52), rows, columns)).values[rows, columns].ravel()
    # float32 steps at 10 to 20 are 1 or 2e-6; the figures are rounded to 1e-5.
    assert filled.mean(dtype=np.float64) == pytest.approx(mean, abs=2e-5)
    assert filled[:: len(filled) // 3].tolist() == pytest.approx(some, abs=2e-5)


def test_the_faint_rim_of_a_mask_is_kept():
    """Up to `HOLE`, and not a bit above."""
    depth, hole = uneven(), np.zeros((37, 52), np.float32)
    hole[9:29, 14:40] = np.float32(0.02)
    assert fill_under(depth, hole) is depth
    hole[9:29, 14:40] = np.float32(0.0201)
    assert not np.array_equal(fill_under(depth, hole).values, depth.values)


def test_origin_and_bits_stay_under_a_mask():
    depth, hole = DepthMap(plane(), origin="PNG", bits=16), hole_of((48, 64), slice(9, 20), slice(9, 20))
    for changed in (fill_under(depth, hole), replace_under(depth, uneven(), hole)):
        assert (changed.origin, changed.bits) == ("PNG", 16)


def test_another_map_counts_partly_where_the_mask_is_grey():
    depth, other = uneven(), DepthMap(uneven().values[::-1, ::-1].copy())
    hole = np.linspace(0, 1, 52, dtype=np.float32)[None].repeat(37, 0)
    wanted = depth.values * (1 - hole) + other.values * hole
    # The other map is stretched to 0..1 and back, in float32.
    np.testing.assert_allclose(replace_under(depth, other, hole).values, wanted, atol=1e-5)


FILL, MAP = DepthOptions(under_mask="fill"), DepthOptions(under_mask="map", depth_map=plane())


@pytest.mark.parametrize("options", [DepthOptions(), FILL, MAP])
def test_without_a_mask_the_map_is_kept(options):
    depth = uneven()
    assert under_mask(depth, options, DepthMap(plane(37, 52)), None) is depth


def test_with_a_mask_the_map_is_kept_where_it_is_to_be():
    depth, hole = uneven(), np.ones((37, 52), np.float32)
    assert under_mask(depth, DepthOptions(), DepthMap(plane(37, 52)), hole) is depth
    assert under_mask(depth, MAP, None, hole) is depth


def test_a_mask_of_any_size_is_brought_to_the_maps():
    """And limited to 0..1."""
    depth, own = uneven(), DepthMap(plane(40, 60))
    large = np.linspace(-0.5, 1.5, 104, dtype=np.float32)[None].repeat(74, 0)
    hole = np.clip(DepthMap(large).resized(52, 37).values, 0, 1)
    assert hole.min() == 0 and hole.max() == 1
    np.testing.assert_array_equal(under_mask(depth, FILL, own, large).values, fill_under(depth, hole).values)
    np.testing.assert_array_equal(under_mask(depth, MAP, own, large).values, replace_under(depth, own, hole).values)


# --- ranges ------------------------------------------------------------------------------------------------------


def spread(low, high):
    return DepthMap(np.array([[low, high, low]], np.float32))


def test_the_joint_range_of_several_maps():
    assert joint_span([]) is None
    assert joint_span([spread(2, 5)]) == (2, 5)
    assert joint_span(iter([spread(2, 5), spread(-1, 3), spread(0, 9), spread(4, 6)])) == (-1, 9)


def test_the_range_of_a_sequence():
    maps = [spread(2, 5), spread(-1, 3)]
    assert sequence_span(DepthOptions(), maps) is None
    assert sequence_span(DepthOptions(range="shared"), maps) == (-1, 5)
    assert sequence_span(DepthOptions(range="fixed", range_far=-3, range_near=8), maps) == (-3, 8)


def test_an_adjusted_map_has_been_stretched_by_the_shared_range():
    assert adjusted_span(DepthOptions(), None) is None
    assert adjusted_span(DepthOptions(), (2.0, 5.0)) == (2, 5)
    assert adjusted_span(DepthOptions(blur=1.0), None) is None
    assert adjusted_span(DepthOptions(blur=1.0), (2.0, 5.0)) == (0, 1)


def test_adjustments_stretch_by_a_shared_range():
    result = adjust(spread(2, 5), DepthOptions(invert=True), (0.0, 10.0)).values
    np.testing.assert_allclose(result, [[0.8, 0.5, 0.8]], atol=EXACT)


@pytest.mark.parametrize("span", [(3.0, 3.0), (5.0, 2.0)])
def test_a_shared_range_of_nothing_is_no_range(span):
    result = adjust(spread(2, 5), DepthOptions(invert=True), span).values
    np.testing.assert_array_equal(result, [[1, 0, 1]])


def test_another_map_under_the_mask_takes_this_range():
    hole = hole_of((48, 64), slice(0, 48), slice(0, 32))
    other = DepthMap(values=np.tile(np.linspace(7000, 9000, 64, dtype=np.float32), (48, 1)))
    mixed = replace_under(DepthMap(values=plane() + 5), other, hole).values
    low, high = plane().min() + 5, plane().max() + 5
    assert np.array_equal(mixed[:, 32:], plane()[:, 32:] + 5)
    assert mixed[7, :32] == pytest.approx(np.linspace(low, high, 64)[:32], abs=1e-3)


@pytest.mark.parametrize("shape", [(4, 5), (48, 5), (4, 64)])
def test_a_mask_of_another_size_is_refused(shape):
    depth, hole = DepthMap(values=plane()), np.zeros(shape, np.float32)
    for change in (lambda: fill_under(depth, hole), lambda: replace_under(depth, depth, hole)):
        with refused(DepthMapError, got=f"{shape[1]} x {shape[0]} for 64 x 48", fix=False):
            change()


@pytest.mark.parametrize("clip", [0.5, 1.0, 10.0])
def test_outliers_are_limited(clip):
    values = np.concatenate([np.linspace(0, 1, 998), [-5000, 70_000]]).astype(np.float32).reshape(20, 50)
    limited = without_outliers(DepthMap(values), DepthOptions(range="percentile", range_clip=clip))
    # 0 to 1 in 998 steps: the percentiles lie within one step of these.
    assert limited.range == pytest.approx((clip / 100, 1 - clip / 100), abs=2e-3)
    inside = (values > 0.2) & (values < 0.8)
    assert np.array_equal(limited.values[inside], values[inside])


def test_outliers_stay_where_nothing_says_otherwise(smooth):
    depth = DepthMap(smooth)
    assert without_outliers(depth, DepthOptions()) is depth
    mostly_flat = DepthMap(np.array([[0.0] * 99 + [1.0]], np.float32))
    assert without_outliers(mostly_flat, DepthOptions(range="percentile", range_clip=5.0)) is mostly_flat


def test_a_map_that_stands_alone_has_all_that_the_options_say(smooth):
    depth = DepthMap(smooth)
    assert finish(depth, DepthOptions()) == (depth, None)
    fixed = DepthOptions(range="fixed", range_far=0.0, range_near=100.0)
    assert finish(depth, fixed) == (depth, (0.0, 100.0))
    assert finish(depth, DepthOptions(), (0.0, 50.0)) == (depth, (0.0, 50.0))
    made, span = finish(depth, dataclasses.replace(fixed, gamma=2.0))
    np.testing.assert_array_equal(made.values, adjust(depth, dataclasses.replace(fixed, gamma=2.0), (0, 100)).values)
    assert span == (0.0, 1.0)
    both = DepthOptions(range="percentile", range_clip=10.0, invert=True)
    made, span = finish(depth, both)
    np.testing.assert_array_equal(made.values, adjust(without_outliers(depth, both), both).values)
    assert span is None
