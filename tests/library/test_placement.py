"""Check the placement of a map in the frame: proportions, boxes, and the whole picture's range."""

from __future__ import annotations

import numpy as np
import pytest

from depth2img import DepthMap, OptionError
from depth2img.depth import placement
from depth2img.depth.placement import Placement, ResizeMode, crop, fit, same_proportions
from tests.refusing import refused


def numbered(height: int, width: int) -> DepthMap:
    """Every value another, so that each says where it came from: row * 1000 + column + 1."""
    rows, columns = np.mgrid[:height, :width]
    return DepthMap(values=(rows * 1000 + columns + 1).astype(np.float32), origin="PNG", bits=16)


def smooth(height: int, width: int) -> DepthMap:
    rows, columns = np.mgrid[:height, :width]
    return DepthMap(values=(3 + np.sin(rows / 7) + columns / 20).astype(np.float32))


@pytest.mark.parametrize(
    ("size", "frame", "same"),
    [
        ((96, 64), (48, 32), True),
        ((1000, 1000), (1009, 1000), True),
        ((1000, 1000), (991, 1000), True),
        ((1000, 1000), (1011, 1000), False),
        ((1000, 1000), (989, 1000), False),
        ((96, 64), (64, 96), False),
        # To the hundredth it is another: 1 - 0.99 is above `SAME_PROPORTIONS` by rounding, 1.01 - 1 is not.
        ((100, 100), (101, 100), True),
    ],
)
def test_same_proportions(size: tuple[int, int], frame: tuple[int, int], same: bool) -> None:
    depth = DepthMap(values=np.zeros((size[1], size[0]), np.float32))
    assert same_proportions(depth, *frame) is same


@pytest.mark.parametrize("resize_mode", [0, 3])
def test_a_map_that_is_stretched_stays_as_it_is(resize_mode: int) -> None:
    depth = numbered(20, 30)
    assert fit(depth, width=7, height=70, resize_mode=ResizeMode(resize_mode)) is depth


@pytest.mark.parametrize("resize_mode", [1, 2])
def test_the_same_proportions_stay_as_they_are(resize_mode: int) -> None:
    depth = numbered(20, 30)
    assert fit(depth, width=60, height=40, resize_mode=ResizeMode(resize_mode)) is depth


@pytest.mark.parametrize("resize_mode", [-1, 4])
def test_an_unknown_mode_is_refused(resize_mode: int) -> None:
    with refused(OptionError, got=str(resize_mode), field="resize_mode"):
        fit(numbered(20, 30), width=60, height=40, resize_mode=ResizeMode(resize_mode))


@pytest.mark.parametrize(
    ("frame", "rows", "columns"),
    [
        ((40, 40), (0, 20), (6, 26)),  # 33 wide to 20: 13 go, 6 of them on the left
        ((20, 10), (2, 18), (0, 33)),  # 33 / 2 = 16.5 rounds to 16: 4 go
        ((5, 40), (0, 20), (15, 17)),  # 2.5 rounds to 2: 31 go, 15 on the left
        ((400, 1), (9, 10), (0, 33)),  # not even a row would be left
        ((1, 400), (0, 20), (16, 17)),
    ],
)
def test_crop_cuts_around_the_centre(frame: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]) -> None:
    depth = numbered(20, 33)
    part = fit(depth, width=frame[0], height=frame[1], resize_mode=ResizeMode(1))
    assert np.array_equal(part.values, depth.values[slice(*rows), slice(*columns)])
    assert (part.origin, part.bits) == ("PNG", 16)


