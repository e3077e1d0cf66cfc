"""Passes that never ask our script: they have depth all the same, with the options of the job that started them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from depth2img import NoDepthError
from tests.webui_fake.standin import Host, blobs, depth_of, map_file, ramp, stretched


def without_scripts(p: Any) -> Any:
    p.scripts, p.script_args = None, ()
    return p


def masked(host: Host, picture: Image.Image, box: tuple[int, int, int, int]) -> Any:
    """A pass over a box of a picture, as a face detailer makes it."""
    mask = Image.new("L", picture.size)
    mask.paste(255, box)
    return without_scripts(host.img2img(picture, mask=mask))


def finishing(host: Host, outer: Any, make: Callable[[Image.Image], Any]) -> None:
    """Run a job in which another script runs a pass of its own on each finished picture."""

    class Detailer(host.scripts.Script):
        def postprocess_image(self, p: Any, pp: Any, *args: Any) -> None:
            host.run(make(pp.image))

    outer.scripts.fake_add(Detailer(), True)
    host.run(outer)
    assert host.reported == []


def test_a_job_without_scripts_has_depth(host: Host) -> None:
    host.run(host.img2img(ramp(), blobs(1), batch_size=2))
    asked = host.seen[-1]
    p = without_scripts(host.img2img(ramp(), blobs(1), batch_size=2))
    host.run(p)
    assert torch.equal(host.seen[-1], asked)
    assert host.left_on(p) == [] and p.extra_generation_params == {}


def test_it_may_run_again_on_the_same_p(host: Host) -> None:
    p = without_scripts(host.img2img(ramp()))
    host.run(p)
    p.init_images = [blobs(1)]
    host.run(p)
    host.run(host.img2img(blobs(1)))
    assert torch.equal(host.seen[-1], host.seen[-3])


def test_a_copy_of_p_is_a_pass_of_its_own(host: Host) -> None:
    """It carries the request of the job that it was copied from, whose frame is the whole picture."""
    outer = host.img2img(ramp(), args=({"strength": 0.5},))

    def copied(picture: Image.Image) -> Any:
        p = masked(host, picture, (24, 16, 72, 48))
        p.__dict__ = {**copy.copy(outer).__dict__, **p.__dict__}
        return p

    finishing(host, outer, copied)
    ours = host.seen[-1]
    finishing(
        host, host.img2img(ramp(), args=({"strength": 0.5},)), lambda picture: masked(host, picture, (24, 16, 72, 48))
    )
    assert torch.equal(ours, host.seen[-1]) and ours.any()


def test_a_conditioning_that_no_job_asks_for_leaves_nothing(host: Host) -> None:
    p = host.img2img(ramp())
    p.init([], [], [])
    assert p.image_conditioning.max() == 1 and host.left_on(p) == []


def test_txt2img_without_scripts_says_what_is_missing(host: Host) -> None:
    p = without_scripts(host.txt2img())
    with pytest.raises(NoDepthError, match="txt2img has no picture"):
        host.run(p)
    assert host.left_on(p) == []


def test_a_depth_checkpoint_for_hires_alone(host: Host) -> None:
    host.select("plain")
    p = without_scripts(host.txt2img(enable_hr=True, hr_upscaler="Latent", hr_checkpoint_name="depth"))
    p.hr_upscale_to_x, p.hr_upscale_to_y, p.latent_scale_mode = 192, 128, {"mode": "bilinear", "antialias": False}
    host.run(p)
    assert host.seen[-1].shape == (2, 1, 16, 24) and host.seen[-1].max() == 1


def test_a_plain_checkpoint_is_left_alone(host: Host) -> None:
    host.select("plain")
    p = without_scripts(host.img2img(ramp()))
    host.run(p)
    assert p.fake_native[0] == "img2img"


def test_a_pass_takes_over_schedule_and_adjustments(host: Host) -> None:
    options = {"invert": True, "strength": 0.5, "end": 0.5, "score": True, "append_map": True}
    finishing(host, host.img2img(ramp(), args=(options,)), lambda _: without_scripts(host.img2img(blobs(2), steps=4)))
    ours = host.seen[2:6]
    host.run(host.img2img(blobs(2), args=({"invert": True},)))
    full = host.seen[-1]
    assert all(torch.equal(step, full * 0.5) for step in ours[:2]) and not any(step.any() for step in ours[2:])


def test_a_pass_of_a_job_without_depth_has_none(host: Host) -> None:
    outer = host.img2img(ramp(), args=({"enabled": False, "neutral": 0.25},))
    finishing(host, outer, lambda picture: without_scripts(host.img2img(picture)))
    assert len(host.seen) == 4 and all((step == 0.25).all() for step in host.seen)


@pytest.mark.parametrize("options", [{}, {"range": "fixed", "range_far": 0.0, "range_near": 400.0}])
def test_an_own_map_is_cut_to_the_box_of_the_pass(host: Host, tmp_path: Path, options: dict[str, Any]) -> None:
    """Its part keeps the range of the whole map, or the one that was fixed."""
    values = np.tile(np.linspace(0, 200, 96), (64, 1))
    given = {"depth_map": map_file(values, tmp_path / "map.npy").read_bytes(), **options}
    finishing(host, host.img2img(blobs(1), args=(given,)), lambda picture: masked(host, picture, (48, 16, 72, 32)))
    row = host.seen[-1][0, 0, 4]
    far, near = (values[0, at] / options.get("range_near", 200) * 2 - 1 for at in (48, 71))
    assert (row.diff() > 0).all()
    # A pixel of the latent is an eighth of the box: the outermost lie 1/16 of its range inside, cubically resized.
    assert float(row[0]) == pytest.approx(far, abs=0.05) and float(row[-1]) == pytest.approx(near, abs=0.05)


def test_a_reference_is_cut_too_and_each_picture_has_its_own(host: Host) -> None:
    """The second picture of a batch goes with the second map."""
    maps = []
    outer = host.img2img(ramp(), ramp(), batch_size=2, args=({"reference": blobs(3), "gamma": 2.0},))
    finishing(host, outer, lambda picture: maps.append(picture) or without_scripts(host.img2img(picture)))
    assert len(maps) == 2
    for step in host.seen[2:]:
        np.testing.assert_array_equal(step[0], host.seen[0][0])


def test_a_region_is_cut_to_the_box(host: Host) -> None:
    region = Image.new("L", (96, 64))
    region.paste(255, (0, 0, 48, 64))
    outer = host.img2img(ramp(), args=({"region": region},))
    finishing(host, outer, lambda picture: masked(host, picture, (24, 16, 72, 48)))
    assert host.seen[-1][..., :6].any() and not host.seen[-1][..., 6:].any()


def test_a_shared_range_is_not_taken_over(host: Host) -> None:
    """The pass knows one picture alone."""
    outer = host.img2img(ramp(), args=({"range": "shared"},))
    finishing(host, outer, lambda _: without_scripts(host.img2img(blobs(4))))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(depth_of(blobs(4)))[None, None].float(), (8, 12), mode="bicubic"
    )
    np.testing.assert_allclose(host.seen[-1][0, 0], stretched(expected[0, 0].numpy()), atol=1e-3)
