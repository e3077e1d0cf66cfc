"""Scripts of the dropdown that run many jobs: SD upscale and Loopback."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.webui_fake.standin import Host, blobs, depth_of, ramp, stretched


def driven(host: Host, title: str, *pictures: Image.Image, **fields: Any) -> Any:
    """A job as a script of the dropdown would run it."""
    p = host.img2img(*pictures, **fields)
    p.scripts.selectable_scripts = [SimpleNamespace(title=lambda: "Other"), SimpleNamespace(title=lambda: title)]
    p.script_args = (2, *p.script_args[1:])
    return p


def tiles_of(host: Host, picture: Image.Image) -> list[Image.Image]:
    host.ours("jobs.tiles").apply()
    host.ours("jobs.tiles").apply()
    grid = host.images.split_grid(picture, tile_w=96, tile_h=64, overlap=0)
    return [tile for _, _, row in grid.tiles for _, _, tile in row]


def test_tiles_fit_together(host: Host) -> None:
    """The conditioning of all tiles, laid side by side, is that of the whole picture: no seams."""
    whole = ramp(192, 128)
    tiles = tiles_of(host, whole)
    runs = host.count_estimates()
    host.run(driven(host, "SD upscale", *tiles, batch_size=4))
    assert len(runs) == 1
    rows = [host.seen[0][index, 0].numpy() for index in range(4)]
    laid = np.block([[rows[0], rows[1]], [rows[2], rows[3]]])
    expected = stretched(depth_of(whole)).reshape(16, 8, 24, 8).mean((1, 3))
    assert np.abs(laid - expected).max() < 0.12


@pytest.mark.parametrize(("title", "args"), [("Other script", ()), ("SD upscale", ({"estimate_on": "entering"},))])
def test_each_tile_by_itself(host: Host, title: str, args: tuple[Any, ...]) -> None:
    tiles = tiles_of(host, ramp(192, 128))
    host.run(driven(host, title, *tiles[:2], batch_size=2, args=args))
    assert all(host.seen[0][index].max() == 1 and host.seen[0][index].min() == -1 for index in range(2))


def test_an_own_map_and_a_region_are_cut_per_tile(host: Host) -> None:
    tiles = tiles_of(host, blobs(4, 192, 128))
    region = Image.new("L", (192, 128))
    region.paste(255, (0, 0, 96, 128))
    p = driven(host, "SD upscale", *tiles, batch_size=4, args=({"depth_map": depth_map(), "region": region},))
    host.run(p)
    rows = [host.seen[0][index, 0, 3] for index in range(4)]
    assert rows[0][0] == pytest.approx(-1, abs=0.1) and rows[0][-1] == pytest.approx(0, abs=0.1)
    assert not rows[1].any() and not rows[3].any()


def depth_map() -> np.ndarray:
    return np.tile(np.linspace(0, 1, 192, dtype=np.float32), (128, 1))


def test_the_wrapper_comes_off(host: Host) -> None:
    tiles_of(host, ramp(192, 128))
    assert host.images.split_grid.__module__ == "depth2img_webui.jobs.tiles"
    host.ours("jobs.tiles").undo()
    host.ours("jobs.tiles").undo()
    assert host.images.split_grid.__module__ == "modules.images"


@pytest.mark.parametrize("keep", [True, False])
def test_loopback(host: Host, keep: bool) -> None:
    """The same `p` again and again, with another picture each time."""
    p = driven(host, "Loopback", ramp(), args=({"keep_first": keep},))
    host.run(p)
    first = host.seen[-1].clone()
    p.init_images = [blobs(3)]
    host.run(p)
    assert bool((host.seen[-1] == first).all()) is keep
    p.script_args = (0, *p.script_args[1:])
    host.run(p)
    assert not bool((host.seen[-1] == first).all()) and host.left_on(p) == []


def dark(picture: Image.Image) -> Image.Image:
    """The same at half the brightness: half of its range of depth."""
    return Image.fromarray(np.asarray(picture) // 2)


@pytest.mark.parametrize("adjustments", [{}, {"gamma": 2.0}])
def test_pictures_of_a_batch_share_a_range(host: Host, adjustments: dict[str, Any]) -> None:
    args = ({"range": "shared", **adjustments},)
    host.run(host.img2img(ramp(), dark(ramp()), batch_size=2, args=args))
    one, other = host.seen[-1][0], host.seen[-1][1]
    assert 0.9 < one.max() <= 1 and other.max() < one.max() - 0.3
    assert -1 <= other.min() < one.min() - 0.05


def test_a_sequence_shares_the_range_of_its_first_picture(host: Host) -> None:
    """The batch tab runs one `p` again and again."""
    p = host.img2img(ramp(), args=({"range": "shared"},))
    host.run(p)
    p.init_images = [dark(ramp())]
    host.run(p)
    assert host.seen[-1].max() < 0.6
    p.script_args = (0,)
    host.run(p)
    assert host.seen[-1].max() == 1 and host.left_on(p) == []
