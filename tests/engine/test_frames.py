"""A picture and its mask in the frame, and the result back in the picture: every number against one worked out here."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from depth2img import DepthMap, DepthOptions, PictureError
from depth2img.depth.adjustments import fill_under, replace_under
from depth2img.depth.placement import ResizeMode
from depth2img.depth.resolve import Basis, PlacedMap, resolve
from depth2img.diffusion import frames
from depth2img.diffusion.frames import (
    Frame,
    crop_box,
    fill,
    frame_size,
    latent_mask,
    make_frame,
)
from depth2img.diffusion.settings import RESIZE_MODES, Settings
from tests.refusing import refused

LANCZOS = Image.Resampling.LANCZOS


def picture(height: int, width: int, seed: int = 3) -> np.ndarray:
    """Colours without symmetry, soft enough for resizing to mean something."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def mask(height: int, width: int, box: tuple[int, int, int, int], level: int = 255) -> np.ndarray:
    left, top, right, bottom = box
    made = np.zeros((height, width), np.uint8)
    made[top:bottom, left:right] = level
    return made


def stretched(array: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(array).resize((width, height), LANCZOS))


def resize(given: np.ndarray, width: int, height: int, mode: str) -> np.ndarray:
    return frames.resize(given, width, height, ResizeMode.named(mode))


def settings(**changes: Any) -> Settings:
    return Settings(**{"width": 96, "height": 64, "mask_blur": 0, **changes})


# --- the frame's size --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "given", "frame"),
    [
        ((200, 120), {}, (104, 64)),  # 106.7 rounds to 13 eighths
        ((120, 200), {}, (64, 104)),
        ((200, 120), {"width": 96}, (96, 64)),
        ((200, 120), {"height": 96}, (104, 96)),
        ((200, 120), {"width": 72, "height": 304}, (72, 304)),
        ((256, 64), {}, (256, 64)),  # as extreme as it may be
        ((1000, 10), {"width": 72, "height": 64}, (72, 64)),
    ],
)
def test_size_of_the_frame(size: tuple[int, int], given: dict[str, int], frame: tuple[int, int]) -> None:
    width, height = size
    assert frame_size(np.zeros((height, width, 3), np.uint8), Settings(**given), 64) == frame


def test_a_side_is_never_shorter_than_a_step() -> None:
    """The model's own side may be anything."""
    assert frame_size(np.zeros((30, 40, 3), np.uint8), Settings(), 3) == (8, 8)


@pytest.mark.parametrize("given", [{}, {"width": 64}, {"height": 64}])
def test_extreme_proportions(given: dict[str, int]) -> None:
    shape = (64, 268, 3) if "width" not in given else (268, 64, 3)
    with refused(PictureError, got=f"{shape[1]} x {shape[0]} pixels"):
        frame_size(np.zeros(shape, np.uint8), Settings(**given), 64)


# --- resizing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("mode", ["just resize", "crop and resize", "resize and fill"])
def test_the_same_proportions_are_stretched(mode: str, grey: bool) -> None:
    given = picture(40, 60)
    given = given[:, :, 0] if grey else given
    assert np.array_equal(resize(given, 96, 64, mode), stretched(given, 96, 64))


@pytest.mark.parametrize("grey", [False, True])
def test_just_resize(grey: bool) -> None:
    given = picture(40, 90)[:, :, 0] if grey else picture(40, 90)
    assert np.array_equal(resize(given, 64, 96, "just resize"), stretched(given, 64, 96))


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize(
    ("size", "frame", "inner", "left", "top"),
    [
        ((90, 40), (96, 64), (144, 64), 24, 0),
        ((60, 50), (96, 64), (96, 80), 0, 8),
        ((61, 50), (96, 64), (96, 79), 0, 7),  # 15 rows go, 7 of them above
        ((91, 40), (96, 64), (146, 64), 25, 0),
    ],
)
def test_crop_and_resize(
    size: tuple[int, int], frame: tuple[int, int], inner: tuple[int, int], left: int, top: int, grey: bool
) -> None:
    given = picture(size[1], size[0])[:, :, 0] if grey else picture(size[1], size[0])
    wanted = stretched(given, *inner)[top : top + frame[1], left : left + frame[0]]
    assert np.array_equal(resize(given, *frame, "crop and resize"), wanted)


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize(
    ("size", "frame", "inner", "left", "top"),
    [
        ((90, 40), (96, 64), (96, 43), 0, 10),  # 21 rows are missing, 10 of them above
        ((60, 50), (96, 64), (77, 64), 9, 0),
        ((400, 2), (96, 64), (96, 1), 0, 31),  # not even a row would be left
        ((2, 400), (96, 64), (1, 64), 47, 0),
    ],
)
def test_resize_and_fill(
    size: tuple[int, int], frame: tuple[int, int], inner: tuple[int, int], left: int, top: int, grey: bool
) -> None:
    given = picture(size[1], size[0])[:, :, 0] if grey else picture(size[1], size[0])
    filled = resize(given, *frame, "resize and fill")
    scaled = stretched(given, *inner)
    rows = np.clip(np.arange(frame[1]) - top, 0, inner[1] - 1)
    columns = np.clip(np.arange(frame[0]) - left, 0, inner[0] - 1)
    assert np.array_equal(filled, scaled[rows][:, columns])


