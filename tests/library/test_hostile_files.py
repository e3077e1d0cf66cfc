"""Damaged and malicious files: a clear error or a picture, never anything else, and never much memory."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from depth2img import (
    Depth2ImgError,
    DepthMapError,
    DepthOptions,
    PictureError,
    adjust,
    conditioning,
    read_depth_map,
    read_picture,
)
from depth2img.depth.colour_maps import check_colour_map
from depth2img.depth.depth_map import DepthMap
from depth2img.depth.placement import ResizeMode, fit
from depth2img.depth.readers.tiff import first_size
from depth2img.estimators.midas import LONGEST_SIDE, midas_input
from depth2img.io import images
from depth2img.io.images import to_float
from depth2img.io.png import ADAM7

READERS: list[tuple[Callable[[Any], Any], type[Exception]]] = [
    (read_picture, PictureError),
    (read_depth_map, DepthMapError),
]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def npy(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npy_header(text: str, version: int = 1) -> bytes:
    body = text.encode()
    length = struct.pack("<H" if version == 1 else "<I", len(body))
    return b"\x93NUMPY" + bytes([version, 0]) + length + body


def samples() -> dict[str, bytes]:
    noise = np.random.default_rng(5).integers(0, 256, (11, 17, 3), dtype=np.uint8)
    colour, grey = Image.fromarray(noise), Image.fromarray(noise[:, :, 0])
    sixteen = Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    return {
        "png": encoded(colour, "PNG", exif=exif),
        "png-16": encoded(sixteen, "PNG"),
        "png-palette": encoded(colour.quantize(7), "PNG", transparency=2),
        "jpeg": encoded(colour, "JPEG", exif=exif),
        "jpeg-progressive": encoded(colour, "JPEG", progressive=True),
        "jpeg-cmyk": encoded(colour.convert("CMYK"), "JPEG"),
        "webp": encoded(colour, "WEBP", exif=exif),
        "bmp": encoded(colour, "BMP"),
        "gif": encoded(colour.quantize(9), "GIF", save_all=True, append_images=[grey.quantize(9)]),
        "tiff": encoded(colour, "TIFF", exif=exif),
        "tiff-lzw": encoded(colour, "TIFF", compression="tiff_lzw"),
        "tiff-deflate": encoded(sixteen, "TIFF", compression="tiff_adobe_deflate"),
        "tiff-float": encoded(Image.fromarray(noise[:, :, 0].astype(np.float32)), "TIFF"),
        "ppm": encoded(colour, "PPM"),
        "pgm-16": b"P5 17 11 65535\n" + (noise[:, :, 0].astype(">u2") * 257).tobytes(),
        "npy": npy(noise[:, :, 0].astype(np.float32)),
        "npy-2": npy_header("{'descr': '|u1', 'fortran_order': True, 'shape': (11, 17), }\n", 2) + bytes(range(187)),
    }


SAMPLES = samples()


def try_all(content: bytes) -> None:
    """Reading gives something or the one error; any other exception fails the test."""
    for read, error in READERS:
        with contextlib.suppress(error):
            assert read(content) is not None


def test_the_samples_are_whole():
    for name, content in SAMPLES.items():
        if not name.startswith("npy"):
            assert read_picture(content).shape in ((11, 17, 3), (17, 11, 3)), name
        if name in ("png-16", "tiff-deflate", "tiff-float", "pgm-16", "npy", "npy-2"):
            assert read_depth_map(content).values.shape == (11, 17), name


@given(st.binary(max_size=200))
def test_arbitrary_bytes(content):
    try_all(content)


MAGIC = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF____WEBP", b"BM", b"GIF89a", b"II*\0", b"MM\0*", b"P6", b"Pf"]


@given(st.sampled_from([*MAGIC, b"\x93NUMPY\x01\0", b"\x93NUMPY\x03\0"]), st.binary(max_size=200))
def test_arbitrary_bytes_behind_a_known_signature(magic, rest):
    try_all(magic + rest)


@given(st.text(max_size=100))
def test_arbitrary_text(text):
    for read, error in READERS:
        with pytest.raises(error):
            read(text)


@pytest.mark.parametrize("name", SAMPLES)
@settings(max_examples=60)
@given(data=st.data())
def test_changed_bytes(name, data):
    content = bytearray(SAMPLES[name])
    # Most of what decoders look at lies in the first bytes.
    places = st.integers(0, len(content) - 1) | st.integers(0, min(len(content) - 1, 80))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(places)] = data.draw(st.integers(0, 255))
    try_all(bytes(content))


@pytest.mark.parametrize("name", SAMPLES)
def test_truncated_anywhere(name):
    content = SAMPLES[name]
    for length in [*range(0, min(len(content), 160)), *range(160, len(content), 29)]:
        try_all(content[:length])


@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "bmp", "tiff", "ppm", "png-16", "tiff-lzw"])
def test_half_a_picture_is_an_error(name):
    content = SAMPLES[name]
    with pytest.raises(PictureError):
        read_picture(content[: len(content) // 2])


@pytest.mark.parametrize("name", ["png-16", "npy", "tiff-deflate"])
def test_half_a_depth_map_is_an_error(name):
    content = SAMPLES[name]
    with pytest.raises(DepthMapError):
        read_depth_map(content[: len(content) // 2])


def png_header(width: int, height: int, extra: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


BOMBS = {
    "just over our limit": png_header(8193, 8192),
    "Pillow warns": png_header(10_000, 10_000),
    "Pillow refuses": png_header(60_000, 60_000),
    "a long side": png_header(65_536, 1),
    "a high side": png_header(1, 65_536),
    "largest header": png_header(2**31 - 1, 2**31 - 1),
    "ppm": b"P6 60000 60000 255\n",
    "pgm": b"P5 9000 9000 65535\n",
    "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 50_000, 50_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "gif": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\0;",
    "npy": npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (60000, 60000), }\n"),
}


@pytest.mark.parametrize(
    ("name", "reader"),
    # .npy is a format of depth maps only.
    [(name, reader) for name in BOMBS for reader in READERS if name != "npy" or reader[0] is read_depth_map],
    ids=lambda value: value if isinstance(value, str) else value[0].__name__,
)
def test_bombs_are_refused_by_their_header(name, reader):
    read, error = reader
    tracemalloc.start()
    try:
        with pytest.raises(error, match="too large"):
            read(BOMBS[name])
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_the_limit_itself_is_allowed():
    images.check_size(8192, 8192)
    images.check_size(65_535, 1024)


def test_a_text_chunk_that_unpacks_to_a_lot():
    body = b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    try_all(png_header(4, 4, chunk))


PICKLE = b"cos\nsystem\n(S'touch pwned'\ntR."

HOSTILE_NPY = {
    "pickle": npy_header("{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }\n") + PICKLE,
    "bare pickle": PICKLE,
    "objects": npy(np.array([[None, 1], [2, 3]], object), allow_pickle=True),
    "a field of objects": npy_header("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (2, 3), }\n") + PICKLE,
    "fields": npy(np.zeros((2, 3), [("a", "<f4"), ("b", "<i4")])),
    "text": npy(np.array([["a", "b"]])),
    "dates": npy(np.zeros((2, 3), "datetime64[s]")),
    "complex": npy(np.ones((2, 3), np.complex64)),
    "void of a gigabyte each": npy_header("{'descr': '|V1000000000', 'fortran_order': False, 'shape': (50, 50), }\n"),
    "very many channels": npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (9, 9, 90000000), }\n"),
    "negative side": npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4), }\n") + bytes(64),
    "one side": npy(np.ones(7, np.float32)),
    "no side": npy(np.float32(7)),
    "five sides": npy(np.ones((2, 1, 2, 2, 2), np.float32)),
    "no pixels": npy(np.ones((0, 4), np.float32)),
    "five channels": npy(np.ones((4, 6, 5), np.float32)),
    "unknown type": npy_header("{'descr': 'nonsense', 'fortran_order': False, 'shape': (2, 3), }\n"),
    "missing key": npy_header("{'descr': '<f4', 'shape': (2, 3), }\n") + bytes(24),
    "code": npy_header("__import__('os').system('touch pwned')\n"),
    "unclosed": npy_header("{'descr': '<f4', ("),
    "an old header with L": npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 30L), }\n"),
    "deep": npy_header("(" * 5000),
    "deeper": npy_header("-" * 9000 + "1"),
    "endless": npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }" + " " * 60_000),
    "no text": b"\x93NUMPY\x03\0" + struct.pack("<I", 4) + b"\xff\xfe\xfd\xfc",
    "future version": b"\x93NUMPY\x09\0" + bytes(64),
    "version only": b"\x93NUMPY",
    "header longer than the file": b"\x93NUMPY\x02\0\xff\xff\xff\xff",
    "only NaN": npy(np.array([[np.nan, np.nan, np.nan]], np.float32)),
    "only infinity": npy(np.array([[np.inf, -np.inf, np.inf]])),
    "too large for float32": npy(np.array([[1.0, 1e300]])),
    "too large to subtract": npy(np.array([[3e38, -3e38]], np.float32)),
}


@pytest.mark.parametrize("name", HOSTILE_NPY)
def test_hostile_npy(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(DepthMapError):
            read_depth_map(HOSTILE_NPY[name])
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert not list(tmp_path.iterdir())


@given(st.text(max_size=120), st.sampled_from([1, 2, 3]))
@example("{'descr': '<f4', 'fortran_order': False, 'shape': (True, True), }", 1)
def test_arbitrary_npy_headers(text, version):
    try_all(npy_header(text, version) + bytes(32))


def test_formats_that_pillow_would_run_a_program_for_stay_closed():
    """Pillow hands EPS to Ghostscript."""
    for content in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\xc5\xd0\xd3\xc6" + bytes(40)):
        with pytest.raises(PictureError, match="not a picture that can be read"):
            read_picture(content)


@pytest.mark.parametrize("content", [b"", b" ", b"\0", b"not a picture at all"])
def test_no_picture(content):
    try_all(content)
    with pytest.raises(PictureError):
        read_picture(content)
    with pytest.raises(DepthMapError):
        read_depth_map(content)


def twice_sized_tiff(order: str, first: int, last: int) -> bytes:
    """A whole grey TIFF of `last` x `last` whose size tags stand there a second time, before, with another number."""
    tags = [(256, 4, first), (256, 4, last), (257, 4, first), (257, 4, last), (258, 3, 8), (259, 3, 1), (262, 3, 1)]
    data = 8 + 2 + 12 * 11 + 4
    tags += [(273, 4, data), (277, 3, 1), (278, 4, last), (279, 4, last * last)]
    entries = b"".join(
        struct.pack(order + "HHI", tag, kind, 1)
        + struct.pack(order + ("I" if kind == 4 else "HH"), *[value, 0][: 5 - kind])
        for tag, kind, value in tags
    )
    magic = b"II*\0" if order == "<" else b"MM\0*"
    head = magic + struct.pack(order + "IH", 8, len(tags)) + entries + bytes(4)
    return head + bytes(range(256)) * (last * last // 256)


@pytest.mark.parametrize("order", "<>")
def test_a_tiff_that_says_its_size_twice_never_reaches_opencv(order, monkeypatch):
    """OpenCV would believe the first and allocate it; Pillow has checked the last."""
    reached = []
    monkeypatch.setattr(cv2, "imdecode", lambda *args: reached.append(args))
    assert read_depth_map(twice_sized_tiff(order, 30_000, 16)).values.shape == (16, 16)
    assert not reached
    with contextlib.suppress(DepthMapError):
        read_depth_map(encoded_by_opencv(".tiff", np.uint16))
    assert reached, "16 bits in several channels are OpenCV's"


def encoded_by_opencv(suffix: str, depth: type) -> bytes:
    """Grey in three channels."""
    grey = np.arange(11 * 17).reshape(11, 17, 1) * 300
    return cv2.imencode(suffix, np.repeat(grey, 3, axis=2).astype(depth))[1].tobytes()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def deep_png(
    colour: int, rows: bytes, *, interlaced: int = 0, before: bytes = b"", size: tuple[int, int] = (7, 5)
) -> bytes:
    """A PNG of 16 bits per channel from its rows, each with its filter."""
    head = struct.pack(">2I5B", *size, 16, colour, 0, 0, interlaced)
    parts = [chunk(b"IHDR", head), before, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


ANIMATION = chunk(b"acTL", struct.pack(">2I", 2, 0)) + chunk(
    b"fcTL", struct.pack(">5I2H2B", 0, 7, 5, 0, 0, 100, 1000, 0, 0)
)


@pytest.mark.parametrize("before", [b"", ANIMATION], ids=["still", "animated"])
@pytest.mark.parametrize("bad_row", [0, 4])
def test_a_filter_that_there_is_not(before, bad_row):
    """Fuzzing has found that OpenCV 4.11 crashes on it in an animated PNG, and takes the whole process along."""
    rows = b"".join(bytes([9 if row == bad_row else 0]) + bytes(range(42)) for row in range(5))
    with pytest.raises(DepthMapError, match="damaged"):
        read_depth_map(deep_png(2, rows, before=before))


def test_the_file_that_crashed_opencv():
    """8 bits: such a file is Pillow's, which has ways of its own with it."""
    rows = b"".join(bytes([9 if row == 4 else 0]) + bytes(range(21)) for row in range(5))
    head = struct.pack(">2I5B", 7, 5, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", head), ANIMATION, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    try_all(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_deep_png_of_several_channels_keep_all_bits():
    """Also animated, interlaced and with alpha: two values that eight bits cannot tell apart stay apart."""
    grey = (1000 + np.arange(35)).reshape(5, 7)
    for colour, channels in ((2, 3), (4, 2), (6, 4)):
        pixels = np.repeat(grey[:, :, None], channels, axis=2).astype(">u2")
        rows = b"".join(b"\0" + row.tobytes() for row in pixels)
        for before in (b"", ANIMATION, chunk(b"tEXt", b"a\0b")):
            depth = read_depth_map(deep_png(colour, rows, before=before))
            np.testing.assert_array_equal(depth.values, grey)
            assert depth.bits == 16
        passes = [pixels[y::dy, x::dx] for x, y, dx, dy in ADAM7]
        rows = b"".join(b"\0" + row.tobytes() for part in passes if part.size for row in part)
        np.testing.assert_array_equal(read_depth_map(deep_png(colour, rows, interlaced=1)).values, grey)
        with pytest.raises(DepthMapError, match="damaged"):
            read_depth_map(deep_png(colour, rows[:-5], interlaced=1))


@pytest.mark.parametrize("kind", ["TIFF", "BigTIFF"])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16, np.float32])
def test_the_first_size_is_the_size(kind, depth):
    if kind == "BigTIFF":
        content = encoded(Image.fromarray(np.ones((11, 17), depth)), "TIFF", big_tiff=True)
    else:
        content = cv2.imencode("." + kind.lower(), np.ones((11, 17), depth))[1].tobytes()
    assert first_size(content) == (17, 11)


