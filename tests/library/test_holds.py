"""Meaning of the numbers in a map: distances become inverse depth, holes are filled, infinity is farthest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from depth2img import DepthMap, DepthMapError, read_depth_map
from tests.refusing import refused

INVERSE = (Path(__file__).parent / "cases" / "hw.npy").read_bytes()
TRUTH = read_depth_map(INVERSE).values
"""Inverse depth of the cases' scene, 1/9.9375 to 1/2."""


def agreement(depth: DepthMap) -> float:
    """Correlation with the truth."""
    return float(np.corrcoef(depth.values.ravel(), TRUTH.ravel())[0, 1])


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("zinv.npy", 0.99),
        ("bl_Z.exr", 0.99),
        ("bl_V.exr", 0.99),
        ("rs_mm.png", 0.97),  # 13 % holes
        ("zneg.tif", 0.99),  # the sky without data
        ("mm_sky65535.png", 0.99),
        ("half65504.exr", 0.99),
        ("rgbaz.exr", 0.99),
    ],
)
def test_distances(name: str, least: float, cases: Path) -> None:
    assert agreement(read_depth_map(cases / name, "distance")) >= least


def test_packed_distances(cases: Path) -> None:
    with pytest.raises(DepthMapError, match=r"R\+256G\+65536B, as CARLA writes it"):
        read_depth_map(cases / "carla.png")
    assert agreement(read_depth_map(cases / "carla.png", "distance", "r+256g+65536b")) >= 0.99


@pytest.mark.parametrize("name", ["f64.tif", "f16.tif", "midas.pfm", "x.npz", "da_1hw.npy", "inferno.png"])
def test_nearness_in_other_formats(name: str, cases: Path) -> None:
    assert agreement(read_depth_map(cases / name)) >= 0.999


@pytest.mark.parametrize("holes", [0.13, 0.9])
def test_scattered_holes(holes: float, rng: np.random.Generator) -> None:
    millimetres = (1000 / TRUTH).astype(np.uint16)
    millimetres[rng.random(TRUTH.shape) < holes] = 0
    depth = read_depth_map(millimetres, "distance")
    assert agreement(depth) >= (0.97 if holes < 0.5 else 0.9)
    count = int((millimetres == 0).sum())
    assert f"({count:,} values) of the map held no measurement and was filled" in depth.notice


def test_distance_is_inverted_exactly() -> None:
    depth = read_depth_map(np.array([[1, 2], [4, 5]], np.float64), "distance")
    assert np.array_equal(depth.values, np.array([[1, 0.5], [0.25, 0.2]], np.float32))
    assert depth.notice == "" and depth.distances == ""


@pytest.mark.parametrize("bad", [np.nan, 0, -1, -np.inf, -9999])
def test_what_is_not_a_distance_is_filled(bad: float) -> None:
    values = np.full((5, 7), 4.0)
    values[2, 3] = bad
    values[4, 6] = 2
    depth = read_depth_map(values, "distance")
    assert depth.values[2, 3] == np.float32(0.25)
    assert depth.range == (0.25, 0.5)
    assert depth.notice == "2.86 % (1 values) of the map held no measurement and was filled from the surroundings."


@pytest.mark.parametrize(
    ("dtype", "infinity"), [(np.float64, np.inf), (np.uint8, 255), (np.uint16, 65535), (np.int16, 32767)]
)
def test_infinity_is_the_farthest_and_no_part_of_the_range(dtype: type, infinity: float) -> None:
    values = np.array([[2, 4, 8], [infinity, 2, 4]], dtype)
    depth = read_depth_map(values, "distance")
    assert depth.values[1, 0] == 0.125 and depth.range == (0.125, 0.5)
    assert depth.notice == "16.7 % (1 values) of the map lies at infinity and counts as its farthest."


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_of_nearness_only_what_is_not_finite_is_filled(bad: float) -> None:
    values = np.array([[0, -5, 3], [bad, -5, 3]])
    depth = read_depth_map(values)
    assert np.array_equal(depth.values[0], values[0]) and depth.range == (-5, 3)
    assert "16.7 % (1 values) of the map held no measurement" in depth.notice
    assert bool(depth.distances) == (bad == np.inf)


def test_a_map_without_holes_is_untouched(smooth: np.ndarray) -> None:
    depth = read_depth_map(smooth)
    assert np.array_equal(depth.values, smooth) and depth.notice == depth.distances == ""


@pytest.mark.parametrize("holds", ["nearness", "distance"])
def test_a_map_that_is_one_already_is_returned(smooth: np.ndarray, holds: str) -> None:
    depth = DepthMap(smooth)
    assert read_depth_map(depth, holds) is depth


def test_nothing_but_holes() -> None:
    with refused(DepthMapError, got="6 of 6 0 or less"):
        read_depth_map(np.zeros((2, 3), np.uint16), "distance")
    with refused(DepthMapError, got="5 of 6 NaN, 1 of 6 infinity"):
        read_depth_map(np.array([[np.nan] * 3, [np.nan, np.nan, np.inf]]))


SPECIAL = [float(np.float32(value)) for value in (0, np.nan, np.inf, -np.inf, -1, 1e-31, 1e10, 3e38)]
VALUES = st.one_of(st.floats(width=32, allow_subnormal=False), st.sampled_from(SPECIAL))


@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=VALUES))
def test_any_distances_give_a_map_or_an_error(values: np.ndarray) -> None:
    good = values[np.isfinite(values) & (values > 2e-30)]
    if not good.size:
        with pytest.raises(DepthMapError):
            read_depth_map(values, "distance")
        return
    depth = read_depth_map(values, "distance")
    # A float32 division is exact to one part in 2^24.
    assert depth.range == pytest.approx((1 / float(good.max()), 1 / float(good.min())), rel=1e-6, abs=1e-37)
