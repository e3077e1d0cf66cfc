"""Control over depth on the real WebUI: what the network gets at each step."""

from __future__ import annotations

import contextlib
import math
import re
from typing import Any

import numpy as np
import pytest
from host import Host, Refused, to_base64, without_scheduler
from PIL import Image

LCM = pytest.param("LCM", marks=pytest.mark.needs("LCM"))


def conditionings(host: Host) -> list[np.ndarray]:
    """Conditioning of each step, all rows: (rows, 1, h, w)."""
    return [np.array(values, np.float32).reshape(shape) for shape, values, _ in host.conditionings()]


def left_half(width: int = 192, height: int = 128) -> Image.Image:
    image = Image.new("L", (width, height))
    image.paste(255, (0, 0, width // 2, height))
    return image


@pytest.fixture
def full(depth_host: Host, astronaut: Image.Image) -> np.ndarray:
    """The conditioning of the astronaut at full strength, (1, h, w)."""
    depth_host.img2img(astronaut)
    first = conditionings(depth_host)[0][0]
    depth_host.run("probe.clear()")
    return first


@pytest.mark.parametrize("sampler", ["Euler", "Heun", "DPM++ 2M", "DPM++ SDE", "DDIM", "PLMS", "UniPC", LCM])
def test_start_end_and_strength(depth_host: Host, astronaut: Image.Image, full: np.ndarray, sampler: str) -> None:
    """Neutral before the start and after the end, in between the strength's part; all steps counted."""
    depth = {"start": 0.25, "end": 0.75, "strength": 0.5}
    depth_host.img2img(astronaut, depth=depth, sampler_name=sampler, steps=8)
    steps = conditionings(depth_host)
    parts = [float(np.abs(step).max() / np.abs(full).max()) for step in steps]
    middle = [index for index, part in enumerate(parts) if part > 0]
    assert set(np.round(parts, 5)) == {0, 0.5}
    assert middle == list(range(math.ceil(0.25 * len(steps)), math.ceil(0.75 * len(steps))))
    assert np.allclose(steps[middle[0]][0], full * 0.5, atol=1e-6)


def test_strength_zero_is_off(depth_host: Host, astronaut: Image.Image) -> None:
    """The same picture as with depth switched off."""
    depth_host.run("probe.seeded = True")
    off = depth_host.img2img(astronaut, depth={"enabled": False})
    zero = depth_host.img2img(astronaut, depth={"strength": 0.0})
    assert all((step == 0).all() for step in conditionings(depth_host))
    assert np.abs(np.asarray(off.images[0], int) - np.asarray(zero.images[0], int)).max() <= 1


def test_neutral_depth(depth_host: Host, astronaut: Image.Image) -> None:
    depth_host.img2img(astronaut, depth={"enabled": False, "neutral": -1.0})
    depth_host.img2img(astronaut, depth={"strength": 0.0, "neutral": -1.0})
    assert all((step == -1).all() for step in conditionings(depth_host))


def test_region(depth_host: Host, astronaut: Image.Image, full: np.ndarray) -> None:
    depth_host.img2img(astronaut, depth={"region": to_base64(left_half())})
    for step in conditionings(depth_host):
        for row in step:
            assert np.array_equal(row[..., :12], full[..., :12])
            assert (row[..., 12:] == 0).all()


def test_region_goes_through_the_picture_s_geometry(depth_host: Host, coffee: Image.Image) -> None:
    """'Crop and resize' to a square keeps the middle of the picture, and the middle of the mask."""
    depth = {"region": to_base64(left_half()), "neutral": -0.25}
    depth_host.img2img(coffee, depth=depth, resize_mode=1, width=128, height=128)
    step = conditionings(depth_host)[0]
    assert (step[..., 8:] == -0.25).all() and np.ptp(step[..., :8]) > 0.5


def test_region_of_only_masked(depth_host: Host, astronaut: Image.Image) -> None:
    mask = Image.new("L", (192, 128))
    mask.paste(255, (96, 30, 160, 90))
    fields: dict[str, Any] = {"mask": mask, "inpaint_full_res": True, "inpaint_full_res_padding": 0, "mask_blur": 0}
    depth_host.img2img(astronaut, depth={"region": to_base64(left_half())}, **fields)
    assert all(np.abs(step[..., 4:]).max() == 0 for step in conditionings(depth_host))


def test_region_in_a_truncated_hires_pass(depth_host: Host, coffee: Image.Image) -> None:
    fields = {"enable_hr": True, "hr_resize_x": 192, "hr_resize_y": 192, "hr_upscaler": "Latent"}
    depth = {"reference": to_base64(coffee), "region": to_base64(left_half())}
    depth_host.txt2img(depth=depth, denoising_strength=0.6, **fields)
    steps = conditionings(depth_host)
    assert steps[-1].shape[-2:] == (24, 24)
    assert (steps[0][..., 12:] == 0).all() and np.ptp(steps[0][..., :12]) > 0.2
    assert (steps[-1][..., 13:] == 0).all() and np.ptp(steps[-1][..., :11]) > 0.2


def test_each_pass_counts_its_own_steps(depth_host: Host, coffee: Image.Image) -> None:
    fields = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.5, "steps": 4}
    depth_host.txt2img(depth={"reference": to_base64(coffee), "end": 0.5}, **fields)
    steps = conditionings(depth_host)
    for size in (16, 24):
        used = [bool(np.abs(step).max() > 0) for step in steps if step.shape[-2] == size]
        assert used == [True] * (len(used) // 2 + len(used) % 2) + [False] * (len(used) // 2)


def test_guidance_with_and_prompts_in_a_batch(
    depth_host: Host, astronaut: Image.Image, coffee: Image.Image, full: np.ndarray
) -> None:
    """CFG scale 1.5, depth guidance 1.25: the two unconditional rows see half of their map, the others all of it."""
    fields = {"batch_size": 2, "prompt": "a vase AND a cat :0.5", "cfg_scale": 1.5, "steps": 1}
    with contextlib.suppress(Refused):  # random weights: the picture may be NaN
        depth_host.img2img(astronaut, coffee, depth={"guidance": 1.25}, **fields)
    rows = conditionings(depth_host)[0]
    assert rows.shape[0] == 6
    assert np.array_equal(rows[0], full) and np.array_equal(rows[1], full)
    assert np.allclose(rows[4], rows[0] / 2, atol=1e-6) and np.allclose(rows[5], rows[2] / 2, atol=1e-6)


def test_guidance_at_the_cfg_scale_is_neutral_and_changes_the_picture(depth_host: Host, astronaut: Image.Image) -> None:
    depth_host.run("probe.seeded = True")
    plain = depth_host.img2img(astronaut)
    depth_host.run("probe.clear()")
    guided = depth_host.img2img(astronaut, depth={"guidance": 5.0})
    steps = conditionings(depth_host)
    assert len(steps) == 2 and all((step[1] == 0).all() and step[0].max() == 1 for step in steps)
    assert np.abs(np.asarray(plain.images[0], int) - np.asarray(guided.images[0], int)).mean() > 0.1


@pytest.mark.parametrize(
    "fields",
    [
        {"s_min_uncond": 5.0},
        pytest.param({"override_settings": {"skip_early_cond": 0.6}}, marks=pytest.mark.needs("skip_early_cond")),
        {"override_settings": {"batch_cond_uncond": False}},
    ],
    ids=["NGMS", "skip early", "separate halves"],
)
def test_skipped_or_separate_unconditional_rows(
    depth_host: Host, astronaut: Image.Image, full: np.ndarray, fields: dict[str, Any]
) -> None:
    depth = {"strength": 0.5, "guidance": 3.0}
    result = depth_host.img2img(astronaut, depth=depth, steps=4, denoising_strength=0.5, **fields)
    assert len(result.images) == 1
    assert all(np.allclose(step[0], full * 0.5, atol=1e-6) for step in conditionings(depth_host))


def test_refiner_follows_the_schedule(depth_host: Host, astronaut: Image.Image) -> None:
    """The depth checkpoint comes in half-way; depth ends at three quarters of all steps."""
    depth_host.use("small-plain")
    depth_host.run("probe.clear()")
    fields = {"refiner_checkpoint": "small-depth", "refiner_switch_at": 0.5, "steps": 8}
    depth_host.img2img(astronaut, depth={"end": 0.75}, **fields)
    maps = [step for step in conditionings(depth_host) if step.shape[1:] == (1, 16, 24)]
    used = [bool(np.abs(step).max() > 0) for step in maps]
    assert used == [True] * (len(used) // 2) + [False] * (len(used) // 2)
    depth_host.use("small-depth")


@pytest.mark.needs("infotext")
def test_control_in_the_infotext(depth_host: Host, astronaut: Image.Image) -> None:
    depth = {"strength": 0.5, "start": 0.1, "end": 0.75, "guidance": 3.0, "neutral": 0.25}
    first = depth_host.img2img(astronaut, depth=depth)
    expected = conditionings(depth_host)
    for part in ("Depth strength: 0.5", "Depth start: 0.1", "Depth end: 0.75", "Depth guidance: 3.0"):
        assert part in first.infotexts[0]
    depth_host.run("probe.clear()")
    again = depth_host.img2img(astronaut, infotext=first.infotexts[0])
    assert all(np.array_equal(a, b) for a, b in zip(conditionings(depth_host), expected, strict=True))
    assert without_scheduler(again.infotexts[0]) == without_scheduler(first.infotexts[0])


@pytest.mark.parametrize(
    ("depth", "names"),
    [({"start": 0.6, "end": 0.5}, "start"), ({"region": "no picture"}, "base64"), ({"strength": 2}, "strength")],
)
def test_bad_control_is_named(depth_host: Host, astronaut: Image.Image, depth: dict[str, Any], names: str) -> None:
    with pytest.raises(Refused, match=names) as refused:
        depth_host.img2img(astronaut, depth=depth)
    assert refused.value.status == 422


def test_fidelity_score(depth_host: Host, astronaut: Image.Image, coffee: Image.Image) -> None:
    """Each result has its own; a picture that stays as it is agrees with itself."""
    depth = {"score": True}
    result = depth_host.img2img(astronaut, coffee, batch_size=2, depth=depth, denoising_strength=0.0, steps=2)
    scores = [float(re.search(r"Depth fidelity: (-?[\d.]+)", text).group(1)) for text in result.infotexts[-2:]]
    assert len(scores) == 2 and all(-1 <= score <= 1 for score in scores) and scores[0] != scores[1]
    assert "Depth fidelity" not in depth_host.img2img(astronaut).infotexts[0]
