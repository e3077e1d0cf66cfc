"""Readers of single formats: PFM, arrays, tensors, TIFF beyond Pillow, colour maps turned back to grey."""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from depth2img import DepthMapError, read_depth_map
from depth2img.depth.colour_maps import COLOUR_MAPS
from depth2img.depth.depth_map import DepthMap
from depth2img.depth.readers import arrays, colours
from tests.refusing import refused

# --- PFM -------------------------------------------------------------------------------------------------------------


def pfm(values: np.ndarray, order: str = "<", head: bytes = b"") -> bytes:
    """As MiDaS writes it: bottom row first."""
    kind = b"Pf" if values.ndim == 2 else b"PF"
    scale = b"-1.000000" if order == "<" else b"1.0"
    size = b"%d %d" % (values.shape[1], values.shape[0])
    return kind + b"\n" + head + size + b"\n" + scale + b"\n" + values[::-1].astype(f"{order}f4").tobytes()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("head", [b"", b"# by hand\n"])
def test_pfm(order: str, head: bytes, smooth: np.ndarray) -> None:
    depth = read_depth_map(pfm(smooth, order, head))
    assert np.array_equal(depth.values, smooth) and (depth.origin, depth.bits) == ("PFM", 32)
    three = np.repeat(smooth[:, :, None], 3, axis=2)
    assert np.array_equal(read_depth_map(pfm(three, order)).values, smooth)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Pf\n", "damaged"),
        (b"Pf\n4 x\n-1\n", "damaged"),
        (b"Pf\n0 4\n-1\n", "empty"),
        (b"Pf\n99999 99999\n-1\n" + bytes(99), "too large"),
        (b"Pf\n4 4\n-1\n" + bytes(63), "cut short"),
    ],
)
def test_pfm_that_is_damaged(content: bytes, message: str) -> None:
    with pytest.raises(DepthMapError, match=message):
        read_depth_map(content)


# --- arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 23, 37), (1, 1, 23, 37), (23, 37, 1), (1, 23, 37, 1), (1, 23, 37, 3)])
def test_axes_of_length_one(shape: tuple[int, ...], smooth: np.ndarray) -> None:
    array = np.broadcast_to(smooth[:, :, None], shape) if shape[-1] == 3 else smooth.reshape(shape)
    file = io.BytesIO()
    np.save(file, array)
    for source in (array, file.getvalue(), torch.from_numpy(np.array(array))):
        assert np.array_equal(read_depth_map(source).values, smooth)


def npz(**named: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **named)
    return file.getvalue()


def test_npz(smooth: np.ndarray) -> None:
    depth = read_depth_map(npz(arr_0=smooth))
    assert np.array_equal(depth.values, smooth) and depth.origin == "NPZ, arr_0"
    with_others = npz(image=np.zeros((4, 5, 3), np.uint8), Depth=smooth, intrinsics=np.eye(3), name="x")
    assert np.array_equal(read_depth_map(with_others).values, smooth)
    assert np.array_equal(read_depth_map(with_others, channel="intrinsics").values, np.eye(3))


def test_npz_with_several_maps(smooth: np.ndarray) -> None:
    with refused(DepthMapError, got="a 23 x 37, b 4 x 5") as caught:
        read_depth_map(npz(a=smooth, b=np.ones((4, 5)), c=np.ones(9)))
    assert "--map-channel" in caught.value.fix
    with refused(DepthMapError, got="depth_1 2 x 2, depth_2 3 x 3"):
        read_depth_map(npz(depth_1=np.ones((2, 2)), depth_2=np.ones((3, 3))))


def test_npz_without_a_map() -> None:
    for content in (npz(a=np.ones(5)), npz(a=np.array([[None, {}]])), b"PK\x03\x04", npz()):
        with pytest.raises(DepthMapError):
            read_depth_map(content)


