"""HEIC and AVIF pictures, and the depth that phones put inside."""

from __future__ import annotations

import base64
import contextlib
import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from depth2img import Depth2ImgError, DepthMapError, PictureError, read_depth_map, read_picture
from depth2img.io import phone
from tests.refusing import refused

ROWS, COLUMNS = np.mgrid[0:48, 0:64]
DISPARITY = (ROWS * 4 + COLUMNS // 2).astype(np.uint8)
"""Nearer below, 0 to 219."""


def picture() -> Image.Image:
    return Image.fromarray(np.stack([COLUMNS * 3, ROWS * 5, 90 + 0 * ROWS], axis=2).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


# --- HEIC and AVIF ---------------------------------------------------------------------------------------------------


def heic(*, depth: bool = False) -> bytes:
    """By pillow-heif; it writes transparency, and one letter makes depth of that."""
    pillow_heif = pytest.importorskip("pillow_heif")
    image = picture()
    if depth:
        image.putalpha(Image.fromarray(DISPARITY))
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=95)
    content = file.getvalue()
    assert content.count(b"urn:mpeg:hevc:2015:auxid:1") == int(depth)
    return content.replace(b"urn:mpeg:hevc:2015:auxid:1", b"urn:mpeg:hevc:2015:auxid:2")


def test_heic_is_a_picture() -> None:
    array = read_picture(heic())
    # HEVC at quality 95 moves smooth colours by a few of 255.
    assert np.abs(array.astype(int) - np.asarray(picture())).max() < 25
    assert array.shape == (48, 64, 3)


def test_the_depth_inside_heic() -> None:
    content = heic(depth=True)
    assert read_picture(content).shape == (48, 64, 3)
    for holds in ("nearness", "distance"):
        depth = read_depth_map(content, holds)
        assert np.corrcoef(depth.values.ravel(), DISPARITY.ravel())[0, 1] > 0.999
        assert depth.origin == "depth in HEIC" and "inside the picture" in depth.notice


def test_heic_without_depth_is_not_a_depth_map() -> None:
    with pytest.raises(DepthMapError, match="colour picture"):
        read_depth_map(heic())


@pytest.mark.parametrize("package", ["pillow_heif", "pillow_avif"])
def test_without_the_package(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    content = b"\0\0\0\x1cftyp" + (b"heic" if package == "pillow_heif" else b"avif") + bytes(40)
    with pytest.raises(PictureError, match=f"pip install {package.replace('_', '-')}"):
        read_picture(content)


def test_heic_that_is_cut_off() -> None:
    content = heic(depth=True)
    for end in range(12, len(content), max(1, len(content) // 23)):
        for reader in (read_picture, read_depth_map):
            with contextlib.suppress(Depth2ImgError):
                reader(content[:end])


# --- GDepth and Dynamic Depth ----------------------------------------------------------------------------------------


def segment(body: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def with_segments(*bodies: bytes) -> bytes:
    content = encoded(picture(), "JPEG")
    return content[:2] + b"".join(map(segment, bodies)) + content[2:]


def gdepth(values: np.ndarray, form: str = "RangeInverse", near: str = "1.5", far: str = "9", size: int = 900) -> bytes:
    """As Google Camera writes it: the data in pieces, in the continuation of the XMP."""
    data = base64.b64encode(encoded(Image.fromarray(values), "PNG")).decode()
    digest = b"0123456789ABCDEF" * 2
    main = (
        f'<x:xmpmeta><rdf:Description GDepth:Format="{form}" GDepth:Near="{near}" GDepth:Far="{far}" '
        f'GDepth:Mime="image/png" xmpNote:HasExtendedXMP="{digest.decode()}"/></x:xmpmeta>'
    )
    more = f'<rdf:Description GDepth:Data="{data}"/>'.encode()
    pieces = [
        phone.EXTENDED + digest + struct.pack(">II", len(more), begin) + more[begin : begin + size]
        for begin in range(0, len(more), size)
    ]
    return with_segments(phone.XMP + main.encode(), *reversed(pieces))


def test_gdepth_of_inverse_distance() -> None:
    """Its white is far; 1 - value runs evenly with inverse depth."""
    depth = read_depth_map(gdepth(255 - DISPARITY))
    assert np.array_equal(depth.values, DISPARITY.astype(np.float32))
    assert depth.origin == "GDepth" and "inside the picture (GDepth)" in depth.notice


def test_gdepth_of_distance() -> None:
    values = np.array([[0, 255], [51, 204]], np.uint8)
    depth = read_depth_map(gdepth(values, "RangeLinear", "2", "7"), "distance")
    np.testing.assert_allclose(depth.values, 1 / np.array([[2, 7], [3, 6]]), rtol=1e-6)


@pytest.mark.parametrize(("near", "far"), [("", ""), ("7", "2"), ("nan", "3"), ("-1", "inf"), ("0", "4")])
def test_gdepth_without_sound_distances_keeps_their_order(near: str, far: str) -> None:
    depth = read_depth_map(gdepth(DISPARITY, "RangeLinear", near, far))
    assert np.array_equal(depth.values, 255 - DISPARITY.astype(np.float32))


def dynamic_depth(values: np.ndarray, *, behind: int = 0) -> bytes:
    """The depth image, and another item behind it, after the picture's end."""
    image = encoded(Image.fromarray(values), "PNG")
    item = '<Container:Item Item:Semantic="%s" Item:Mime="image/png" Item:Length="%d" Item:Padding="%d"/>'
    items = [item % ("Primary", 0, 5), item % ("Depth", len(image), 3)] + [item % ("Video", behind, 0)] * bool(behind)
    packet = f"<Container:Directory>{''.join(items)}</Container:Directory><DepthMap:Near>1</DepthMap:Near>"
    packet += '<Profile DepthMap:Format="RangeInverse" DepthMap:Far="5"/>'
    return with_segments(phone.XMP + packet.encode()) + bytes(5) + image + bytes(3) + b"v" * behind


@pytest.mark.parametrize("behind", [0, 77])
def test_dynamic_depth(behind: int) -> None:
    depth = read_depth_map(dynamic_depth(255 - DISPARITY, behind=behind))
    assert np.array_equal(depth.values, DISPARITY.astype(np.float32)) and depth.origin == "Dynamic Depth"


def test_the_picture_itself_is_read_as_ever() -> None:
    for content in (gdepth(DISPARITY), dynamic_depth(DISPARITY)):
        assert np.array_equal(read_picture(content), read_picture(encoded(picture(), "JPEG")))


@pytest.mark.parametrize(
    "packet",
    [
        "",
        'GDepth:Data=""',
        "<Container:Item Item:Semantic='Depth'/>",
        '<Container:Item Item:Semantic="Depth" Item:Length="99999999999"/>',
        '<Container:Item Item:Semantic="Depth" Item:Length="-5"/>',
        'xmpNote:HasExtendedXMP="none"',
    ],
)
def test_a_portrait_without_depth_is_a_colour_picture(packet: str) -> None:
    with pytest.raises(DepthMapError, match="colour picture"):
        read_depth_map(with_segments(phone.XMP + packet.encode()))


def test_depth_that_is_damaged() -> None:
    data = base64.b64encode(b"no picture").decode()
    with pytest.raises(DepthMapError):
        read_depth_map(with_segments(phone.XMP + f'<a GDepth:Data="{data}"/>'.encode()))


def test_a_continuation_that_claims_too_much() -> None:
    digest = b"0" * 32
    main = phone.XMP + b'<a xmpNote:HasExtendedXMP="' + digest + b'"/>'
    with pytest.raises(DepthMapError, match="colour picture"):
        read_depth_map(with_segments(main, phone.EXTENDED + digest + struct.pack(">II", 2**32 - 1, 0) + b"x"))


@given(st.binary(max_size=300))
def test_arbitrary_segments(rest: bytes) -> None:
    for begin in (b"\xff\xd8\xff", b"\xff\xd8\xff\xe1", b"\0\0\0\x1cftypheic", b"\0\0\0\x1cftypavif"):
        with pytest.raises(Depth2ImgError):
            read_depth_map(begin + rest)


def test_the_largest_depth_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    content = heic(depth=True)
    monkeypatch.setattr("depth2img.io.images.MAX_SIDE", 63)
    with refused(DepthMapError, got="64 x 48 pixels"):
        read_depth_map(content)


@pytest.mark.parametrize("orientation", [1, 6])
def test_avif_is_decoded(orientation: int) -> None:
    """By Pillow's own decoder or by pillow-avif-plugin; upright."""
    Image.init()
    if "AVIF" not in Image.OPEN:
        pytest.importorskip("pillow_avif", reason="Pillow has no AVIF decoder of its own before 11.3")
    file, exif = io.BytesIO(), Image.Exif()
    exif[274] = orientation
    colours = np.zeros((48, 64, 3), np.uint8)
    colours[:, :32], colours[:, 32:] = (200, 40, 30), (20, 60, 190)
    Image.fromarray(colours).save(file, "AVIF", quality=95, exif=exif)
    picture = read_picture(file.getvalue())
    wanted = colours if orientation == 1 else np.rot90(colours, -1)
    assert picture.shape == wanted.shape
    # AVIF is lossy: 8 of 255 is far below the step between the two colours, and above what quality 95 loses.
    assert np.abs(picture.astype(int) - wanted).mean() < 8
