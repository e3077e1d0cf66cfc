"""DepthMap(s) -> the tensor the UNet takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from depth2img import DepthMap, DepthMapError, conditioning
from depth2img.depth.conditioning import neutral


def host(values: np.ndarray, height: int, width: int) -> torch.Tensor:
    """`depth2img_image_conditioning` of the host, from the network's output on (modules/processing.py, 1.10.1)."""
    depth = torch.nn.functional.interpolate(
        torch.tensor(values)[None, None], size=(height, width), mode="bicubic", align_corners=False
    )
    (depth_min, depth_max) = torch.aminmax(depth)
    return 2.0 * (depth - depth_min) / (depth_max - depth_min) - 1.0


@pytest.mark.parametrize(("height", "width"), [(64, 64), (12, 20), (20, 12), (23, 37), (96, 128), (1, 9)])
def test_equals_the_host_bit_for_bit(smooth, height, width):
    result = conditioning([DepthMap(smooth)], height=height, width=width)
    assert torch.equal(result, host(smooth, height, width))


def test_contract(smooth):
    result = conditioning([DepthMap(smooth)] * 3, height=12, width=20)
    assert result.dtype == torch.float32
    assert result.shape == (3, 1, 12, 20)
    assert result.device.type == "cpu"
    assert torch.equal(result.amax((1, 2, 3)), torch.ones(3))
    assert torch.equal(result.amin((1, 2, 3)), -torch.ones(3))


def test_near_is_plus_one_and_stays_in_its_corner():
    values = np.full((20, 40), 2.0, np.float32)
    values[:10, 30:] = 9  # near: top right
    result = conditioning([DepthMap(values)], height=8, width=16)[0, 0]
    assert result[0, 15] > 0.8
    assert result[7].max() < -0.8
    assert result[:, :8].max() < -0.8


def test_each_sample_by_its_own_extremes(smooth):
    far = DepthMap(smooth)
    near = DepthMap(smooth[::-1] * 50 + 1000)
    both = conditioning([far, near], height=12, width=20)
    assert torch.equal(both[0:1], host(far.values, 12, 20))
    assert torch.equal(both[1:2], host(near.values, 12, 20))


def test_maps_of_different_sizes_in_one_batch(smooth):
    small = DepthMap(smooth[:7, :31])
    result = conditioning([DepthMap(smooth), small], height=12, width=20)
    assert torch.equal(result[1:], host(small.values, 12, 20))


def test_order_of_a_batch_with_repeats(smooth):
    first, second = DepthMap(smooth), DepthMap(smooth[:, ::-1])
    result = conditioning([first, second, first, second], height=12, width=20)
    assert torch.equal(result[0], result[2])
    assert torch.equal(result[1], result[3])
    assert not torch.equal(result[0], result[1])


@pytest.mark.parametrize("level", [0.0, 1.0, -7.5, 1e-30, 1234.5, 9e29, -9e29])
@pytest.mark.parametrize("side", [1, 23, 384])
def test_flat_map_is_neutral(level, side):
    depth = DepthMap(np.full((side, side + 14), level, np.float32))
    for height, width in ((12, 20), (64, 64), (48, 80), (5, 7), (1, 9)):
        result = conditioning([depth], height=height, width=width)
        assert torch.equal(result, neutral(1, height=height, width=width))
        assert not torch.signbit(result).any()


@given(st.floats(-(2.0**99), 2.0**99, width=32), *[st.integers(1, 40)] * 4)
def test_no_flat_map_of_any_size_ripples(level, rows, columns, height, width):
    depth = DepthMap(np.full((rows, columns), level, np.float32))
    assert not conditioning([depth], height=height, width=width).any()


def test_one_step_of_a_sixteen_bit_map_is_not_flat():
    values = np.full((24, 40), 65534, np.float32)
    values[:, 20:] = 65535
    result = conditioning([DepthMap(values)], height=12, width=20)[0, 0]
    assert result[:, :9].max() < 0 < result[:, 11:].min()


