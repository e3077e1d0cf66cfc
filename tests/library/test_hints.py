"""Hints about a user's depth map: the same sentences everywhere, and none about a good map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from depth2img import DepthMap, DepthOptions, read_depth_map
from depth2img.depth.hints import crowded, hints, looks_inverted


def said(name: str, **options: Any) -> list[str]:
    """The hints about one of the cases."""
    made = DepthOptions(**options)
    return [*hints(read_depth_map(Path(__file__).parent / "cases" / name, made.holds), made).values()]


@pytest.mark.parametrize("name", ["hw.npy", "f64.tif", "midas.pfm", "x.npz"])
def test_nothing_is_said_about_good_maps(name: str) -> None:
    assert said(name) == []


@pytest.mark.parametrize("name", ["zinv.npy", "bl_Z.exr", "bl_V.exr"])
def test_nothing_is_said_about_good_distances(name: str) -> None:
    assert said(name, holds="distance") == []


@pytest.mark.parametrize("name", ["bl_Z.exr", "rgbaz.exr", "half65504.exr"])
def test_distances_are_suspected(name: str) -> None:
    first, *_ = said(name)
    assert first.startswith("The depth map seems to hold distances: ") and "'Map holds': Distance" in first


@pytest.mark.parametrize("name", ["zinv.npy", "rs_mm.png", "bl_V.exr", "mm_sky65535.png"])
def test_black_in_front_is_suspected(name: str) -> None:
    first, *_ = said(name)
    assert first == (
        "Black seems to be near in the depth map. If so, choose 'Map holds': Distance if the numbers are distances, "
        "otherwise 'Invert'."
    )


@pytest.mark.parametrize("name", ["zinv.npy", "bl_Z.exr"])
def test_what_is_inverted_already_is_not_suspected(name: str) -> None:
    assert said(name, invert=True) == []


def test_nearness_taken_for_distance_is_suspected() -> None:
    assert said("hw.npy", holds="distance") == [
        "Black seems to be near in the depth map. If so, choose 'Map holds': Nearness."
    ]


@pytest.mark.parametrize("name", ["half65504.exr", "rgbaz.exr"])
def test_outliers_are_noticed(name: str) -> None:
    *_, last = said(name)
    assert last.startswith("77% of the depth map lies within ") and "Without outliers" in last
    assert not any("lies within" in one for one in said(name, range="percentile"))
    assert not any("lies within" in one for one in said(name, holds="distance"))


def test_how_it_was_read_comes_first() -> None:
    assert said("rs_mm.png", holds="distance") == [
        "12.9 % (2,118 values) of the map held no measurement and was filled from the surroundings."
    ]
    assert "colour map inferno" in said("inferno.png")[0]


def test_distances_in_8_bits_are_doubted(smooth: np.ndarray) -> None:
    grey = Image.fromarray(np.clip(smooth * 12, 0, 255).astype(np.uint8))
    options = DepthOptions(holds="distance")
    assert "bits" in hints(read_depth_map(grey, "distance"), options)
    assert "bits" not in hints(read_depth_map(grey), DepthOptions())
    assert "bits" not in hints(read_depth_map(Path(__file__).parent / "cases" / "rs_mm.png", "distance"), options)


def depth(*parts: tuple[float, float, int]) -> DepthMap:
    """Values that run evenly from one number to another, so many of each."""
    return DepthMap(np.concatenate([np.linspace(low, high, count) for low, high, count in parts])[None])


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ([(0, 1, 400)], False),
        ([(0, 1, 300), (1000, 1000, 2)], True),
        ([(0, 1, 300), (5000, 65535, 30)], True),
        ([(0, 0, 300), (0, 1, 100)], False),  # a flat background has no shape to lose
        ([(0, 0, 300), (1, 1, 100)], False),  # a silhouette
        ([(0, 1, 100), (30, 130, 200)], False),
        ([(7, 7, 50)], False),
    ],
)
def test_crowded(parts: list[tuple[float, float, int]], found: bool) -> None:
    assert (crowded(depth(*parts)) is not None) == found


def test_crowded_says_how_much_lies_where() -> None:
    share, width = crowded(depth((0, 1, 300), (100, 100, 100))) or (0, 0)
    assert share == 0.75 and width == pytest.approx(0.01, rel=1e-6)


def test_looks_inverted() -> None:
    ramp = np.repeat(np.linspace(0, 1, 40)[:, None], 30, axis=1)
    assert not looks_inverted(DepthMap(ramp)) and looks_inverted(DepthMap(1 - ramp))
    assert not looks_inverted(DepthMap(np.ones((3, 3))))
