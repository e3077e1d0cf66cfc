"""Each adjustment's formula, on the map stretched to 0..1."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth2img import DepthMap, DepthOptions, adjust

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