@pytest.mark.parametrize(
    ("frame", "above", "below", "left", "right"),
    [
        ((40, 20), 0, 0, 3, 4),  # 40 wide from 33
        ((33, 25), 2, 3, 0, 0),  # 25 high from 20
        ((8, 8), 6, 7, 0, 0),
        ((3, 1), 0, 0, 13, 14),
    ],
)
def test_fill_repeats_the_edges(frame: tuple[int, int], above: int, below: int, left: int, right: int) -> None:
    depth = numbered(20, 33)
    filled = fit(depth, width=frame[0], height=frame[1], resize_mode=ResizeMode(2))
    assert filled.values.shape == (20 + above + below, 33 + left + right)
    assert np.array_equal(filled.values[above : above + 20, left : left + 33], depth.values)
    assert (filled.values[:above] == filled.values[above]).all()
    assert (filled.values[above + 20 :] == filled.values[above + 19]).all()
    assert (filled.values[:, :left] == filled.values[:, [left]]).all()
    assert (filled.values[:, left + 33 :] == filled.values[:, [left + 32]]).all()
    assert (filled.origin, filled.bits) == ("PNG", 16)


def test_filling_a_strip_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made smaller first, both sides by the same factor."""
    monkeypatch.setattr(placement, "MAX_FILLED", 2400)
    wide = fit(smooth(9, 120), width=30, height=20, resize_mode=ResizeMode(2)).values
    # 120 x 80 would be 9600 pixels, four times too many: half of each side.
    assert wide.shape == (40, 60)
    high = fit(smooth(120, 9), width=30, height=20, resize_mode=ResizeMode(2)).values
    # 180 x 120: 2400 / 21600 is a ninth, a third of each side.
    assert high.shape == (40, 60)
    assert np.ptp(high[:, 30]) > 0.5 and np.ptp(wide[20]) > 0.5
    thin = fit(smooth(1, 240), width=30, height=20, resize_mode=ResizeMode(2)).values
    assert thin.shape == (40, 60), "no side becomes 0"


@pytest.mark.parametrize("most", [9600, 20_000])
def test_filling_to_the_last_pixel_allowed_changes_no_size(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(placement, "MAX_FILLED", most)
    depth = smooth(9, 120)
    filled = fit(depth, width=30, height=20, resize_mode=ResizeMode(2))
    assert np.array_equal(filled.values[35:44], depth.values)
    assert filled.values.shape == (80, 120)


def test_as_much_as_frames_ever_need() -> None:
    assert placement.MAX_FILLED == 2**23


def test_crop_counts_in_the_pictures_pixels() -> None:
    depth = numbered(20, 30)
    assert np.array_equal(crop(depth, picture_size=(30, 20), box=(3, 5, 11, 9)).values, depth.values[5:9, 3:11])
    large = DepthMap(values=depth.values.repeat(2, 0).repeat(2, 1))
    part = crop(large, picture_size=(30, 20), box=(3, 5, 11, 9)).values
    assert part == pytest.approx(depth.values[5:9, 3:11])


# --- Placement ---------------------------------------------------------------------------------------------------

BOXED = Placement(picture=(30, 20), frame=(16, 16), box=(4, 6, 12, 10), resize_mode=ResizeMode(1))
WHOLE = Placement(picture=(30, 20), frame=(30, 20), box=None, resize_mode=ResizeMode(1))


def test_the_part_of_a_map_in_a_box() -> None:
    """The map is cut to the picture's proportions as the resize mode says, the box filled up to the frame's."""
    depth = numbered(20, 40)
    assert np.array_equal(BOXED.fitted(depth).values, depth.values[:, 5:35])
    part = BOXED.part(depth).values
    assert part.shape == (8, 8)
    assert np.array_equal(part[2:6], depth.values[6:10, 9:17])
    assert (part[:2] == part[2]).all() and (part[6:] == part[5]).all()


def test_without_a_box_it_is_the_fitted_map() -> None:
    depth = numbered(20, 40)
    assert np.array_equal(WHOLE.part(depth).values, depth.values[:, 5:35])
    fitting = numbered(20, 30)
    assert WHOLE.boxed(fitting) is fitting


def test_the_remark_names_map_sizes_and_mode() -> None:
    assert WHOLE.remark(numbered(40, 60), "region") == ""
    remark = WHOLE.remark(numbered(20, 40), "region")
    for part in ("region", "40 x 20", "30 x 20", "'Crop and resize'"):
        assert part in remark
    filled = Placement(picture=(30, 20), frame=(30, 20), box=None, resize_mode=ResizeMode(2)).remark(
        numbered(20, 40), "map"
    )
    assert "'Resize and fill'" in filled
