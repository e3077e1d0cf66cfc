"""A given map lands where the host puts the picture: resize modes, and the part that "Only masked" cuts out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from depth2img import DepthMap
from tests.webui_fake.standin import Host, blobs, depth_of, map_file

FRAMES = [(96, 64), (64, 96), (80, 80)]


def scene(width: int = 96, height: int = 64) -> Image.Image:
    """Nothing linear: a part of it that is stretched to -1..1 looks like no other part."""
    return blobs(11, width, height)


def the_map(picture: Image.Image, tmp_path: Path) -> bytes:
    """The picture's own depth as a given map: wherever the host puts the picture, the map must be too."""
    return map_file(depth_of(picture), tmp_path / "map.npy").read_bytes()


def conditionings(host: Host, p: Any) -> np.ndarray:
    host.run(p)
    return host.seen[-1][0, 0].numpy()


def close(one: np.ndarray, other: np.ndarray) -> bool:
    """The picture is rounded to whole pixels and 8 bits on its way, the map is not."""
    difference = np.abs(one - other)
    return one.shape == other.shape and difference.mean() < 0.03 and difference.max() < 0.2


def same_as_the_picture(host: Host, picture: Image.Image, depth_map: bytes, **fields: Any) -> None:
    """One job estimates from the picture as the host brought it into the frame, the other takes the whole map."""
    estimated = conditionings(host, host.img2img(picture, **fields))
    given = conditionings(host, host.img2img(picture, args=({"depth_map": depth_map},), **fields))
    assert close(estimated, given)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("resize_mode", [0, 1, 2, 3])
def test_resize_modes(host: Host, tmp_path: Path, resize_mode: int, frame: tuple[int, int]) -> None:
    picture = scene(120, 64)
    fields = {"resize_mode": resize_mode, "width": frame[0], "height": frame[1]}
    same_as_the_picture(host, picture, the_map(picture, tmp_path), **fields)