def test_npz_that_would_unpack_to_a_lot() -> None:
    """Its header is believed, and no more is unpacked than it says."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (8192, 8192, 4)})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("depth.npy", header.getvalue() + bytes(10**7))
    with refused(DepthMapError, got=f"{8192 * 8192 * 32:,} bytes"):
        read_depth_map(file.getvalue())


def test_npz_with_a_long_directory() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(arrays.MOST_ENTRIES + 1):
            archive.writestr(f"{number}.npy", b"")
    with refused(DepthMapError, got="more than 1000"):
        read_depth_map(file.getvalue())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.uint8])
def test_tensors(dtype: torch.dtype) -> None:
    values = torch.arange(15).reshape(1, 3, 5).to(dtype)
    depth = read_depth_map(values.requires_grad_() if dtype.is_floating_point else values)
    assert np.array_equal(depth.values, np.arange(15).reshape(3, 5)) and depth.origin == "tensor"


def test_tensors_that_are_no_maps() -> None:
    for tensor in (torch.eye(3).to_sparse(), torch.ones(3, 4, dtype=torch.complex64), torch.ones(2, 5, 6)):
        with pytest.raises(DepthMapError):
            read_depth_map(tensor)


# --- TIFF ------------------------------------------------------------------------------------------------------------


def tiff(array: np.ndarray, **more: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **more)
    return file.getvalue()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint32, np.int16])
@pytest.mark.parametrize(
    "more", [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"tile": (16, 16)}, {"bigtiff": True}]
)
def test_types_of_tiff(dtype: Any, more: dict[str, Any], smooth: np.ndarray) -> None:
    values = (smooth * 50).astype(dtype)
    assert np.array_equal(read_depth_map(tiff(values, **more)).values, values.astype(np.float32))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint16, np.uint8])
def test_grey_in_three_channels_of_tiff(planar: str, dtype: Any, smooth: np.ndarray) -> None:
    values = (smooth * (50 if np.dtype(dtype).itemsize > 1 else 9)).astype(dtype)
    three = np.stack([values] * 3, axis=2 if planar == "contig" else 0)
    depth = read_depth_map(tiff(three, photometric="rgb", planarconfig=planar))
    assert np.array_equal(depth.values, values.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint16])
@pytest.mark.parametrize(
    "more",
    [
        {"compression": "zstd"},
        {"compression": "zstd", "predictor": True},
        {"compression": "lzw"},
        {"compression": "lzw", "predictor": True},
        {"compression": "packbits"},
        {"compression": "zlib", "predictor": True},
    ],
    ids=lambda more: " ".join(map(str, more.values())),
)
def test_packed_tiff_with_imagecodecs(dtype: Any, more: dict[str, Any], smooth: np.ndarray) -> None:
    pytest.importorskip("imagecodecs", reason="the optional package that unpacks these kinds, and packs them here")
    values = (smooth * 50).astype(dtype)
    assert np.array_equal(read_depth_map(tiff(values, **more)).values, values.astype(np.float32))


@pytest.mark.parametrize("compression", ["zstd", "lzw", "packbits"])
def test_a_packed_tiff_that_unpacks_to_more_than_it_says(compression: str, smooth: np.ndarray) -> None:
    codecs = pytest.importorskip("imagecodecs", reason="the optional package that unpacks these kinds")
    content = tiff(smooth.astype(np.float16), compression=compression, rowsperstrip=23)
    packed = {  # 50 MB of zeros; packing them by PackBits takes minutes
        "zstd": lambda: codecs.zstd_encode(bytes(50_000_000)),
        "lzw": lambda: codecs.lzw_encode(bytes(50_000_000)),
        "packbits": lambda: b"\x81\0" * 400_000,
    }[compression]()
    tracemalloc.start()
    try:
        with pytest.raises(DepthMapError, match=r"too much data|is damaged"):
            read_depth_map(longer(content, packed))
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_kind_of_tiff_that_nothing_reads_is_named(smooth: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    content = bytearray(tiff(smooth.astype(np.float16), compression="zlib"))
    compression = struct.pack("<HHI", 259, 3, 1)
    at = content.index(compression) + len(compression)
    content[at : at + 2] = struct.pack("<H", 50000)
    with refused(DepthMapError, got="16 bits float, 1 channels, compression ZSTD") as caught:
        read_depth_map(bytes(content))
    assert "32-bit float" in caught.value.fix and "pip install imagecodecs" in caught.value.fix


def test_a_tiff_that_unpacks_to_more_than_it_says(smooth: np.ndarray) -> None:
    packed = zlib.compress(bytes(50_000_000), 9)
    with pytest.raises(DepthMapError, match="too much data"):
        read_depth_map(longer(tiff(smooth.astype(np.float16), compression="zlib", rowsperstrip=23), packed))


def longer(file: bytes, packed: bytes) -> bytes:
    """The TIFF file of one strip with another strip behind it, which it names."""
    content = bytearray(file)
    for tag, value in ((273, len(content)), (279, len(packed))):
        at = next(
            i for i in range(len(content)) if content[i : i + 2] == struct.pack("<H", tag) and content[i + 3] == 0
        )
        kind = content[at + 2]
        content[at + 8 : at + 12] = struct.pack("<I" if kind == 4 else "<HH", *((value,) if kind == 4 else (value, 0)))
    return bytes(content) + packed


@pytest.mark.parametrize("sides", [(2**20, 2**20), (2**32 - 1, 2**32 - 1), (70_000, 1)])
def test_a_tiff_header_of_a_terabyte(sides: tuple[int, int], smooth: np.ndarray) -> None:
    content = bytearray(tiff(smooth.astype(np.float64)))
    for tag, side in zip((256, 257), sides, strict=True):
        at = next(
            content.index(struct.pack("<HHI", tag, kind, 1))
            for kind in (3, 4)
            if struct.pack("<HHI", tag, kind, 1) in content
        )
        content[at : at + 12] = struct.pack("<HHII", tag, 4, 1, side)
    with pytest.raises(DepthMapError, match="too large"):
        read_depth_map(bytes(content))


@given(st.binary(max_size=200), st.sampled_from([b"II*\0", b"MM\0*", b"II+\0", b"PK\x03\x04", b"Pf\n", b"PF "]))
def test_arbitrary_bytes_behind_a_signature(rest: bytes, magic: bytes) -> None:
    with pytest.raises(DepthMapError):
        read_depth_map(magic + rest)


# --- colour maps -----------------------------------------------------------------------------------------------------

RAMP = np.linspace(0, 255, 90 * 120).round().astype(np.uint8).reshape(90, 120)


def mapped(name: str) -> Image.Image:
    return Image.fromarray(np.round(colours.tables()[name]).astype(np.uint8)[RAMP])


def encoded(image: Image.Image, kind: str, **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


@pytest.mark.parametrize("name", colours.tables())
def test_colour_maps_are_turned_back(name: str) -> None:
    depth = read_depth_map(encoded(mapped(name), "PNG"))
    # Cividis has equal neighbours in 8 bits.
    assert np.abs(depth.values - RAMP).max() <= 1
    assert depth.bits == 8 and f"the colour map {name}" in depth.notice
    floats = np.asarray(mapped(name), np.float32) / 255
    assert np.array_equal(read_depth_map(floats).values, depth.values)
    # JPEG moves colours by a few of 255; on the steepest part of jet that is as many grey levels.
    through = read_depth_map(encoded(mapped(name), "JPEG", quality=75)).values
    assert np.corrcoef(through.ravel(), RAMP.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("name", [name for name in COLOUR_MAPS if name != "grey"])
def test_our_own_colour_maps(name: str) -> None:
    shown = DepthMap(RAMP.astype(np.float32)).to_image(name)
    # Viridis has equal neighbours in 8 bits.
    assert np.abs(read_depth_map(shown).values - RAMP).max() <= 1


def test_matplotlib_s_spectral() -> None:
    """Depth Anything's: eleven colours and straight lines between them."""
    matplotlib = pytest.importorskip("matplotlib")
    theirs = matplotlib.colormaps["Spectral_r"](np.arange(256))[:, :3] * 255
    assert np.abs(theirs - colours.tables()["spectral"]).max() <= 1