# --- the box of "only masked" ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "padding", "frame", "wanted"),
    [
        ((30, 20, 50, 40), 0, (64, 64), (30, 20, 50, 40)),
        ((30, 20, 50, 40), 4, (64, 64), (26, 16, 54, 44)),
        ((30, 20, 50, 40), 4, (96, 64), (19, 16, 61, 44)),  # 28 wide to 42
        ((30, 20, 50, 40), 4, (64, 96), (26, 9, 54, 51)),
        ((30, 20, 40, 30), 0, (96, 64), (28, 20, 43, 30)),  # 5 more columns, 2 of them on the left
        ((30, 20, 40, 27), 0, (96, 64), (30, 20, 40, 27)),  # 10.5 columns
        ((110, 70, 120, 80), 0, (128, 64), (100, 70, 120, 80)),  # moved to the left of the edge
        ((0, 0, 10, 10), 0, (64, 128), (0, 0, 10, 20)),
        ((0, 35, 120, 45), 0, (64, 64), (0, 0, 120, 80)),  # there are no more rows
        ((30, 20, 50, 40), 50, (96, 64), (0, 0, 120, 80)),
        ((119, 79, 120, 80), 3, (64, 64), (116, 76, 120, 80)),
        ((0, 0, 1, 1), 3, (64, 64), (0, 0, 4, 4)),
    ],
)
def test_the_box_around_a_mask(
    box: tuple[int, int, int, int], padding: int, frame: tuple[int, int], wanted: tuple[int, int, int, int]
) -> None:
    assert crop_box(mask(80, 120, box, level=1), padding, *frame) == wanted


def test_the_box_goes_around_all_parts_of_a_mask() -> None:
    two = mask(80, 120, (10, 12, 14, 20)) | mask(80, 120, (40, 30, 45, 44))
    assert crop_box(two, 0, 64, 64) == (10, 11, 45, 46)


@given(st.integers(0, 119), st.integers(0, 79), st.integers(1, 120), st.integers(1, 80), st.integers(0, 40), st.data())
def test_any_box_holds_the_padded_mask_and_lies_in_the_picture(
    left: int, top: int, wide: int, high: int, padding: int, data: st.DataObject
) -> None:
    width, height = data.draw(st.sampled_from([(64, 64), (96, 64), (64, 200), (512, 64)]))
    right, bottom = min(120, left + wide), min(80, top + high)
    found = crop_box(mask(80, 120, (left, top, right, bottom)), padding, width, height)
    assert 0 <= found[0] <= max(0, left - padding) and min(120, right + padding) <= found[2] <= 120
    assert 0 <= found[1] <= max(0, top - padding) and min(80, bottom + padding) <= found[3] <= 80


# --- frames ------------------------------------------------------------------------------------------------------


def test_a_picture_without_a_mask() -> None:
    given = picture(80, 90)
    frame = make_frame(given, None, settings(resize_mode="crop and resize", masked_content="fill"), 64)
    assert np.array_equal(frame.picture, resize(given, 96, 64, "crop and resize"))
    assert frame.whole is frame.picture and frame.original is given
    assert frame.mask is None and frame.overlay is None and frame.box is None
    assert frame.resize_mode == 1 and frame.size == (96, 64)
    result = picture(64, 96, seed=8)
    assert frame.finish(result) is result


def blurred(values: np.ndarray, deviation: int, side: int) -> np.ndarray:
    return cv2.GaussianBlur(values, (side, side), deviation)