def test_resize_modes_differ(host: Host, tmp_path: Path) -> None:
    """Else the test above could not fail."""
    depth_map = the_map(scene(120, 64), tmp_path)
    fields = {"width": 64, "height": 96, "args": ({"depth_map": depth_map},)}
    seen = [conditionings(host, host.img2img(scene(120, 64), resize_mode=mode, **fields)) for mode in (0, 1, 2)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(seen[one] - seen[other]).mean() > 0.1


@pytest.mark.parametrize("scale", [0.5, 3])
def test_a_map_of_another_size_with_the_same_proportions(host: Host, tmp_path: Path, scale: float) -> None:
    picture = scene(96, 64)
    other = picture.resize((round(96 * scale), round(64 * scale)), Image.Resampling.BICUBIC)
    p = host.img2img(picture, resize_mode=1, args=({"depth_map": the_map(other, tmp_path)},))
    given = conditionings(host, p)
    assert close(given, conditionings(host, host.img2img(picture)))
    assert p.comments == {}


def test_an_unknown_resize_mode_is_refused(host: Host, tmp_path: Path) -> None:
    depth_map = the_map(scene(120, 64), tmp_path)
    p = host.img2img(scene(120, 64), args=({"depth_map": depth_map},), resize_mode=4)
    with pytest.raises(ValueError, match="resize mode"):
        host.run(p)
    assert host.left_on(p) == []


@pytest.mark.parametrize(
    ("box", "frame"),
    [
        pytest.param((30, 20, 78, 52), (96, 64), id="proportions of the frame"),
        pytest.param((0, 0, 120, 20), (96, 64), id="too wide, at the edge"),
        pytest.param((100, 10, 120, 80), (64, 64), id="too high, at the edge"),
        pytest.param((70, 50, 118, 78), (64, 96), id="another orientation"),
    ],
)
def test_only_masked(host: Host, tmp_path: Path, box: tuple[int, int, int, int], frame: tuple[int, int]) -> None:
    """The host cuts the box out of the picture and fills it up to the frame's proportions; so is the map."""
    picture = scene(120, 80)
    mask = Image.new("L", picture.size)
    mask.paste(255, box)
    fields = {"mask": mask, "width": frame[0], "height": frame[1]}
    same_as_the_picture(host, picture, the_map(picture, tmp_path), **fields)


def test_only_masked_with_a_map_of_another_size(host: Host, tmp_path: Path) -> None:
    picture = scene(120, 80)
    small = picture.resize((60, 40), Image.Resampling.BICUBIC)
    mask = Image.new("L", picture.size)
    mask.paste(255, (36, 24, 84, 56))
    same_as_the_picture(host, picture, the_map(small, tmp_path), mask=mask)


def test_only_masked_with_a_map_of_other_proportions(host: Host, tmp_path: Path) -> None:
    """The resize mode is applied to the map as if it were the whole picture, then the box is cut out."""
    mask = Image.new("L", (120, 80))
    mask.paste(255, (36, 24, 84, 56))
    wide = scene(240, 80)
    p = host.img2img(scene(120, 80), mask=mask, resize_mode=1, args=({"depth_map": the_map(wide, tmp_path)},))
    given = conditionings(host, p)
    centre = wide.crop((60, 0, 180, 80))
    other = host.img2img(scene(120, 80), mask=mask, args=({"depth_map": the_map(centre, tmp_path)},))
    assert np.abs(given - conditionings(host, other)).max() < 1e-4
    (comment,) = p.comments
    assert "(240 x 80)" in comment and "(120 x 80)" in comment and "'Crop and resize'" in comment


def test_a_blank_mask_is_a_whole_picture_again(host: Host, tmp_path: Path) -> None:
    """Batch tab: one `p` for all files; the box of an earlier mask says nothing about a blank one."""
    picture = scene(120, 80)
    mask = Image.new("L", picture.size)
    mask.paste(255, (36, 24, 84, 56))
    p = host.img2img(picture, mask=mask, args=({"depth_map": the_map(picture, tmp_path)},))
    host.run(p)
    p.image_mask = Image.new("L", picture.size)
    whole = conditionings(host, p)
    assert p.paste_to is not None
    assert close(whole, conditionings(host, host.img2img(picture)))


def test_whole_picture_inpaint_takes_the_whole_map(host: Host, tmp_path: Path) -> None:
    picture = scene(96, 64)
    mask = Image.new("L", picture.size)
    mask.paste(255, (36, 24, 84, 56))
    same_as_the_picture(host, picture, the_map(picture, tmp_path), mask=mask, inpaint_full_res=False)


def test_txt2img_cuts_around_the_centre(host: Host, tmp_path: Path) -> None:
    wide = scene(192, 64)
    p = host.txt2img(args=({"depth_map": the_map(wide, tmp_path)},))
    given = conditionings(host, p)
    centre = conditionings(host, host.txt2img(args=({"depth_map": the_map(wide.crop((48, 0, 144, 64)), tmp_path)},)))
    assert np.abs(given - centre).max() < 1e-4
    (comment,) = p.comments
    assert "(192 x 64)" in comment and "(96 x 64)" in comment and "'Crop and resize'" in comment


def test_a_reference_is_placed_like_a_map(host: Host, tmp_path: Path) -> None:
    import io

    content = io.BytesIO()
    wide = scene(192, 64)
    wide.save(content, "PNG")
    fields = {"resize_mode": 1}
    given = conditionings(host, host.img2img(scene(), args=({"depth_map": the_map(wide, tmp_path)},), **fields))
    p = host.img2img(scene(), args=({"reference": content.getvalue()},), **fields)
    assert close(given, conditionings(host, p))
    assert len(p.comments) == 1


def test_the_picture_itself_needs_no_comment(host: Host) -> None:
    p = host.img2img(scene(120, 64), resize_mode=1)
    host.run(p)
    assert p.comments == {}


def test_placing_keeps_raw_values(host: Host) -> None:
    """Cutting and filling change no value: `conditioning` alone resizes and normalises."""
    depth = DepthMap(values=np.arange(8 * 24, dtype=np.float32).reshape(8, 24) * 40, bits=16)
    p = host.img2img(scene(), resize_mode=1)
    placed = host.ours("jobs.host_frame").read_frame(p, None, None).placement.fitted(depth)
    assert placed.bits == 16 and (placed.width, placed.height) == (12, 8)
    assert np.array_equal(placed.values, depth.values[:, 6:18])
