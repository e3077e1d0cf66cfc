"""The DepthMap value and its files."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from depth2img import DepthMap, DepthMapError, read_depth_map
from depth2img.depth.colour_maps import COLOUR_MAPS
from tests.refusing import refused


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(array: np.ndarray) -> bytes:
    """By OpenCV, which writes every depth PNG has; colour in its order."""
    return bytes(cv2.imencode(".png", array)[1].tobytes())


SIXTEEN = arrays.arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9)))
RAW = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.floats(-(2.0**99), 2.0**99, width=32)
)


# --- the value ---------------------------------------------------------------------------------------------------


def test_values_are_a_private_read_only_float32_copy(smooth):
    source = np.asfortranarray(smooth.astype(np.float64))
    depth = DepthMap(source)
    before = source.copy()
    source += 1
    np.testing.assert_array_equal(depth.values, before.astype(np.float32))
    assert depth.values.dtype == np.float32
    assert depth.values.flags.c_contiguous
    with pytest.raises(ValueError, match="read-only"):
        depth.values[0, 0] = 1


def test_sides_are_not_swapped(smooth):
    depth = DepthMap(smooth)
    assert (depth.height, depth.width) == (23, 37)


def test_range(smooth):
    assert DepthMap(smooth).range == (float(smooth.min()), float(smooth.max()))


@pytest.mark.parametrize("shape", [(4,), (2, 3, 1), (1, 2, 3, 4), ()])
def test_two_dimensions_are_needed(shape):
    with refused(DepthMapError, got=f"shape {shape}"):
        DepthMap(np.ones(shape, np.float32))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (70_000, 1), (8193, 8192)])
def test_size_is_bounded(shape):
    with pytest.raises(DepthMapError, match=r"empty|too large"):
        DepthMap(np.broadcast_to(np.float32(1), shape))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.01e30, -1.01e30])
def test_values_are_finite_and_bounded(smooth, bad):
    values = smooth.copy()
    values[3, 5] = bad
    with refused(DepthMapError, got=f"{0 if np.isfinite(bad) else 1} values that are not finite out of 851"):
        DepthMap(values)


@given(RAW)
def test_normalised_is_between_zero_and_one_and_keeps_the_order(values):
    depth = DepthMap(values)
    stretched = depth.normalised()
    assert stretched.dtype == np.float32
    assert stretched.shape == values.shape
    if depth.range[0] == depth.range[1]:
        assert (stretched == 0.5).all()
        return
    assert (stretched.min(), stretched.max()) == (0, 1)
    assert stretched.flat[values.argmax()] == 1, "nearest"
    assert stretched.flat[values.argmin()] == 0, "farthest"
    order = np.argsort(values, axis=None)
    assert (np.diff(stretched.flat[order]) >= 0).all()


def test_normalised_formula(smooth):
    wanted = (smooth.astype(np.float64) - smooth.min()) / (np.float64(smooth.max()) - smooth.min())
    np.testing.assert_array_equal(DepthMap(smooth).normalised(), wanted.astype(np.float32))


# --- size --------------------------------------------------------------------------------------------------------


def test_resized_to_its_own_size_is_itself(smooth):
    depth = DepthMap(smooth)
    assert depth.resized(37, 23) is depth


@pytest.mark.parametrize(("width", "height"), [(74, 46), (11, 7), (80, 10), (1, 1), (64, 64)])
def test_resized(smooth, width, height):
    depth = DepthMap(smooth, origin="MiDaS", bits=16)
    other = depth.resized(width, height)
    assert (other.width, other.height) == (width, height)
    assert (other.origin, other.bits) == ("MiDaS", 16)
    low, high = depth.range
    assert low <= other.range[0] <= other.range[1] <= high, "cubic must not overshoot"
    # The smooth map's mean is kept by any sound resampling; 3 % of its range allows for its borders.
    assert abs(float(other.values.mean()) - float(smooth.mean())) < 0.03 * (high - low)


def test_resized_keeps_left_right_up_and_down():
    values = np.zeros((20, 40), np.float32)
    values[:10, 30:] = 1
    other = DepthMap(values).resized(8, 4).values
    assert other[0, 7] == 1
    assert other[3].max() == 0
    assert other[:, :5].max() == 0


@pytest.mark.parametrize(
    ("width", "height", "method"),
    [
        (11, 7, cv2.INTER_AREA),
        (37, 7, cv2.INTER_AREA),
        (11, 23, cv2.INTER_AREA),
        (74, 46, cv2.INTER_CUBIC),
        (80, 10, cv2.INTER_CUBIC),
        (20, 46, cv2.INTER_CUBIC),
    ],
)
def test_which_resampling(rng, width, height, method):
    values = rng.random((23, 37), np.float32)
    wanted = np.clip(cv2.resize(values, (width, height), interpolation=method), values.min(), values.max())
    np.testing.assert_array_equal(DepthMap(values).resized(width, height).values, wanted)


def test_shrinking_averages():
    values = np.tile(np.array([[0, 1], [1, 0]], np.float32), (8, 16))
    assert np.abs(DepthMap(values).resized(16, 8).values - 0.5).max() < 1e-6


@pytest.mark.parametrize(("width", "height"), [(0, 4), (4, -1), (70_000, 1), (10_000, 10_000)])
def test_resized_to_an_impossible_size(smooth, width, height):
    with pytest.raises(DepthMapError):
        DepthMap(smooth).resized(width, height)


def test_cropped(smooth):
    depth = DepthMap(smooth, origin="PNG", bits=16).cropped(5, 2, 30, 20)
    np.testing.assert_array_equal(depth.values, smooth[2:20, 5:30])
    assert (depth.origin, depth.bits) == ("PNG", 16)


@pytest.mark.parametrize("box", [(-1, 0, 4, 4), (0, 0, 38, 4), (0, 0, 4, 24), (4, 4, 4, 8), (8, 4, 4, 8), (0, 9, 9, 9)])
def test_cropped_outside_or_empty(smooth, box):
    left, top, right, bottom = box
    with refused(DepthMapError, got=f"box ({left}, {top}, {right}, {bottom}) in 37 x 23", fix=False):
        DepthMap(smooth).cropped(*box)


# --- pictures of it ----------------------------------------------------------------------------------------------


def test_grey_picture_is_white_where_near(smooth):
    depth = DepthMap(smooth)
    image = depth.to_image()
    assert image.mode == "RGB"
    assert image.size == (37, 23)
    grey = np.asarray(image)
    assert (grey == grey[:, :, :1]).all()
    np.testing.assert_array_equal(grey[:, :, 0], np.round(depth.normalised() * 255))
    assert grey[np.unravel_index(smooth.argmax(), smooth.shape)].tolist() == [255, 255, 255]


@pytest.mark.parametrize("name", [name for name in COLOUR_MAPS if name != "grey"])
def test_colour_pictures(smooth, name):
    image = np.asarray(DepthMap(smooth).to_image(name))
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], getattr(cv2, f"COLORMAP_{name.upper()}"))
    near, far = table[255, 0, ::-1], table[0, 0, ::-1]
    assert image.shape == (23, 37, 3)
    np.testing.assert_array_equal(image[np.unravel_index(smooth.argmax(), smooth.shape)], near)
    np.testing.assert_array_equal(image[np.unravel_index(smooth.argmin(), smooth.shape)], far)


def test_inferno_is_red_not_blue_in_the_middle(smooth):
    """OpenCV's order is BGR."""
    image = np.asarray(DepthMap(smooth).to_image("inferno")).astype(int)
    middle = (DepthMap(smooth).normalised() > 0.5) & (DepthMap(smooth).normalised() < 0.8)
    assert (image[middle][:, 0] > image[middle][:, 2]).all()