@pytest.mark.parametrize("kind", ["photo", "half", "noise"])
def test_other_colours_are_refused(kind: str, photo: np.ndarray, rng: np.random.Generator) -> None:
    other = np.asarray(mapped("jet")).copy()
    other[:, :60] = rng.integers(0, 256, (90, 60, 3))
    source = {
        "photo": (photo * 255).astype(np.uint8),
        "half": other,
        "noise": rng.integers(0, 256, (40, 50, 3), np.uint8),
    }
    with pytest.raises(DepthMapError, match="no known colour map"):
        read_depth_map(source[kind])


def test_a_channel_of_a_colour_picture_may_be_named(photo: np.ndarray) -> None:
    eight = (photo * 255).astype(np.uint8)
    for index, name in enumerate("RGB"):
        assert np.array_equal(read_depth_map(Image.fromarray(eight), channel=name).values, eight[:, :, index])
        deep = cv2.imencode(".png", eight[:, :, ::-1].astype(np.uint16) * 257)[1].tobytes()
        assert np.array_equal(read_depth_map(deep, channel=name).values, eight[:, :, index] * 257.0)
    with refused(DepthMapError, got="R, G, B, R+256G+65536B, B+256G+65536R"):
        read_depth_map(eight, channel="Z")
    with refused(DepthMapError, got="one channel without a name"):
        read_depth_map(eight[:, :, 0], channel="Z")


def test_sixteen_bits_are_kept_with_the_oldest_pillow(cases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow 9.5 opens a 16-bit PNG as 32-bit integers: its largest number is 65535 all the same."""
    image = Image.open(cases / "mm_sky65535.png")
    old = Image.fromarray(np.asarray(image).astype(np.int32), "I")
    old.format = "PNG"
    monkeypatch.setattr("PIL.ImageOps.exif_transpose", lambda image: image)
    depth = read_depth_map(old, "distance")
    assert (depth.origin, depth.bits) == ("PNG", 16) and "at infinity" in depth.notice
