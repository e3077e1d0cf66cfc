"""Check `read_picture` for each kind of picture."""

from __future__ import annotations

import base64
import io
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from depth2img import PictureError, read_picture
from depth2img.io import images
from depth2img.io.images import to_float

BACKGROUND = (10, 200, 90)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def over(colour: np.ndarray, alpha: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    """Straight alpha compositing on an opaque background, in real numbers."""
    share = alpha[:, :, None].astype(np.float64) / 255
    return colour * share + np.array(background, np.float64) * (1 - share)


def test_png_is_read_bit_for_bit(colours):
    picture = read_picture(encoded(Image.fromarray(colours)))
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, colours)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_agree(colours, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(read_picture(encoded(Image.fromarray(colours), kind, **options)), colours)


def test_all_ways_in_agree(colours, tmp_path):
    content = encoded(Image.fromarray(colours))
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    text = base64.b64encode(content).decode()
    broken_into_lines = "\r\n".join(text[start : start + 76] for start in range(0, len(text), 76))
    for source in (
        content,
        path,
        text,
        broken_into_lines,
        f"data:image/png;base64,{text}",
        f"DATA:;base64, {text}\n",
        Image.fromarray(colours),
        colours,
        np.asfortranarray(colours),
        np.flip(np.flip(colours, 0).copy(), 0),
    ):
        np.testing.assert_array_equal(read_picture(source), colours)


def test_text_is_never_a_path(colours, tmp_path, monkeypatch):
    (tmp_path / "abcd").write_bytes(encoded(Image.fromarray(colours)))
    monkeypatch.chdir(tmp_path)
    for text in ("abcd", str(tmp_path / "abcd")):
        with pytest.raises(PictureError):
            read_picture(text)


def test_result_is_a_writable_copy(colours):
    before = colours.copy()
    image = Image.fromarray(colours)
    for source in (colours, image):
        picture = read_picture(source)
        picture += 1
    np.testing.assert_array_equal(colours, before)
    np.testing.assert_array_equal(np.asarray(image), before)
    assert picture.flags.c_contiguous


@pytest.mark.parametrize("background", [(255, 255, 255), BACKGROUND])
def test_alpha_is_composited(colours, rng, background):
    alpha = rng.integers(0, 256, colours.shape[:2], dtype=np.uint8)
    rgba = np.dstack([colours, alpha])
    wanted = over(colours, alpha, background)
    for source in (rgba, Image.fromarray(rgba), encoded(Image.fromarray(rgba))):
        picture = read_picture(source, background=background)
        # Pillow blends in integers: one level of rounding.
        assert np.abs(picture - wanted).max() <= 1


def test_transparent_pixels_hide_their_colour(colours):
    rgba = np.dstack([colours, np.zeros(colours.shape[:2], np.uint8)])
    assert (read_picture(rgba) == 255).all()


def test_grey_with_alpha(colours, rng):
    grey, alpha = colours[:, :, 0], rng.integers(0, 256, colours.shape[:2], dtype=np.uint8)
    image = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
    wanted = over(np.repeat(grey[:, :, None], 3, 2), alpha, BACKGROUND)
    assert np.abs(read_picture(encoded(image), background=BACKGROUND) - wanted).max() <= 1


def test_palette(colours):
    image = Image.fromarray(colours).quantize(16)
    np.testing.assert_array_equal(read_picture(encoded(image)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("how", ["one index", "a table"])
def test_palette_with_transparency(colours, how):
    image = Image.fromarray(colours).quantize(4)
    index = np.asarray(image)
    assert set(np.unique(index)) == {0, 1, 2, 3}
    transparency: int | bytes = 2 if how == "one index" else bytes([255, 255, 0, 255])
    picture = read_picture(encoded(image, transparency=transparency), background=BACKGROUND)
    wanted = np.asarray(image.convert("RGB")).copy()
    wanted[index == 2] = BACKGROUND
    np.testing.assert_array_equal(picture, wanted)


def test_transparent_colour_of_an_rgb_picture(colours):
    colours[4, 7] = colours[20, 30] = (1, 2, 3)
    picture = read_picture(encoded(Image.fromarray(colours), transparency=(1, 2, 3)), background=BACKGROUND)
    assert (picture[4, 7] == BACKGROUND).all()
    assert (picture[20, 30] == BACKGROUND).all()
    np.testing.assert_array_equal(picture[5:20], colours[5:20])


def test_premultiplied_alpha(colours, rng):
    alpha = rng.integers(0, 256, colours.shape[:2], dtype=np.uint8)
    image = Image.fromarray(np.dstack([colours, alpha]))
    picture = read_picture(image.convert("RGBa"))
    # Premultiplying in 8 bits loses up to one level, compositing another.
    assert np.abs(picture - over(colours, alpha, (255, 255, 255))).max() <= 2


def test_grey_and_bilevel(colours):
    grey = colours[:, :, 1]
    wanted = np.repeat(grey[:, :, None], 3, 2)
    for source in (grey, grey[:, :, None], Image.fromarray(grey), encoded(Image.fromarray(grey))):
        np.testing.assert_array_equal(read_picture(source), wanted)
    black_or_white = grey > 120
    wanted = np.repeat(black_or_white[:, :, None], 3, 2) * np.uint8(255)
    for source in (black_or_white, Image.fromarray(black_or_white), encoded(Image.fromarray(black_or_white))):
        np.testing.assert_array_equal(read_picture(source), wanted)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "image", "array"])
def test_sixteen_bit_grey_is_scaled_not_cut(rng, kind):
    values = rng.integers(0, 65536, (23, 37), dtype=np.uint16)
    values[0, :3] = 0, 65535, 256
    image = Image.fromarray(values)
    assert image.mode == "I;16"
    source = {"image": image, "array": values}.get(kind)
    picture = read_picture(encoded(image, kind) if source is None else source)
    np.testing.assert_array_equal(picture, np.repeat(np.round(values / 257).astype(np.uint8)[:, :, None], 3, 2))


def test_sixteen_bit_grey_of_other_byte_order(rng):
    values = rng.integers(0, 65536, (23, 37), dtype=np.uint16)
    image = Image.frombytes("I;16B", (37, 23), values.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_picture(image)[:, :, 0], np.round(values / 257))


def test_thirty_two_bit_integers_are_sixteen_bit_values(rng):
    """Pillow 9 to 11 open a 16-bit grey PNG as mode I."""
    values = rng.integers(0, 65536, (23, 37)).astype(np.int32)
    np.testing.assert_array_equal(read_picture(Image.fromarray(values))[:, :, 2], np.round(values / 257))
    values[2, 5], values[3, 6] = -40, 70_000
    picture = read_picture(Image.fromarray(values))
    assert picture[2, 5, 0] == 0
    assert picture[3, 6, 0] == 255


def test_sixteen_bit_colour(rng):
    cv2 = pytest.importorskip("cv2")
    values = rng.integers(0, 65536, (23, 37, 3), dtype=np.uint16)
    picture = read_picture(cv2.imencode(".png", values[:, :, ::-1])[1].tobytes())
    # Pillow takes the upper byte, which is at most one level from the rounded value.
    assert np.abs(picture - values / 257).max() <= 1
    np.testing.assert_array_equal(read_picture(values), np.round(values / 257))


def test_floating_arrays_and_images(colours):
    values = colours.astype(np.float32) / 255
    np.testing.assert_array_equal(read_picture(values), colours)
    np.testing.assert_array_equal(read_picture(values.astype(np.float64)), colours)
    grey = Image.fromarray(values[:, :, 0])
    assert grey.mode == "F"
    np.testing.assert_array_equal(read_picture(grey)[:, :, 1], colours[:, :, 0])
    np.testing.assert_array_equal(read_picture(encoded(grey, "TIFF"))[:, :, 1], colours[:, :, 0])
    assert read_picture(np.array([[-0.5, 1.5, 0.5]], np.float32))[:, :, 0].tolist() == [[0, 255, 128]]


def test_cmyk_jpeg(colours):
    image = Image.fromarray(colours).resize((74, 46)).convert("CMYK")
    content = encoded(image, "JPEG", quality=95)
    assert Image.open(io.BytesIO(content)).mode == "CMYK"
    picture = read_picture(content).astype(int)
    # A JPEG of noise at quality 95 is a few levels off on the whole; a swapped or inverted channel would be dozens.
    assert np.abs(picture - np.asarray(image.convert("RGB"))).mean() < 12


def test_jpeg(photo):
    picture = read_picture(encoded(Image.fromarray((photo * 255).astype(np.uint8)), "JPEG", quality=95))
    assert np.abs(picture / 255 - photo).mean() < 0.02


@pytest.mark.parametrize("mode", ["HSV", "YCbCr"])
def test_other_colour_spaces(colours, mode):
    image = Image.fromarray(colours).convert(mode)
    np.testing.assert_array_equal(read_picture(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_an_animation(colours, kind):
    frames = [Image.fromarray(np.full_like(colours, level)) for level in (40, 200, 90)]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(content)).n_frames == 3
    assert (read_picture(content) == 40).all()


ORIENTATIONS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation(colours, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(colours), exif=exif)
    np.testing.assert_array_equal(read_picture(content), ORIENTATIONS[orientation](colours))


def test_exif_orientation_of_sixteen_bits(rng):
    values = rng.integers(0, 65536, (23, 37), dtype=np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.fromarray(values), exif=exif)
    np.testing.assert_array_equal(read_picture(content)[:, :, 0], np.rot90(np.round(values / 257), -1))


def test_unknown_orientation_is_ignored(colours):
    exif = Image.Exif()
    exif[0x0112] = 77
    np.testing.assert_array_equal(read_picture(encoded(Image.fromarray(colours), exif=exif)), colours)


def test_one_pixel():
    assert read_picture(encoded(Image.new("RGB", (1, 1), (3, 4, 5)))).tolist() == [[[3, 4, 5]]]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 0), np.uint8),
        np.zeros(7, np.uint8),
        np.zeros((2, 3, 3, 1), np.uint8),
        np.zeros((4, 6, 2), np.uint8),
        np.zeros((4, 6, 0), np.uint8),
        np.zeros((4, 6, 3), np.int64),
        np.zeros((4, 6, 3), np.complex64),
        np.zeros((4, 6, 3), object),
        np.zeros((4, 6, 3), "U4"),
        np.full((4, 6, 3), np.nan, np.float32),
        np.full((4, 6), np.inf, np.float64),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_that_are_no_picture(array):
    with pytest.raises(PictureError):
        read_picture(array)