@pytest.mark.parametrize(("deviation", "side"), [(1, 7), (3, 17), (4, 21)])
@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("mode", ["crop and resize", "resize and fill"])
def test_a_mask_in_the_whole_picture(deviation: int, side: int, invert: bool, mode: str) -> None:
    """Blurred in the picture's pixels; twice the mask shows, so that a blurred edge is opaque from its middle."""
    given, drawn = picture(80, 90), mask(80, 90, (20, 30, 50, 60))
    made = settings(mask_blur=deviation, mask_invert=invert, resize_mode=mode)
    frame = make_frame(given, drawn, made, 64)
    soft = resize(blurred(255 - drawn if invert else drawn, deviation, side), 96, 64, mode)
    assert frame.mask is not None and frame.overlay is not None
    assert frame.mask.dtype == frame.overlay.dtype == np.float32
    # Two roundings of float32.
    np.testing.assert_allclose(frame.mask, soft / 255, atol=1e-7)
    np.testing.assert_allclose(frame.overlay, np.clip(soft / 255 * 2, 0, 1), atol=1e-7)
    assert ((frame.overlay > 0.1) & (frame.overlay < 0.9)).any()
    assert np.array_equal(frame.picture, resize(given, 96, 64, mode))
    assert frame.whole is frame.picture and frame.original is given
    assert frame.box is None and frame.resize_mode == RESIZE_MODES.index(mode)


def test_without_blur_the_mask_is_taken_as_it_is() -> None:
    drawn = mask(64, 96, (20, 30, 50, 60), level=100)
    frame = make_frame(picture(64, 96), drawn, settings(), 64)
    assert frame.mask is not None and frame.overlay is not None
    np.testing.assert_allclose(frame.mask, drawn / 255, atol=1e-7)
    np.testing.assert_allclose(frame.overlay, drawn / 255 * 2, atol=1e-7)


def only_masked(**changes: Any) -> tuple[np.ndarray, np.ndarray, Frame]:
    """Picture 120 x 60, the blurred mask of it, and the frame, for whose proportions the picture has not the rows."""
    given, drawn = picture(60, 120), mask(60, 120, (24, 14, 112, 50))
    made = settings(inpaint_area="only masked", mask_blur=3, only_masked_padding=5, **changes)
    return given, blurred(drawn, 3, 17), make_frame(given, drawn, made, 64)


def test_only_masked() -> None:
    """The box is that of the blurred mask; its part of picture and mask fills the frame."""
    given, soft, frame = only_masked()
    box = crop_box(soft, 5, 96, 64)
    assert frame.box == box != crop_box(mask(60, 120, (24, 14, 112, 50)), 5, 96, 64)
    left, top, right, bottom = box
    assert np.array_equal(frame.picture, resize(given[top:bottom, left:right], 96, 64, "resize and fill"))
    assert frame.mask is not None and frame.overlay is not None
    part = resize(soft[top:bottom, left:right], 96, 64, "resize and fill")
    np.testing.assert_allclose(frame.mask, part / 255, atol=1e-7)
    np.testing.assert_allclose(frame.overlay, soft / 255, atol=1e-7)
    assert frame.overlay.dtype == np.float32
    assert frame.whole is given and frame.original is given
    assert frame.size == (96, 64)


@pytest.mark.parametrize("content", ["fill", "latent noise", "latent nothing"])
@pytest.mark.parametrize("area", ["whole picture", "only masked"])
def test_what_is_masked_is_filled_in_the_frame(content: str, area: str) -> None:
    """As in the host, whatever goes into the latents later."""
    given, drawn = picture(80, 120), mask(80, 120, (30, 20, 50, 60))
    made = {"mask_blur": 3, "inpaint_area": area}
    plain = make_frame(given, drawn, settings(**made, masked_content="original"), 64)
    frame = make_frame(given, drawn, settings(**made, masked_content=content), 64)
    assert plain.mask is not None
    wanted = fill(plain.picture, np.round(plain.mask * 255).astype(np.uint8))
    assert np.array_equal(frame.picture, wanted) and not np.array_equal(wanted, plain.picture)
    assert np.array_equal(frame.whole, plain.whole)


def test_a_mask_of_another_size() -> None:
    with refused(PictureError, got="90 x 64 for 96 x 60 pixels"):
        make_frame(picture(60, 96), mask(64, 90, (2, 2, 9, 9)), settings(), 64)


@pytest.mark.parametrize("invert", [False, True])
def test_a_mask_of_nothing(invert: bool) -> None:
    with refused(PictureError):
        make_frame(picture(64, 96), np.full((64, 96), 255 * invert, np.uint8), settings(mask_invert=invert), 64)


