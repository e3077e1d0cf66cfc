"""Shared forms of the hover view: the page, the relief without a browser, films and stereo pairs."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import io
import re

import cv2
import numpy as np
import pytest
from PIL import Image, ImageSequence

from depth2img import DepthMap
from depth2img.sharing import FILMS, film, page
from depth2img.sharing.relief import Relief, loop
from depth2img.sharing.stereo import stereo


def planes(width=96, height=64):
    """A near red square before a far background of blue and green stripes, and its depth."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, :, 2] = 200
    picture[:, (np.arange(width) // 8) % 2 == 0, 1] = 160
    depth = np.full((height, width), 2.0, np.float32)
    middle = np.s_[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4]
    picture[middle], depth[middle] = (255, 0, 0), 5.0
    return picture, DepthMap(depth)


def noise(width, height):
    random = np.random.default_rng(3)
    return random.integers(0, 256, (height, width, 3)).astype(np.uint8)


class Parsed(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def all(self, tag):
        return [attrs for name, attrs in self.found if name == tag]


def red(picture):
    """First and last column of the red square, in the middle row."""
    row = picture[picture.shape[0] // 2].astype(int)
    columns = np.flatnonzero((row[:, 0] > 200) & (row[:, 2] < 80))
    return int(columns[0]), int(columns[-1])


def test_the_page_holds_picture_and_depth_at_16_bits():
    ramp = DepthMap(np.repeat(np.linspace(30_000, 30_200, 120, dtype=np.float32)[None], 80, axis=0))
    picture = noise(120, 80)
    images = Parsed(page.page(picture, ramp)).all("img")
    contents = [base64.b64decode(image["src"].partition(",")[2]) for image in images]
    assert [image["src"].partition(";")[0] for image in images] == ["data:image/jpeg", "data:image/png"]
    shown = np.asarray(Image.open(io.BytesIO(contents[0]))).astype(int)
    assert shown.shape == (80, 120, 3) and np.abs(shown - picture).mean() < 8  # JPEG of noise at quality 90
    coded = np.asarray(Image.open(io.BytesIO(contents[1]))).astype(int)
    got = coded[:, :, 0] * 256 + coded[:, :, 1]
    assert np.abs(got - ramp.normalised() * 65535).max() <= 0.5 + 65535 * 1e-7  # half a step, and float32's own
    assert np.array_equal(coded[:, :, 0], coded[:, :, 2])


def test_the_page_may_load_nothing_and_run_nothing_else():
    text = page.page(*planes())
    [policy] = [meta["content"] for meta in Parsed(text).all("meta") if "http-equiv" in meta]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.keys() == {"default-src", "img-src", "script-src", "style-src"}
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        [content] = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", text, re.S)
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
    addresses = [attrs[name] for _, attrs in Parsed(text).found for name in ("src", "href", "srcset") if name in attrs]
    assert len(addresses) == 2 and all(address.startswith("data:image/") for address in addresses)
    assert "@" not in re.sub(r"<(script|style).*?</\1>", "", text, flags=re.S)  # no hole is left open


def test_the_viewer_is_the_panels_own():
    text = page.page(*planes())
    for name in page.MODULES:
        assert (page.ASSETS / "javascript" / f"depth2img-{name}.mjs").read_text(encoding="utf8") in text


def test_the_guides_example_holds_todays_viewer():
    text = (page.ROOT / "docs" / "pictures" / "hover.html").read_text(encoding="utf8")
    [script] = re.findall("<script[^>]*>(.*?)</script>", page.template(), re.S)
    assert script in text, "run python -m tools.shared_view"


@pytest.mark.parametrize(
    "title", ['"><script>alert(1)</script>', "a & b", "@PICTURE@ @SCRIPT@", "' onload='x", "</title><img src=x>"]
)
def test_a_title_is_text(title):
    parsed = Parsed(page.page(*planes(), title=title))
    plain = Parsed(page.page(*planes()))
    assert [tag for tag, _ in parsed.found] == [tag for tag, _ in plain.found]
    assert parsed.all("img")[0]["alt"] == title
    assert parsed.all("img")[0]["src"] == plain.all("img")[0]["src"]


def test_the_page_is_bounded():
    """White noise of 30 megapixels, the worst there is: bounded sides, and the picture's proportions."""
    picture = cv2.resize(noise(1500, 1000), (6000, 4000), interpolation=cv2.INTER_NEAREST)
    depth = DepthMap(picture[:, :, 0].astype(np.float32))
    text = page.page(picture, depth, title="x" * 10_000)
    sizes = [
        Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))).size
        for image in Parsed(text).all("img")
    ]
    assert sizes == [(2048, 1365), (1024, 683)]
    assert len(text) < 12e6 and "x" * 201 not in text


def test_from_the_front_the_relief_is_the_picture():
    picture, depth = planes()
    seen = Relief.of(picture, depth).seen_from(0, 0)
    # Enlarged by 6 %: the middle stays, the borders leave.
    assert seen.shape == picture.shape and seen[32, 48].tolist() == [255, 0, 0]
    left, right = red(seen)
    assert abs((right - left + 1) - 48 * 1.06) <= 2


def test_near_moves_against_far_around_the_focus():
    picture, depth = planes(384, 256)
    still = red(Relief.of(picture, depth, movement=2).seen_from(0, 0))
    right = red(Relief.of(picture, depth, movement=2).seen_from(1, 0))
    # The square lies 0.5 before the focus: from the right it is 0.07 of the width times that farther to the left.
    assert right[0] - still[0] == pytest.approx(-0.07 * 0.5 * 384 * 1.06, abs=2)
    assert right[1] - right[0] == pytest.approx(still[1] - still[0], abs=2)
    kept = red(Relief.of(picture, depth, movement=2, focus=1.0).seen_from(1, 0))
    assert kept == pytest.approx(still, abs=1)
    unmoved = Relief.of(picture, depth, movement=0)
    assert np.array_equal(unmoved.seen_from(1, 1), unmoved.seen_from(-1, 0))


def test_what_is_behind_is_not_smeared_with_what_is_in_front():
    picture, depth = planes(384, 256)
    seen = Relief.of(picture, depth, movement=2).seen_from(1, 0)
    left, right = red(seen)
    row = seen[128].astype(int)
    outside = np.concatenate([row[: left - 4], row[right + 5 :]])
    assert (outside[:, 0] < 90).all() and (row[left + 3 : right - 2, 0] > 200).all()


def test_each_eye_sees_its_side():
    picture, depth = planes(384, 256)
    relief = Relief.of(picture, depth)
    left, right = relief.seen_from(-1, 0), relief.seen_from(1, 0)
    assert red(left)[0] > red(right)[0] + 5  # what is near lies farther to the right for the left eye
    assert np.array_equal(stereo(relief, "side-by-side"), np.hstack([left, right]))
    assert np.array_equal(stereo(relief, "cross-eyed"), np.hstack([right, left]))
    both = stereo(relief, "anaglyph")
    assert np.array_equal(both[:, :, 0], left[:, :, 0]) and np.array_equal(both[:, :, 1:], right[:, :, 1:])


def test_the_loop_closes():
    assert loop(0) == (0, 0) and loop(1) == pytest.approx((0, 0))
    assert loop(0.25) == pytest.approx((1, 0)) and loop(0.75) == pytest.approx((-1, 0))


def frames(content, suffix, folder):
    if suffix == ".gif":
        with Image.open(io.BytesIO(content)) as image:
            found = [np.asarray(one.convert("RGB")).astype(int) for one in ImageSequence.Iterator(image)]
            return found, image.info
    file = folder / f"loop{suffix}"
    file.write_bytes(content)
    opened, found = cv2.VideoCapture(str(file)), []
    while (read := opened.read())[0]:
        found.append(read[1][:, :, ::-1].astype(int))
    return found, {"rate": opened.get(cv2.CAP_PROP_FPS)}


@pytest.mark.parametrize("suffix", FILMS)
def test_a_film_is_one_round(suffix, tmp_path):
    picture, depth = planes(97, 65)  # odd sides, which video encoders refuse
    found, info = frames(film.film(picture, depth, suffix), suffix, tmp_path)
    if suffix == ".gif":
        assert len(found) == 60 and info["duration"] == 50 and info["loop"] == 0
        assert found[0].shape == (65, 97, 3)
    else:
        assert len(found) == 90 and info["rate"] == pytest.approx(30)
        assert found[0].shape == (64, 96, 3)
    quarter = len(found) // 4
    assert np.abs(found[quarter] - found[0]).mean() > 3
    # To the right and to the left it looks otherwise, and the last frame leads to the first.
    assert red(found[quarter])[0] < red(found[3 * quarter])[0]
    assert np.abs(found[-1] - found[0]).mean() < np.abs(found[quarter] - found[0]).mean() / 2


def test_a_films_frames_are_bounded(tmp_path):
    picture, depth = planes(1000, 500)
    found, _ = frames(film.film(picture, depth, ".gif"), ".gif", tmp_path)
    assert found[0].shape == (240, 480, 3)
    assert film.shrunk(noise(2000, 1001), film.LONGEST, even=True).shape == (640, 1280, 3)