def test_unknown_colour_map(smooth):
    with pytest.raises(DepthMapError, match=r"no colour map 'jet'\. Use grey, inferno"):
        DepthMap(smooth).to_image("jet")
    with pytest.raises(DepthMapError, match=rf"no colour map '{'x' * 40}'\."):
        DepthMap(smooth).to_image("x" * 41)


# --- files -------------------------------------------------------------------------------------------------------


@given(SIXTEEN)
def test_sixteen_bit_png_loses_nothing(values):
    """Every 16-bit map that uses its range comes back exactly."""
    values = values.copy()
    if values.size >= 2:
        values.flat[0], values.flat[-1] = 0, 65535
    depth = DepthMap(values.astype(np.float32))
    again = read_depth_map(depth.to_png())
    assert (again.origin, again.bits) == ("PNG", 16)
    if values.size >= 2:
        np.testing.assert_array_equal(again.values, values)
        np.testing.assert_array_equal(again.normalised(), depth.normalised())


@given(RAW)
def test_any_map_survives_a_png_to_one_step_of_its_range(values):
    depth = DepthMap(values)
    again = read_depth_map(depth.to_png())
    # Rounding to one of 65536 steps: half a step; float32 near 65535 adds 1/256 of a step.
    assert np.abs(again.values / 65535 - depth.normalised()).max() <= 0.51 / 65535