def test_a_device_a_folder_and_a_pipe_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (Path("/dev/zero"), tmp_path, tmp_path / "pipe.png"):
        with pytest.raises(PictureError, match="a folder, a pipe or a device"):
            read_picture(path)


def test_a_file_that_does_not_say_how_long_it_is(tmp_path, monkeypatch):
    """As those of /proc: its size reads 0."""
    monkeypatch.setattr(images, "MAX_BYTES", 100)
    with pytest.raises(PictureError, match="too large"):
        images.read_file(Path("/proc/self/status"))


# --- kinds of pictures --------------------------------------------------------------------------------------------


def test_sixteen_bit_palette_of_a_tiff():
    """The colours of a TIFF's palette have 16 bits; those of its pixels here as well, which Pillow refuses."""
    noise = np.random.default_rng(9).integers(0, 256, (11, 17, 3), dtype=np.uint8)
    palette = Image.fromarray(noise).quantize(9)
    content = encoded(palette, "TIFF")
    (exact,) = (np.asarray(palette.convert("RGB")),)
    np.testing.assert_array_equal(read_picture(content), exact)
    deep = bytearray(content)
    at = deep.index(struct.pack("<HHI", 258, 3, 1)) + 8
    deep[at : at + 2] = struct.pack("<H", 16)
    try_all(bytes(deep))