# --- what runs in under a mask -----------------------------------------------------------------------------------


def wanted_fill(given: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Worked out in float64, pixel weights and all: half of the longer side first, a 128th of it last."""
    keep = 1 - drawn.astype(np.float64) / 255
    done = np.broadcast_to((given * keep[:, :, None]).sum((0, 1)) / keep.sum(), given.shape)
    for part in (2, 8, 32, 64, 128):
        deviation = max(given.shape) / part
        weight = cv2.GaussianBlur(keep, (0, 0), deviation, borderType=cv2.BORDER_REFLECT)[:, :, None]
        near = cv2.GaussianBlur(given * keep[:, :, None], (0, 0), deviation, borderType=cv2.BORDER_REFLECT)
        done = done * (1 - weight) + near
    return done * (1 - keep[:, :, None]) + given * keep[:, :, None]


@pytest.mark.parametrize(("height", "width"), [(64, 96), (150, 70)])
def test_fill(height: int, width: int) -> None:
    given = picture(height, width)
    drawn = mask(height, width, (20, 24, 55, 60)) | mask(height, width, (0, 30, 12, 64), level=90)
    filled = fill(given, drawn)
    assert filled.dtype == np.uint8
    # Rounded to whole levels; float32 sums may round the other way.
    assert np.abs(filled - np.clip(wanted_fill(given, drawn), 0, 255)).max() < 0.51
    assert np.array_equal(filled[drawn == 0], given[drawn == 0])


def test_fill_where_all_is_masked_is_grey() -> None:
    assert set(np.unique(fill(picture(64, 96), np.full((64, 96), 255, np.uint8)))) <= {127, 128}


def test_fill_where_almost_all_is_masked() -> None:
    """The small kept part decides the colour."""
    given = np.full((64, 96, 3), (200, 90, 30), np.uint8)
    drawn = np.full((64, 96), 255, np.uint8)
    drawn[5, 7] = 150
    assert np.abs(fill(given, drawn).astype(int) - (200, 90, 30)).max() <= 1


# --- the latent's mask -------------------------------------------------------------------------------------------


def test_the_mask_of_the_latent() -> None:
    """Resized as the host does, by Pillow's default, and rounded to 0 or 1."""
    soft = resize(blurred(mask(64, 96, (21, 17, 67, 50)), 4, 21), 96, 64, "just resize")
    found = latent_mask((soft / 255).astype(np.float32), 12, 8)
    wanted = np.asarray(Image.fromarray(soft).resize((12, 8)), np.float64) / 255 >= 0.5
    assert found.dtype == np.float32 and found.shape == (8, 12)
    assert np.array_equal(found, wanted) and 0 < wanted.sum() < 96


def test_the_mask_of_the_latent_is_rounded_to_eight_bits_first() -> None:
    assert latent_mask(np.full((64, 96), 127.6 / 255, np.float32), 12, 8).all()
    assert not latent_mask(np.full((64, 96), 127.4 / 255, np.float32), 12, 8).any()


# --- the result back in the picture ------------------------------------------------------------------------------


def test_finish_in_the_whole_picture() -> None:
    given, result = picture(64, 96), picture(64, 96, seed=8)
    frame = make_frame(given, mask(64, 96, (20, 30, 50, 60), level=51), settings(), 64)
    shown = np.zeros((64, 96, 1))
    shown[30:60, 20:50] = 0.4
    finished = frame.finish(result)
    assert finished.dtype == np.uint8
    assert np.abs(finished - (given * (1 - shown) + result * shown)).max() < 0.51


def test_finish_in_a_box() -> None:
    """The box is cut out of the middle of the frame, without what the frame was filled up with."""
    given, soft, frame = only_masked()
    assert frame.box is not None
    left, top, right, bottom = frame.box
    result = picture(64, 96, seed=8)
    laid = given.astype(np.float64)
    laid[top:bottom, left:right] = resize(result, right - left, bottom - top, "crop and resize")
    shown = soft[:, :, None] / 255
    assert np.abs(frame.finish(result) - (given * (1 - shown) + laid * shown)).max() < 0.51
    assert np.array_equal(frame.whole, given), "the picture that was given is left alone"


def test_finish_in_a_box_away_from_all_edges() -> None:
    given, _, frame = only_masked()
    result, laid = picture(64, 96, seed=8), given.copy()
    laid[7:45, 11:100] = resize(result, 89, 38, "crop and resize")
    whole = np.ones((60, 120), np.float32)
    assert np.array_equal(replace(frame, box=(11, 7, 100, 45), overlay=whole).finish(result), laid)


# --- depth in the frame ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimate_on", "boxed", "original"),
    [
        ("auto", False, False),
        ("auto", True, True),
        ("original", False, True),
        ("original", True, True),
        ("entering", False, False),
        ("entering", True, False),
    ],
)
def test_what_depth_is_estimated_on(estimate_on: str, boxed: bool, original: bool) -> None:
    frame = only_masked()[2] if boxed else make_frame(picture(64, 96), None, settings(), 64)
    resolved = resolve(DepthOptions(estimate_on=estimate_on), frame.framing)
    assert resolved is not None and resolved.basis is (Basis.ORIGINAL if original else Basis.ENTERING)