def test_png_is_sixteen_bit_grey_for_other_readers_too(smooth):
    content = DepthMap(smooth).to_png()
    width, height, bits, colour = (
        int.from_bytes(content[16:20], "big"),
        int.from_bytes(content[20:24], "big"),
        *content[24:26],
    )
    assert (width, height, bits, colour) == (37, 23, 16, 0)
    values = np.asarray(Image.open(io.BytesIO(content))).astype(np.int64)
    np.testing.assert_array_equal(values, np.round(DepthMap(smooth).normalised().astype(np.float64) * 65535))


def test_png_that_opencv_cannot_write(smooth, monkeypatch):
    monkeypatch.setattr(cv2, "imencode", lambda *_: (False, None))
    with refused(DepthMapError, got="37 x 23", fix=False):
        DepthMap(smooth).to_png()


@pytest.mark.parametrize("suffix", [".tiff", ".tif", ".npy", ".TIFF", ".NPY"])
def test_raw_files_keep_every_bit(smooth, tmp_path, suffix):
    path = tmp_path / f"depth{suffix}"
    DepthMap(smooth).save(path)
    again = read_depth_map(path)
    np.testing.assert_array_equal(again.values, smooth)
    again = read_depth_map(path.read_bytes())
    np.testing.assert_array_equal(again.values, smooth)


@given(RAW)
def test_raw_files_keep_every_bit_of_any_map(values):
    file = io.BytesIO()
    np.save(file, values)
    np.testing.assert_array_equal(read_depth_map(file.getvalue()).values, values)
    content = cv2.imencode(".tiff", values)[1].tobytes()
    np.testing.assert_array_equal(read_depth_map(content).values, values)


@pytest.mark.parametrize("suffix", [".PNG", ".png"])
def test_saved_png(smooth, tmp_path, suffix):
    path = tmp_path / f"depth{suffix}"
    DepthMap(smooth).save(str(path))
    assert path.read_bytes() == DepthMap(smooth).to_png()
    assert path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["depth.jpg", "depth", "depth.png.bak", ".png"])