def test_cmyk_is_no_negative():
    """Adobe's JPEGs store CMYK inverted; read without care, white becomes black."""
    white = Image.new("CMYK", (17, 11), (0, 0, 0, 0))
    for kind in ("JPEG", "TIFF"):
        assert read_picture(encoded(white, kind)).min() > 240, kind
        assert read_depth_map(encoded(white, kind)).values.min() > 240, kind


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(kind):
    frames = [Image.new("RGB", (17, 11), (level,) * 3) for level in (40, 120, 200)]
    options = {} if kind == "TIFF" else {"duration": 100}
    options |= {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert np.unique(read_picture(content)).tolist() == [40]
    assert np.unique(read_depth_map(content).values).tolist() == [40]


@pytest.mark.parametrize("size", [(1, 1), (65_535, 1), (1, 65_535)])
def test_the_smallest_and_the_longest(size):
    """All the way: picture, network input, map, every resize mode, conditioning; in little memory."""
    picture = read_picture(encoded(Image.new("RGB", size, (9, 99, 199)), "PNG"))
    assert picture.shape == (size[1], size[0], 3)
    ramp = np.linspace(1, 2, size[0] * size[1], dtype=np.float32).reshape(size[1], size[0])
    depth = read_depth_map(npy(ramp))
    tracemalloc.start()
    try:
        assert max(midas_input(to_float(picture)).shape[1:]) <= LONGEST_SIDE
        for mode in ResizeMode:
            placed = fit(depth, width=192, height=128, resize_mode=mode)
            adjusted = adjust(placed, DepthOptions(near=0.9, gamma=2.0, blur=3.0, invert=True))
            tensor = conditioning([adjusted], height=16, width=24)
            assert tensor.shape == (1, 1, 16, 24) and bool(tensor.isfinite().all())
            assert tensor.abs().max() <= 1
        assert tracemalloc.get_traced_memory()[1] < 2**31
    finally:
        tracemalloc.stop()
    assert depth.to_image("turbo").size == size and len(depth.to_png()) > 60


def test_a_strip_that_is_filled_up_keeps_what_it_shows():
    """65,535 x 1 in a frame of 3:2: the same as a short strip, only finer."""
    ramp = np.linspace(0, 1, 65_535, dtype=np.float32)[None]
    long = fit(DepthMap(values=ramp), width=192, height=128, resize_mode=ResizeMode.RESIZE_AND_FILL)
    short = fit(DepthMap(values=ramp[:, ::655].copy()), width=192, height=128, resize_mode=ResizeMode.RESIZE_AND_FILL)
    assert long.width * long.height <= 9 * 2**20 and long.width > 3000
    both = [conditioning([one], height=16, width=24) for one in (long, short)]
    assert (both[0] - both[1]).abs().max() < 0.05


@pytest.mark.parametrize("kind", ["npy", "tiff", "array"])
@pytest.mark.parametrize("value", [3e38, -3e38, 2e30])
def test_maps_beyond_all_bounds(kind, value):
    values = np.linspace(1, 2, 77, dtype=np.float32).reshape(7, 11)
    values[3, 5] = value
    content = {"npy": npy(values), "tiff": cv2.imencode(".tiff", values)[1].tobytes(), "array": values}[kind]
    with pytest.raises(DepthMapError, match="NaN, infinity or values beyond"):
        read_depth_map(content)


def test_half_a_surrogate_pair_can_be_answered():
    """JSON may hold one; a message that repeats it must still be text that can be sent."""
    for make in (
        lambda: DepthOptions.from_mapping({"\ud800x": 1}),
        lambda: DepthOptions(source="\udfff"),
        lambda: check_colour_map("\ud800"),
        lambda: read_picture("data:,\ud800"),
    ):
        with pytest.raises(Depth2ImgError) as caught:
            make()
        assert str(caught.value).encode("utf-8")