def placed_in(
    frame: Frame, depth: DepthMap, options: DepthOptions, own: DepthMap | None, span: Any, *, entering: bool
) -> PlacedMap:
    """The map as if it had been estimated on the entering picture, or on the original."""
    chosen = dataclasses.replace(options, estimate_on="entering" if entering else "original")
    resolved = resolve(chosen, frame.framing)
    assert resolved is not None
    return resolved.place(depth, own, span)


def depth_map(height: int, width: int) -> DepthMap:
    rows, columns = np.mgrid[:height, :width]
    return DepthMap(values=(3 + np.sin(rows / 7) + columns / 20).astype(np.float32))


def test_placement_of_a_whole_picture() -> None:
    frame = make_frame(picture(80, 90), None, settings(resize_mode="crop and resize"), 64)
    placement = frame.placement
    assert (placement.covers, placement.frame) == ((96, 64), (96, 64))
    assert (placement.box, placement.resize_mode) == (None, 1)
    depth = depth_map(64, 120)
    assert np.array_equal(frame.placement.part(depth).values, depth.values[:, 12:108])


def test_placement_of_a_box() -> None:
    _, _, frame = only_masked(resize_mode="resize and fill")
    placement = frame.placement
    assert (placement.covers, placement.frame) == ((120, 60), (96, 64))
    assert (placement.box, placement.resize_mode) == (frame.box, 2)


OWN = DepthMap(values=np.tile(np.linspace(9, 0, 60, dtype=np.float32), (40, 1)))


@pytest.mark.parametrize("entering", [False, True])
def test_depth_under_the_mask_of_a_whole_picture(entering: bool) -> None:
    """Frame and picture are one: the mask is that of the frame, not the doubled overlay."""
    frame = make_frame(picture(64, 96), mask(64, 96, (20, 30, 50, 60), level=100), settings(), 64)
    depth = depth_map(64, 96)
    assert frame.mask is not None
    placed = placed_in(frame, depth, DepthOptions(under_mask="map", depth_map=OWN), OWN, (0.0, 20.0), entering=entering)
    assert np.array_equal(placed.raw.values, replace_under(depth, OWN, frame.mask).values)
    assert placed.span == (0.0, 20.0)
    filled = placed_in(frame, depth, DepthOptions(under_mask="fill", invert=True), None, None, entering=entering)
    assert np.array_equal(filled.raw.values, fill_under(depth, frame.mask).values)
    assert filled.depth.values == pytest.approx(1 - filled.raw.normalised(), abs=1e-6)


def test_depth_of_the_picture_under_the_mask_of_a_box() -> None:
    """The map covers the picture, and so does the mask: the overlay."""
    _, _, frame = only_masked()
    depth = depth_map(60, 120)
    assert frame.overlay is not None
    placed = placed_in(frame, depth, DepthOptions(under_mask="fill"), None, None, entering=False)
    assert np.array_equal(placed.raw.values, fill_under(depth, frame.overlay).values)
    assert placed.whole is placed.raw and placed.span == placed.raw.range


def test_depth_of_the_entering_picture_under_the_mask_of_a_box() -> None:
    _, _, frame = only_masked()
    depth = depth_map(64, 96)
    assert frame.mask is not None
    options = DepthOptions(under_mask="map", depth_map=OWN)
    placed = placed_in(frame, depth, options, OWN, (1.0, 9.0), entering=True)
    assert np.array_equal(placed.raw.values, replace_under(depth, frame.placement.part(OWN), frame.mask).values)
    assert placed.whole is None and placed.span == (1.0, 9.0)