def test_what_rounding_leaves_of_a_flat_map_is_not_blown_up(smooth):
    """A constant through a network is not exactly constant; bicubic sums add a few last places more."""
    values = np.full((23, 37), 1234.5, np.float32)
    values[5, 7] = np.nextafter(np.float32(1234.5), np.float32(2000))
    assert torch.equal(conditioning([DepthMap(values)], height=12, width=20), torch.zeros(1, 1, 12, 20))


def test_a_faint_map_is_not_flat():
    values = np.linspace(1000, 1000.1, 23 * 37).reshape(23, 37).astype(np.float32)
    result = conditioning([DepthMap(values)], height=12, width=20)
    assert (result.min(), result.max()) == (-1, 1)


def test_a_flat_map_beside_another_leaves_that_alone(smooth):
    flat = DepthMap(np.ones((23, 37), np.float32))
    result = conditioning([flat, DepthMap(smooth)], height=12, width=20)
    assert not result[0].any()
    assert torch.equal(result[1:], host(smooth, 12, 20))


@given(
    values=arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 8), st.integers(1, 8)),
        elements=st.floats(-(2.0**99), 2.0**99, width=32),
    ),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
)
def test_any_map_gives_finite_values_between_minus_one_and_one(values, height, width):
    result = conditioning([DepthMap(values)], height=height, width=width)
    assert result.shape == (1, 1, height, width)
    assert torch.isfinite(result).all()
    assert result.min() >= -1
    assert result.max() <= 1


def test_result_is_not_tied_to_the_map(smooth):
    depth = DepthMap(smooth)
    result = conditioning([depth], height=23, width=37)
    result.zero_()
    np.testing.assert_array_equal(depth.values, smooth)


@pytest.mark.parametrize(("count", "height", "width"), [(0, 8, 8), (1, 0, 8), (1, 8, 0), (1, -1, 8)])
def test_nothing_to_condition_on(smooth, count, height, width):
    with pytest.raises(DepthMapError, match="at least one depth map and a positive size"):
        conditioning([DepthMap(smooth)] * count, height=height, width=width)


def test_neutral():
    result = neutral(2, height=3, width=5)
    assert result.dtype == torch.float32
    assert torch.equal(result, torch.zeros(2, 1, 3, 5))


# --- a given range ----------------------------------------------------------------------------------------------


def test_a_part_keeps_the_whole_range():
    whole = DepthMap(values=np.tile(np.linspace(0, 10, 64, dtype=np.float32), (64, 1)))
    part = whole.cropped(16, 0, 32, 64)
    stretched = conditioning([part], height=8, width=8)
    kept = conditioning([part], height=8, width=8, spans=[whole.range])
    assert stretched.min() == -1 and stretched.max() == 1
    low, high = part.range
    assert float(kept.min()) == pytest.approx(2 * low / 10 - 1, abs=0.06)
    assert float(kept.max()) == pytest.approx(2 * high / 10 - 1, abs=0.06)


def test_a_given_range_limits():
    depth = DepthMap(values=np.linspace(-5, 5, 64, dtype=np.float32).reshape(8, 8))
    tensor = conditioning([depth], height=8, width=8, spans=[(-1.0, 1.0)])
    assert tensor.min() == -1 and tensor.max() == 1


def test_the_same_map_with_two_ranges():
    depth = DepthMap(values=np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    tensor = conditioning([depth, depth], height=8, width=8, spans=[None, (0.0, 2.0)])
    assert tensor[0].max() == 1 and tensor[1].max() == pytest.approx(0, abs=1e-5)


def test_a_flat_range_gives_zeros():
    depth = DepthMap(values=np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    assert (conditioning([depth], height=8, width=8, spans=[(3.0, 3.0)]) == 0).all()


def test_a_flat_part_of_a_whole_keeps_its_distance():
    """The wall behind: flat in the box, far in the picture."""
    part = DepthMap(values=np.full((8, 8), 2.0, np.float32))
    assert torch.allclose(conditioning([part], height=4, width=4, spans=[(0.0, 8.0)]), torch.tensor(-0.5))
