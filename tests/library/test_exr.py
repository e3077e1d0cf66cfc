"""EXR: which channel is depth, by name, and headers that must not be believed."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth2img import DepthMapError, read_depth_map
from depth2img.depth.readers import exr as reader
from tests.refusing import refused

Z = np.random.default_rng(4).uniform(1, 9, (5, 7)).astype(np.float32)
OTHER = np.zeros((5, 7), np.float32)


def written(*parts: dict[str, np.ndarray], compression: Any = OpenEXR.ZIP_COMPRESSION, **more: Any) -> bytes:
    """An EXR file; a name and a dot before the channels of the second part on are not added."""
    header = {"compression": compression, "type": OpenEXR.scanlineimage, **more}
    made = [OpenEXR.Part(dict(header), dict(channels), f"part{n}") for n, channels in enumerate(parts)]
    file = io.BytesIO()
    OpenEXR.File(made).write(file)
    return file.getvalue()


def colour(layer: str = "") -> dict[str, np.ndarray]:
    return {f"{layer}{name}": np.full((5, 7), at, np.float32) for at, name in enumerate("RGBA")}


def vector(layer: str) -> dict[str, np.ndarray]:
    return {f"{layer}.{name}": OTHER for name in "XYZ"}


@pytest.mark.parametrize(
    ("channels", "found"),
    [
        ({"Z": Z}, "Z"),
        ({"V": Z}, "V"),
        ({"Y": Z}, "Y"),
        ({"anything": Z}, "anything"),
        ({**colour(), "Z": Z}, "Z"),
        ({**colour(), "depth": Z}, "depth"),
        ({**colour("ViewLayer.Combined."), **vector("ViewLayer.Normal"), "ViewLayer.Depth.Z": Z}, "ViewLayer.Depth.Z"),
        ({**colour(), **vector("N"), "Depth.V": Z}, "Depth.V"),
        ({**colour(), "WorldDepth.R": Z, "WorldDepth.G": OTHER, "WorldDepth.B": OTHER}, "WorldDepth.R"),
        ({"A": OTHER + 1, "Y": Z}, "Y"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_depth_channel_by_name(channels: dict[str, np.ndarray], found: str) -> None:
    depth = read_depth_map(written(channels))
    assert np.array_equal(depth.values, Z)
    assert (depth.origin, depth.bits) == (f"EXR, channel {found}", 32)


@pytest.mark.parametrize(
    "compression",
    [OpenEXR.NO_COMPRESSION, OpenEXR.RLE_COMPRESSION, OpenEXR.ZIPS_COMPRESSION, OpenEXR.PIZ_COMPRESSION],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint32])
def test_types_and_compressions(compression: Any, dtype: Any) -> None:
    values = (Z * 100).astype(dtype)
    depth = read_depth_map(written({"Z": values, **colour()}, compression=compression))
    assert np.array_equal(depth.values, values.astype(np.float32))
    assert depth.bits == 8 * values.itemsize


def test_grey_in_red_green_and_blue() -> None:
    depth = read_depth_map(written({"R": Z, "G": Z, "B": Z, "A": OTHER}))
    assert np.array_equal(depth.values, Z) and depth.origin == "EXR"
    with pytest.raises(DepthMapError, match="colour picture"):
        read_depth_map(written(colour()))


def test_several_candidates_are_named_and_one_is_chosen() -> None:
    content = written({"View.Depth.Z": Z, "Other.Depth.Z": OTHER, **colour()})
    with refused(DepthMapError, got="Other.Depth.Z, View.Depth.Z") as caught:
        read_depth_map(content)
    assert "--map-channel" in caught.value.fix
    assert np.array_equal(read_depth_map(content, channel="view.depth.z").values, Z)
    with refused(DepthMapError, got="A, B, G, Other.Depth.Z, R, View.Depth.Z"):
        read_depth_map(content, channel="Z")


def test_any_channel_may_be_named() -> None:
    assert (read_depth_map(written({**colour(), "Z": Z}), channel="G").values == 1).all()


def test_without_a_known_name_all_are_listed() -> None:
    with refused(DepthMapError, got="crypto00, mask"):
        read_depth_map(written({"mask": Z, "crypto00": OTHER}))


def test_parts() -> None:
    both = written(colour(), {"Z": Z})
    assert np.array_equal(read_depth_map(both).values, Z)
    assert np.array_equal(read_depth_map(both, channel="part1.Z").values, Z)
    with refused(DepthMapError, got="part0.Z, part1.Z"):
        read_depth_map(written({"Z": Z}, {"Z": OTHER}))


def test_a_layer_called_z_says_that_it_holds_distances() -> None:
    assert read_depth_map(written({"ViewLayer.Depth.Z": Z})).distances
    assert not read_depth_map(written({"disparity": Z})).distances


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    content = written({"Z": Z})
    monkeypatch.setitem(__import__("sys").modules, "OpenEXR", None)
    with pytest.raises(DepthMapError, match="pip install OpenEXR"):
        read_depth_map(content)


# --- headers ---------------------------------------------------------------------------------------------------------


def attribute(name: bytes, kind: bytes, value: bytes) -> bytes:
    return name + b"\0" + kind + b"\0" + struct.pack("<i", len(value)) + value


def window(left: int, top: int, right: int, bottom: int) -> bytes:
    return attribute(b"dataWindow", b"box2i", struct.pack("<4i", left, top, right, bottom))


def channels(*names: bytes, kind: int = 2) -> bytes:
    value = b"".join(name + b"\0" + struct.pack("<i4x2i", kind, 1, 1) for name in names)
    return attribute(b"channels", b"chlist", value + b"\0")


OTHERS = attribute(b"owner", b"string", b"dataWindow\0\1\0") + attribute(b"empty", b"string", b"")


def header(*attributes: bytes, flags: int = 2) -> bytes:
    """As far as the header goes."""
    return reader.MAGIC + struct.pack("<I", flags) + b"".join(attributes) + b"\0"


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package must not be asked."""
    monkeypatch.setattr(OpenEXR, "File", None)