def test_other_suffixes_are_refused(smooth, tmp_path, name):
    with refused(DepthMapError, got=f"'{name}'"):
        DepthMap(smooth).save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_written(smooth, tmp_path):
    with pytest.raises(DepthMapError, match=r"The depth map cannot be written to depth\.png"):
        DepthMap(smooth).save(tmp_path / "missing" / "depth.png")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(smooth, tmp_path, monkeypatch):
    path = tmp_path / "depth.png"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    monkeypatch.setattr("pathlib.Path.replace", full)  # Python 3.10 keeps the function of its own
    with pytest.raises(DepthMapError, match="No space left"):
        DepthMap(smooth).save(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# --- reading what users have -------------------------------------------------------------------------------------


def test_all_ways_in_agree(tmp_path, rng):
    values = rng.integers(0, 65536, (23, 37), dtype=np.uint16)
    content = png(values)
    path = tmp_path / "depth.png"
    path.write_bytes(content)
    text = base64.b64encode(content).decode()
    for source in (content, path, text, f"data:image/png;base64,{text}", values, Image.fromarray(values)):
        depth = read_depth_map(source)
        np.testing.assert_array_equal(depth.values, values)
    depth = DepthMap(values.astype(np.float32))
    assert read_depth_map(depth) is depth


def test_eight_bits(rng):
    values = rng.integers(0, 256, (23, 37), dtype=np.uint8)
    for source in (png(values), encoded(Image.fromarray(values), "BMP"), encoded(Image.fromarray(values), "TIFF")):
        depth = read_depth_map(source)
        np.testing.assert_array_equal(depth.values, values)
        assert depth.bits == 8


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "LA"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_stored_in_several_channels(rng, kind, dtype):
    top = np.iinfo(dtype).max
    values = rng.integers(0, top, (23, 37), dtype=dtype)
    alpha = rng.integers(0, top, (23, 37), dtype=dtype)
    channels = {"RGB": [values] * 3, "RGBA": [values] * 3 + [alpha], "LA": [values, alpha]}[kind]
    if kind == "LA" and dtype == np.uint8:
        content = encoded(Image.merge("LA", [Image.fromarray(channel) for channel in channels]))
        np.testing.assert_array_equal(read_depth_map(content).values, values)
    elif kind != "LA":
        depth = read_depth_map(png(np.dstack(channels)))
        np.testing.assert_array_equal(depth.values, values)
        assert depth.bits == dtype().itemsize * 8
    np.testing.assert_array_equal(read_depth_map(np.dstack(channels)).values, values)


def test_grey_palette_and_bilevel(rng):
    values = rng.integers(0, 4, (23, 37), dtype=np.uint8) * 60
    content = encoded(Image.fromarray(values).convert("P"))
    np.testing.assert_array_equal(read_depth_map(content).values, values)
    np.testing.assert_array_equal(read_depth_map(encoded(Image.fromarray(values > 60))).values > 0, values > 60)
    np.testing.assert_array_equal(read_depth_map(Image.fromarray(values > 60)).values > 0, values > 60)


def test_grey_jpeg_is_no_colour_picture(photo):
    grey = np.repeat((photo[:, :, :1] * 255).astype(np.uint8), 3, 2)
    depth = read_depth_map(encoded(Image.fromarray(grey), "JPEG", quality=90))
    # JPEG itself: a few levels.
    assert np.abs(depth.values - grey[:, :, 0]).max() < 12


@pytest.mark.parametrize("way", ["png", "jpeg", "array", "floats", "image", "palette", "cmyk", "sixteen"])
def test_colour_is_refused(colours, photo, way):
    source = {
        "png": png(colours),
        "jpeg": encoded(Image.fromarray((photo * 255).astype(np.uint8)), "JPEG"),
        "array": colours,
        "floats": photo,
        "image": Image.fromarray(colours),
        "palette": encoded(Image.fromarray(colours).quantize(8)),
        "cmyk": Image.fromarray(colours).convert("CMYK"),
        "sixteen": png(colours.astype(np.uint16) * 257),
    }[way]
    with pytest.raises(DepthMapError, match="colour picture"):
        read_depth_map(source)


def test_how_grey_is_grey():
    values = np.full((4, 6, 3), 100, np.uint8)
    values[2, 3] = 100, 103, 107  # 7 of 255 apart: 2.7 %
    assert read_depth_map(values).values[2, 3] == 103
    values[2, 3, 2] = 108  # 3.1 %
    with pytest.raises(DepthMapError, match="3% apart"):
        read_depth_map(values)


@pytest.mark.parametrize(
    "dtype",
    [np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint64, np.float16, np.float64, ">f4"],
)
def test_arrays_of_every_real_type(dtype):
    values = np.array([[0, 1, 1], [1, 0, 0]]).astype(dtype)
    np.testing.assert_array_equal(read_depth_map(values).values, [[0, 1, 1], [1, 0, 0]])
    file = io.BytesIO()
    np.save(file, values)
    np.testing.assert_array_equal(read_depth_map(file.getvalue()).values, [[0, 1, 1], [1, 0, 0]])


def test_trailing_axis_of_one(smooth):
    np.testing.assert_array_equal(read_depth_map(smooth[:, :, None]).values, smooth)


@pytest.mark.parametrize(
    "source",
    [None, 7, {}, [[1, 2]], np.ones((2, 3), complex), np.ones((2, 3), "U3"), np.ones((2, 3, 5)), np.ones(5)],
    ids=lambda source: type(source).__name__ + str(getattr(source, "shape", "")),
)
def test_things_that_are_no_depth_map(source):
    with pytest.raises(DepthMapError):
        read_depth_map(source)


def test_floating_files(smooth):
    depth = read_depth_map(encoded(Image.fromarray(smooth), "TIFF"))
    np.testing.assert_array_equal(depth.values, smooth)
    assert (depth.origin, depth.bits) == ("TIFF", 32)
    assert read_depth_map(Image.fromarray(smooth)).bits == 32


ORIENTED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a.T[::-1, ::-1],
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", ORIENTED)
def test_exif_orientation_as_every_viewer_shows_it(rng, orientation):
    values = rng.integers(0, 65536, (23, 37), dtype=np.uint16)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(values), exif=exif)
    np.testing.assert_array_equal(read_depth_map(content).values, ORIENTED[orientation](values))
    grey = (values // 257).astype(np.uint8)
    jpeg = read_depth_map(encoded(Image.fromarray(grey), "WEBP", lossless=True, exif=exif))
    np.testing.assert_array_equal(jpeg.values, ORIENTED[orientation](grey))


def test_missing_file(tmp_path: Path):
    with pytest.raises(DepthMapError, match=r"missing\.png cannot be read"):
        read_depth_map(tmp_path / "missing.png")


def test_flat_map_is_a_map():
    depth = read_depth_map(np.full((4, 6), 7, np.uint8))
    assert depth.range == (7, 7)
    assert (np.asarray(depth.to_image()) == 128).all()
