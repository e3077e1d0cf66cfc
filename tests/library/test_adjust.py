"""Each adjustment's formula, on the map stretched to 0..1."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth2img import DepthMap, DepthMapError, DepthOptions, adjust
from depth2img.depth.adjustments import fill_under, replace_under

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


def test_another_map_under_the_mask_takes_this_range():
    hole = hole_of((48, 64), slice(0, 48), slice(0, 32))
    other = DepthMap(values=np.tile(np.linspace(7000, 9000, 64, dtype=np.float32), (48, 1)))
    mixed = replace_under(DepthMap(values=plane()), other, hole).values
    low, high = plane().min(), plane().max()
    assert np.array_equal(mixed[:, 32:], plane()[:, 32:])
    assert mixed[7, :32] == pytest.approx(np.linspace(low, high, 64)[:32], abs=1e-3)


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(DepthMapError, match="another size"):
        fill_under(DepthMap(values=plane()), np.zeros((4, 4), np.float32))