@pytest.mark.parametrize("others", [b"", OTHERS])
@pytest.mark.parametrize(
    ("box", "size"),
    [
        ((-5, 7, 69_994, 9), "70000 x 3"),
        ((4, -69_996, 6, 3), "3 x 70000"),
        ((5, 0, 4, 9), "0 x 10"),
        ((0, 5, 9, 4), "10 x 0"),
        ((-(2**31), -(2**31), 2**31 - 1, 2**31 - 1), "4294967296 x 4294967296"),
    ],
)
@pytest.mark.usefixtures("closed")
def test_the_size_is_checked_before_the_file_is_opened(others: bytes, box: Any, size: str) -> None:
    with refused(DepthMapError, got=f"{size} pixels"):
        read_depth_map(header(others, channels(b"Z"), window(*box)))


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (header(OTHERS), "no dataWindow or no channels"),
        (header(window(0, 0, 3, 3)), "no dataWindow or no channels"),
        (header(b"name\0kind\0" + struct.pack("<i", -5)), "an attribute that is there twice or of negative size"),
        (
            header(window(0, 0, 3, 3), window(0, 0, 9, 9), channels(b"Z")),
            "an attribute that is there twice or of negative size",
        ),
        (header(window(0, 0, 3, 3), channels(b"Z", kind=3)), "a channel of unknown type, or too many"),
        (header(OTHERS)[:14], "subsection not found"),
    ],
)
@pytest.mark.usefixtures("closed")
def test_headers_that_are_damaged(content: bytes, got: str) -> None:
    with refused(DepthMapError, got=got):
        read_depth_map(content)


@pytest.mark.usefixtures("closed")
def test_more_channels_than_fit_are_refused() -> None:
    """Sixteen floats of the largest size are 4 GB."""
    content = header(window(0, 0, 8191, 8191), channels(*(b"%02d" % n for n in range(16)), b"Z"))
    with refused(DepthMapError, got="17 channels, 4,352 MB unpacked"):
        read_depth_map(content)


@pytest.mark.usefixtures("closed")
def test_deep_files_are_refused() -> None:
    with pytest.raises(DepthMapError, match="Deep EXR"):
        read_depth_map(header(window(0, 0, 3, 3), channels(b"Z"), flags=2 | reader.DEEP))


@pytest.mark.usefixtures("closed")
def test_sampled_channels_are_refused() -> None:
    value = b"Z\0" + struct.pack("<i4x2i", 2, 2, 2) + b"\0"
    with refused(DepthMapError, got="Z"):
        read_depth_map(header(window(0, 0, 3, 3), attribute(b"channels", b"chlist", value)))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_behind_the_signature(rest: bytes) -> None:
    with pytest.raises(DepthMapError):
        read_depth_map(reader.MAGIC + rest)


def test_cut_off_anywhere() -> None:
    content = written({"Z": Z})
    for end in range(5, len(content) - 1, 7):
        with pytest.raises(DepthMapError):
            read_depth_map(content[:end])


def test_a_file_of_the_cases(cases: Path) -> None:
    assert read_depth_map(cases / "bl_Z.exr").range == (2.0, 9.9375)
