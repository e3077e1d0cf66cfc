"""Files that are read by hand: headers of TIFF to the byte, orientation, and what each refusal says."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from depth2img import DepthMapError, read_depth_map
from depth2img.depth.readers.tiff import first_size
from tests.refusing import refused

# --- TIFF --------------------------------------------------------------------------------------------------------

Entry = tuple[int, int, int]
"""Tag, type, value."""


def tiff(order: str, big: bool, entries: list[Entry], *, count: int | None = None, behind: bytes = b"") -> bytes:
    """Header and first directory, which does not begin where it usually does."""
    numbers = {3: "H", 4: "I", 16: "Q"}
    room = 8 if big else 4
    packed = b"".join(
        struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, 1)
        + struct.pack(order + numbers.get(kind, "I"), value).ljust(room, b"\0")
        for tag, kind, value in entries
    )
    count = len(entries) if count is None else count
    mark = b"II" if order == "<" else b"MM"
    if big:
        head = mark + struct.pack(order + "HHHQ", 43, 8, 0, 21).ljust(19, b"\xff")
        return head + struct.pack(order + "Q", count) + packed + behind
    head = mark + struct.pack(order + "HI", 42, 21).ljust(19, b"\xff")
    return head + struct.pack(order + "H", count) + packed + behind


# At an odd place the value of the first reads as the tag of a width.
AHEAD: list[Entry] = [(254, 4, 0x01000100), (255, 3, 0x0101)]

CASES = pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True), (">", True)])


@CASES
@pytest.mark.parametrize("kind", [3, 4, 1])
def test_first_size_of_a_tiff(order: str, big: bool, kind: int) -> None:
    """Of an unknown type the number is taken for one of 32 bits."""
    width, height = (40_000, 50_000) if kind == 3 else (3_000_000_000, 4_000_000_000)
    content = tiff(order, big, [*AHEAD, (256, kind, width), (257, kind, height), (256, 3, 7), (257, 3, 8)])
    assert first_size(content) == (width, height)


@pytest.mark.parametrize("order", "<>")
def test_numbers_of_64_bits(order: str) -> None:
    content = tiff(order, True, [*AHEAD, (256, 16, 2**63 + 5), (257, 16, 2**62 + 1)])
    assert first_size(content) == (2**63 + 5, 2**62 + 1)


@CASES
def test_a_directory_that_claims_too_many_tags(order: str, big: bool) -> None:
    claimed = 2**63 + 9 if big else 40_000
    assert first_size(tiff(order, big, [(256, 3, 17), (257, 3, 11)], count=claimed)) == (17, 11)
    late = [(254, 3, 1)] * 4095
    assert first_size(tiff(order, big, [*late[:-1], (256, 3, 17), (257, 3, 11)])) == (17, 11)
    assert first_size(tiff(order, big, [*late, (256, 3, 17), (257, 3, 11)])) is None


@CASES
def test_without_both_tags_there_is_no_size(order: str, big: bool) -> None:
    for entries in ([(256, 3, 17)], [(257, 3, 11)], []):
        # What lies behind the directory is none of it.
        behind = tiff(order, big, [(256, 3, 5), (257, 3, 6)])[29 if big else 23 :]
        assert first_size(tiff(order, big, entries, behind=behind)) is None


@CASES
def test_what_was_found_before_the_file_ends_counts(order: str, big: bool) -> None:
    whole = tiff(order, big, [(256, 3, 17), (257, 3, 11), (258, 3, 8)])
    assert first_size(whole[:-9]) == (17, 11)
    assert first_size(whole[:24]) is None
    assert first_size(whole[:5]) is None


@pytest.mark.parametrize("name", ["grey", "colour", "float"])
def test_only_what_pillow_cannot_read_goes_to_opencv(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(11 * 17).reshape(11, 17) * 300
    array = {
        "grey": values.astype(np.uint16),
        "colour": np.repeat(values[:, :, None] // 300, 3, axis=2).astype(np.uint8),
        "float": values.astype(np.float32),
    }[name]
    content = cv2.imencode(".tiff", array)[1].tobytes()
    monkeypatch.setattr(cv2, "imdecode", None)
    wanted = array if array.ndim == 2 else array[:, :, 1]
    assert np.array_equal(read_depth_map(content).values, wanted)


def deep_grey(height: int = 11, width: int = 17) -> np.ndarray:
    """Grey in three channels of 16 bits, every value another."""
    return np.repeat((np.arange(height * width).reshape(height, width, 1) * 300).astype(np.uint16), 3, axis=2)


def test_sixteen_bits_in_several_channels_of_a_tiff() -> None:
    depth = read_depth_map(cv2.imencode(".tiff", deep_grey())[1].tobytes())
    assert np.array_equal(depth.values, deep_grey()[:, :, 1])
    assert (depth.origin, depth.bits) == ("TIFF", 16)


@pytest.mark.parametrize("array", [None, np.zeros((11, 16, 3), np.uint16), np.zeros((10, 17, 3), np.uint16)])
def test_opencv_must_give_the_size_that_was_checked(array: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    content = cv2.imencode(".tiff", deep_grey())[1].tobytes()
    monkeypatch.setattr("depth2img.depth.readers.tiff._codecs", lambda: None)  # with imagecodecs, tifffile reads it
    monkeypatch.setattr(cv2, "imdecode", lambda *_: array)
    with refused(DepthMapError, got="16 bits unsigned, 3 channels, compression LZW"):
        read_depth_map(content)


# --- PNG with 16 bits in several channels ------------------------------------------------------------------------


def oriented(content: bytes, orientation: int) -> bytes:
    """A PNG with an EXIF chunk behind its header."""
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + struct.pack(">H", orientation) + bytes(6)
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    return content[:33] + chunk + content[33:]


@pytest.mark.parametrize("orientation", range(10))
def test_orientation_of_what_opencv_reads(orientation: int) -> None:
    """As Pillow turns the same picture in 8 bits."""
    grey = deep_grey()
    depth = read_depth_map(oriented(cv2.imencode(".png", grey)[1].tobytes(), orientation))
    small = Image.fromarray((grey[:, :, 0] // 300).astype(np.uint8))
    file = io.BytesIO()
    small.save(file, "PNG")
    wanted = read_depth_map(oriented(file.getvalue(), orientation)).values
    assert np.array_equal(depth.values, wanted * 300)
    assert depth.values.shape == ((17, 11) if 5 <= orientation <= 8 else (11, 17))
    assert (depth.origin, depth.bits) == ("PNG", 16)


def test_a_deep_png_that_is_cut_off() -> None:
    content = cv2.imencode(".png", deep_grey())[1].tobytes()
    with refused(DepthMapError, got="rows are missing"):
        read_depth_map(content[: content.index(b"IDAT") + 20])


# --- arrays and .npy ---------------------------------------------------------------------------------------------


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_npy_of_each_version(version: tuple[int, int]) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    depth = read_depth_map(npy(values, version))
    assert np.array_equal(depth.values, values)
    assert (depth.origin, depth.bits) == ("NPY", None)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_npy_with_channels(channels: int) -> None:
    values = np.repeat(np.arange(12, dtype=np.uint8).reshape(3, 4, 1), channels, axis=2)
    assert np.array_equal(read_depth_map(npy(values)).values, values[:, :, 0])


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (np.ones(5), "shape (5,), type float64"),
        (np.ones((2, 3, 5), np.uint8), "shape (2, 3, 5), type uint8"),
        (np.ones((2, 3, 0), np.uint8), "shape (2, 3, 0), type uint8"),
        (np.ones((2, 3), complex), "shape (2, 3), type complex128"),
        (np.ones((2, 3), object), "shape (2, 3), type object"),
        (np.ones((2, 2, 2, 2)), "shape (2, 2, 2, 2), type float64"),
    ],
)
def test_npy_of_other_things(array: np.ndarray, got: str) -> None:
    with refused(DepthMapError, got=got):
        read_depth_map(npy(array))


@pytest.mark.parametrize(("shape", "size"), [("(3, 70000)", "70000 x 3"), ("(70000, 3)", "3 x 70000")])
def test_the_size_of_an_npy_is_checked_before_anything_is_allocated(shape: str, size: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    content = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode()
    with refused(DepthMapError, got=f"{size} pixels"):
        read_depth_map(content)


def test_an_npy_that_is_cut_off() -> None:
    with pytest.raises(DepthMapError) as caught:
        read_depth_map(npy(np.ones((40, 50), np.float32))[:-100])
    assert caught.value.what == "The .npy file holds no depth map." and caught.value.fix


@pytest.mark.parametrize(
    ("array", "got"),
    [(np.ones((2, 3), complex), "complex128"), (np.array([["a", "b"]]), "<U1"), (np.ones((2, 3), object), "object")],
)
def test_arrays_of_other_things(array: np.ndarray, got: str) -> None:
    with refused(DepthMapError, got=got):
        read_depth_map(array)


@pytest.mark.parametrize(("shape", "got"), [((2, 3, 5), "shape (2, 3, 5)"), ((2, 3, 0), "shape (2, 3, 0)")])
def test_arrays_of_other_shapes(shape: tuple[int, ...], got: str) -> None:
    with refused(DepthMapError, got=got):
        read_depth_map(np.ones(shape, np.float32))


def test_the_origin_of_arrays_and_pictures() -> None:
    depth = read_depth_map(np.ones((2, 3), np.float64))
    assert (depth.origin, depth.bits) == ("array", None)
    depth = read_depth_map(Image.new("L", (3, 2), 7))
    assert (depth.origin, depth.bits) == ("picture", 8)


def test_values_beyond_float32_are_refused_in_words() -> None:
    with pytest.raises(DepthMapError, match="1 values that are not finite"):
        read_depth_map(np.array([[1e300, 1.0]]))


@pytest.mark.parametrize("source", [None, 7, [[1, 2]]])
def test_things_that_are_no_source(source: object) -> None:
    with refused(DepthMapError, got=type(source).__name__):
        read_depth_map(source)


def test_a_picture_in_memory_may_not_be_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("depth2img.io.images.MAX_SIDE", 10)
    with refused(DepthMapError, got="11 x 2 pixels"):
        read_depth_map(Image.new("L", (11, 2)))


# --- channels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_of_grey_in_three_channels_the_middle_one_is_taken(dtype: Any) -> None:
    top = 1.0 if dtype == np.float32 else np.iinfo(dtype).max
    values = np.array([[[0.50, 0.51, 0.52], [0.3, 0.3, 0.3]]]) * top
    array = values.astype(dtype)
    assert np.array_equal(read_depth_map(array).values, array[:, :, 1].astype(np.float32))
    with_alpha = np.dstack([array, np.zeros((1, 2), dtype)])
    assert np.array_equal(read_depth_map(with_alpha).values, array[:, :, 1].astype(np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_colour_is_said_in_per_cent_of_full_scale(dtype: Any, channel: int) -> None:
    top = 1.0 if dtype == np.float32 else np.iinfo(dtype).max
    array = np.full((3, 4, 3), 0.2 * top).astype(dtype)
    array[1, 2, channel] = dtype(0.6 * top)
    with refused(DepthMapError, got="channels up to 40% apart"):
        read_depth_map(array)


def test_grey_with_alpha_takes_the_grey() -> None:
    array = np.dstack([np.full((3, 4), 9, np.uint8), np.arange(12, dtype=np.uint8).reshape(3, 4)])
    assert (read_depth_map(array).values == 9).all()


def test_channels_with_nan_are_refused_as_no_grey() -> None:
    array = np.full((3, 4, 3), 0.5, np.float32)
    array[1, 2, 1] = np.nan
    with refused(DepthMapError, got="NaN in some channels alone"):
        read_depth_map(array)


@pytest.mark.parametrize(
    ("mode", "kind", "bits"), [("L", "PNG", 8), ("I;16", "PNG", 16), ("L", "TIFF", 8), ("F", "TIFF", 32)]
)
def test_bits_of_files(mode: str, kind: str, bits: int) -> None:
    file = io.BytesIO()
    Image.new(mode, (5, 4), 7).save(file, kind)
    depth = read_depth_map(file.getvalue())
    assert (depth.origin, depth.bits) == (kind, bits)
    assert (depth.values == 7).all()


@pytest.mark.parametrize("mode", ["P", "CMYK", "YCbCr", "HSV", "1"])
def test_pictures_of_other_modes_are_read_as_rgb(mode: str) -> None:
    grey = Image.fromarray(np.repeat(np.arange(12, dtype=np.uint8).reshape(3, 4, 1) * 20, 3, axis=2))
    image = grey.convert(mode)
    wanted = np.asarray(image.convert("RGB"))[:, :, 1]
    assert np.array_equal(read_depth_map(image).values, wanted)


def test_lab_is_read_as_rgb() -> None:
    """Grey there are equal second and third channels, which look like colour if they are taken for RGB."""
    light = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20)
    neutral = Image.new("L", (4, 3), 128)
    image = Image.merge("LAB", [light, neutral, neutral])
    wanted = np.asarray(image.convert("RGB"))[:, :, 1]
    assert np.ptp(wanted) > 200 and np.array_equal(read_depth_map(image).values, wanted)


def test_a_png_has_at_most_sixteen_bits() -> None:
    """Older versions of Pillow open 16 bits as 32."""
    image = Image.new("I", (4, 3), 7)
    assert read_depth_map(image).bits == 32
    image.format = "PNG"
    assert read_depth_map(image).bits == 16


@pytest.mark.parametrize("shape", [(0, 4, 3), (3, 0, 3), (0, 4)])
def test_arrays_of_nothing(shape: tuple[int, ...]) -> None:
    with refused(DepthMapError, got=f"{shape[1]} x {shape[0]} pixels"):
        read_depth_map(np.zeros(shape, np.uint8))