@pytest.mark.parametrize("source", [None, 7, 0.5, True, {}, [], object(), ["a.png"]])
def test_things_that_are_no_picture(source):
    with pytest.raises(PictureError, match="This is not a picture"):
        read_picture(source)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(PictureError, match=r"missing\.png cannot be read"):
        read_picture(tmp_path / "missing.png")
    with pytest.raises(PictureError, match="cannot be read"):
        read_picture(tmp_path)
    with pytest.raises(PictureError, match="cannot be read"):
        read_picture(tmp_path / "nul\0.png")


def test_large_files_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 100)
    path = tmp_path / "large.png"
    path.write_bytes(bytes(101))
    with pytest.raises(PictureError, match=r"large\.png is too large"):
        images.read_file(path)
    path.write_bytes(bytes(100))
    assert images.read_file(path) == bytes(100)


def test_payloads_are_bounded_by_their_content(monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 3000)
    for largest in (bytes(3000), base64.b64encode(bytes(3000)).decode()):
        assert images.payload_bytes(largest) == bytes(3000)
    for larger in (bytes(3001), base64.b64encode(bytes(3001)).decode(), " " * 10_000):
        with pytest.raises(PictureError, match="too large"):
            images.payload_bytes(larger)


@pytest.mark.parametrize("size", range(1, 9))
def test_base64_as_clients_send_it(size):
    """Both alphabets, with and without padding, and as a part of a URL."""
    content = bytes(range(248, 248 + size)) if size < 8 else b"\xfb\xef\xbe\xff\xff\xff??"
    plain, url = base64.b64encode(content).decode(), base64.urlsafe_b64encode(content).decode()
    for text in (plain, url, plain.rstrip("="), url.rstrip("="), quote(plain, safe=""), f"data:;base64,{url}"):
        assert images.payload_bytes(text) == content


@pytest.mark.parametrize("text", ["", "data:image/png;base64,", "data:image/png", "   \n"])
def test_empty_payloads(text):
    with pytest.raises(PictureError, match="empty"):
        images.payload_bytes(text)


@pytest.mark.parametrize("text", ["AAAAA", "no base64!", "ünïcode", "data:,hello", "A" * 81, "AA==AA=="])
def test_text_that_is_not_base64(text):
    with pytest.raises(PictureError, match="neither base64 nor a data URL"):
        images.payload_bytes(text)


def test_to_float(colours):
    values = to_float(colours)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, (colours / 255.0).astype(np.float32))
    assert to_float(values) is values


@pytest.mark.parametrize(
    "array",
    [np.ones((4, 6), np.uint8), np.ones((4, 6, 4), np.uint8), np.ones((4, 6, 3)), np.ones((0, 6, 3), np.uint8)],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_to_float_refuses_what_is_no_picture(array):
    with pytest.raises(PictureError):
        to_float(array)
