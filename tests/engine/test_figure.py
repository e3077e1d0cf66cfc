"""Frames, fills, scores and grids: the parts that need no model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth2img import DepthMap, PictureError
from depth2img.cli.figure import Row, grid
from depth2img.depth.placement import ResizeMode
from depth2img.depth.scores import structure
from depth2img.diffusion import frames
from depth2img.diffusion.settings import Settings


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# --- scores -----------------------------------------------------------------------------------------------------------


def test_structure_counts_only_what_pictures_do_not_share() -> None:
    rng = np.random.default_rng(0)
    floor = np.tile(np.linspace(0, 9, 30)[:, None], (1, 40))
    one, other = (DepthMap((floor + rng.normal(size=floor.shape)).astype(np.float32)) for _ in range(2))
    mean = DepthMap(floor.astype(np.float32))
    assert structure(one, other) > 0.8
    assert abs(structure(one, other, mean)) < 0.1
    assert structure(one, one, mean) == pytest.approx(1.0)


def test_structure_of_a_flat_map_is_zero() -> None:
    flat = DepthMap(np.ones((4, 6), np.float32))
    assert structure(flat, DepthMap(np.arange(24, dtype=np.float32).reshape(4, 6))) == 0.0


def test_structure_brings_maps_to_one_size() -> None:
    ramp = DepthMap(np.tile(np.linspace(0, 1, 40, dtype=np.float32), (30, 1)))
    assert structure(ramp, ramp.resized(80, 60)) > 0.999


# --- grids ------------------------------------------------------------------------------------------------------------


def test_grid_shows_every_picture_in_its_place() -> None:
    red, blue = np.zeros((20, 40, 3), np.uint8), np.zeros((20, 40, 3), np.uint8)
    red[:, :, 0], blue[:, :, 2] = 255, 255
    sheet = np.asarray(grid([Row("a", [red, None]), Row("b", [blue, red])], ["one", "two"], title="t", tile=80))
    reds = (sheet == (255, 0, 0)).all(axis=2)
    assert reds.sum() == 2 * 80 * 40
    assert (sheet == (0, 0, 255)).all(axis=2).sum() == 80 * 40


def test_grid_refuses_uneven_rows() -> None:
    with pytest.raises(PictureError):
        grid([Row("a", [None])], ["one"])
    with pytest.raises(PictureError):
        grid([Row("a", [noise(0, 4, 4, 3)]), Row("b", [])], ["one"])


def test_long_titles_are_cut() -> None:
    picture = noise(0, 16, 16, 3)
    assert grid([Row("", [picture])], ["x"], title="word " * 100).width < 200


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["just resize", "crop and resize", "resize and fill"])
@pytest.mark.parametrize("size", [(30, 90), (90, 30), (64, 96)], ids=str)
def test_every_mode_fills_the_frame(mode: str, size: tuple[int, int]) -> None:
    assert frames.resize(noise(1, *size, 3), 96, 64, ResizeMode.named(mode)).shape == (64, 96, 3)
    assert frames.resize(noise(1, *size), 96, 64, ResizeMode.named(mode)).shape == (64, 96)


def test_cropping_takes_the_middle_and_filling_keeps_all() -> None:
    picture = np.zeros((40, 120, 3), np.uint8)
    picture[:, 40:80] = 255
    assert frames.resize(picture, 40, 40, ResizeMode.CROP_AND_RESIZE).min() == 255
    filled = frames.resize(picture, 120, 120, ResizeMode.RESIZE_AND_FILL)
    assert filled[0, 60].min() == 255
    assert filled[0, 0].max() == 0


def test_frame_takes_its_size_from_the_picture() -> None:
    assert frames.frame_size(noise(0, 300, 400, 3), Settings(), 512) == (680, 512)
    assert frames.frame_size(noise(0, 300, 400, 3), Settings(width=256), 512) == (256, 512)


@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(0, 59), st.integers(0, 59), st.integers(1, 60), st.integers(1, 60)),
    st.integers(0, 40),
    st.sampled_from([(64, 64), (64, 128), (128, 64)]),
)
def test_crop_box_holds_the_mask_and_lies_in_the_picture(
    size: tuple[int, int], spot: tuple[int, int, int, int], padding: int, frame: tuple[int, int]
) -> None:
    height, width = size
    top, left = spot[0] % height, spot[1] % width
    mask = np.zeros(size, np.uint8)
    mask[top : top + spot[2], left : left + spot[3]] = 255
    box = frames.crop_box(mask, padding, *frame)
    assert 0 <= box[0] < box[2] <= width
    assert 0 <= box[1] < box[3] <= height
    assert mask[box[1] : box[3], box[0] : box[2]].sum() == mask.sum()


def test_crop_box_has_the_frame_s_proportions_where_there_is_room() -> None:
    mask = np.zeros((200, 200), np.uint8)
    mask[90:110, 80:120] = 255
    left, top, right, bottom = frames.crop_box(mask, 10, 64, 128)
    assert (right - left) * 2 == bottom - top


def test_fill_paints_the_colours_around_and_nothing_else() -> None:
    picture = np.full((40, 60, 3), (200, 100, 50), np.uint8)
    picture[10:30, 20:40] = (0, 255, 0)
    mask = np.zeros((40, 60), np.uint8)
    mask[8:32, 18:42] = 255
    filled = frames.fill(picture, mask)
    assert np.array_equal(filled[mask == 0], picture[mask == 0])
    assert np.abs(filled.astype(int) - (200, 100, 50)).max() <= 2


def test_fill_under_a_whole_mask_is_grey() -> None:
    filled = frames.fill(noise(0, 16, 24, 3), np.full((16, 24), 255, np.uint8))
    assert int(filled.max()) - int(filled.min()) <= 1
