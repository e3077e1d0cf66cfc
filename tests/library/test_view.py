"""Check the data of a map for the page, and the files that it may come from."""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from depth2img import DepthMap, DepthOptions, NoDepthError, adjust, conditioning, read_depth_map
from depth2img.depth.hints import looks_inverted
from depth2img.depth.placement import Placement, ResizeMode
from depth2img.gui import view

ROOT = Path(__file__).parents[2]

BOXED = Placement((80, 60), (40, 30), (20, 15, 60, 45), ResizeMode.JUST_RESIZE)


def ramp(width: int = 40, height: int = 30) -> DepthMap:
    """Nearer below, as floors are."""
    return DepthMap(np.linspace(3, 7, width * height).reshape(height, width), origin="test")


def sent(shown: view.View | None, **more: str) -> dict[str, Any]:
    return parsed(view.to_html(shown, **more))


def parsed(element: str) -> dict[str, Any]:
    """Parse the data of the page's hidden element."""
    return json.loads(html.unescape(element.partition('data-view="')[2].rpartition('"')[0]))


def decoded(url: str) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)


def test_all_bits_get_there():
    content = sent(view.View(ramp()))
    blue, green, red = np.moveaxis(decoded(content["depth"]).astype(np.int64), 2, 0)
    values = (red * 65536 + green * 256 + blue) / (2**24 - 1)
    assert np.abs(values - ramp().normalised()).max() < 1e-7
    assert content["size"] == [40, 30] and content["range"] == [3, 7]
    assert "picture" not in content and "box" not in content


def test_a_flat_map_is_the_middle():
    assert set(decoded(sent(view.View(DepthMap(np.full((4, 6), 2.5))))["depth"]).flatten()) <= {127, 128, 0, 255}


def test_large_maps_are_sent_smaller_with_their_own_range():
    depth = DepthMap(np.random.default_rng(0).random((300, 3000)))
    content = sent(view.View(depth))
    assert content["size"] == [1024, 102] and content["range"] == list(depth.range)


def test_the_whole_picture_and_the_part_of_it():
    picture = np.zeros((30, 40, 3), np.uint8)
    content = sent(view.View(ramp(), picture, np.zeros((60, 80, 3), np.uint8), BOXED))
    assert content["box"] == [0.25, 0.25, 0.75, 0.75]
    assert decoded(content["picture"]).shape == (30, 40, 3) and decoded(content["whole"]).shape == (60, 80, 3)


def test_each_preview_has_an_id_and_a_sentence_is_escaped():
    one, two = sent(None, sentence='"><script>'), sent(None)
    assert one["id"] != two["id"] and one["error"] == '"><script>'
    assert "<script>" not in view.to_html(None, sentence='"><script>')


@pytest.mark.parametrize("own", [True, False])
def test_only_own_maps_are_suspected(own: bool):
    upside_down = DepthMap(ramp().values[::-1])
    assert sent(view.View(upside_down, own=own))["inverted"] is own
    assert sent(view.View(ramp(), own=own))["inverted"] is False
    distances = dataclasses.replace(upside_down, distances="the channel is called Z")
    assert sent(view.View(distances, own=own))["inverted"] is False, "the message says what to choose instead"
    assert not looks_inverted(DepthMap(np.ones((3, 3))))


def test_a_kept_map_becomes_a_file_with_its_raw_values():
    previews = view.Previews()
    path = previews.as_file(parsed(previews.show(view.View(ramp())))["id"])
    assert np.array_equal(read_depth_map(path).values, ramp().values)
    part = view.View(ramp(), None, np.zeros((60, 80, 3), np.uint8), BOXED)
    whole = read_depth_map(previews.as_file(parsed(previews.show(part))["id"])).values
    assert whole.shape == (60, 80) and whole[0, 0] == 3 and np.allclose(whole[15:45, 20:60], ramp().values)
    with pytest.raises(NoDepthError, match="Estimate depth"):
        previews.as_file("another")
    with pytest.raises(NoDepthError):
        previews.as_file(sent(part)["id"])  # drawn, but not kept


def test_files_of_maps_go_after_an_hour_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also what a process has left that was killed; a link is neither followed nor removed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text("kept")
    others = [tmp_path / "temporary" / name for name in ("depth2img-fuzz-1", "gradio", "depth2img-map-file")]
    others[0].mkdir(parents=True)
    others[1].mkdir()
    others[2].write_text("no folder")
    link = tmp_path / "temporary" / "depth2img-map-link"
    link.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    previews = view.Previews()
    shown = parsed(previews.show(view.View(ramp())))["id"]
    old, young = previews.as_file(shown), previews.as_file(shown)
    (old.parent / "inside").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    for path in (old.parent, link, *others):
        os.utime(path, (1, 1), follow_symlinks=False)
    new = previews.as_file(shown)
    assert not old.parent.exists() and young.is_file() and new.is_file()
    assert (tmp_path / "elsewhere" / "kept").is_file() and link.is_symlink() and all(path.exists() for path in others)
    if os.name != "nt":
        assert new.parent.stat().st_mode & 0o77 == 0, "nobody else reads it"


def test_the_oldest_is_forgotten():
    kept = view.Previews(limit=2)
    for name in "abc":
        kept.put(name, view.View(ramp()))
    assert kept.get("a") is None and kept.get("c") is not None


@pytest.mark.parametrize(("part", "flat"), [(0.9e-5, True), (1.2e-5, False)])
def test_page_adjustments_and_conditioning_agree_on_what_is_flat(part: float, flat: bool):
    """Just below the threshold nothing is stretched anywhere, although bicubic resizing overshoots; above it all is."""
    values = np.full((30, 40), 8.0)
    values[10:20, 10:30] += 8.0 * part
    depth = DepthMap(values)
    blue, green, red = np.moveaxis(decoded(parsed(view.to_html(view.View(depth)))["depth"]).astype(int), 2, 0)
    assert bool(np.ptp(red * 65536 + green * 256 + blue) == 0) is flat
    assert ("The map is flat" in view.describe(depth)) is flat
    assert bool(np.ptp(np.asarray(depth.to_image())) == 0) is flat
    for options in (DepthOptions(), DepthOptions(gamma=2.0, invert=True)):
        adjusted = adjust(depth, options)
        tensor = conditioning([adjusted], height=15, width=20)
        assert (not tensor.any()) is flat
    assert (not conditioning([depth], height=15, width=20, spans=[depth.range]).any()) is flat
