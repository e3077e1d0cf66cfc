"""Strength, start, end, region, guidance and noise alone: what the network and the sampler get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from depth2img import OptionError
from tests.webui_fake.standin import Host, depth_of, map_file, ramp


def steps_of(host: Host, p: Any) -> list[torch.Tensor]:
    """Conditioning of each step, all rows, of this job alone."""
    host.seen.clear()
    host.run(p)
    return list(host.seen)


def job(host: Host, depth: dict[str, Any], **fields: Any) -> Any:
    return host.img2img(ramp(), args=(depth,), **fields)


@pytest.fixture
def full(host: Host) -> torch.Tensor:
    """The map at full strength, (1, h, w)."""
    return steps_of(host, job(host, {}))[0][0]


def test_start_end_and_strength(host: Host, full: torch.Tensor) -> None:
    depth = {"start": 0.25, "end": 0.75, "strength": 0.5, "neutral": -0.5}
    steps = steps_of(host, job(host, depth, steps=8))
    for index, step in enumerate(steps):
        expected = full * 0.5 - 0.25 if 2 <= index < 6 else torch.full_like(full, -0.5)
        assert all(torch.allclose(row, expected) for row in step)


def test_region(host: Host, full: torch.Tensor) -> None:
    region = Image.new("L", (96, 64))
    region.paste(255, (0, 0, 48, 64))
    for step in steps_of(host, job(host, {"region": region})):
        assert all(torch.equal(row[..., :6], full[..., :6]) and not row[..., 6:].any() for row in step)


def test_guidance_acts_on_the_unconditional_rows_alone(host: Host, full: torch.Tensor) -> None:
    """CFG scale 7 in the stand-in: depth guidance 4 is half-way to neutral."""
    for step in steps_of(host, job(host, {"guidance": 4.0}, prompt="one AND two", batch_size=2)):
        *with_prompt, one, other = step
        assert all(torch.equal(row, full) for row in with_prompt)
        assert torch.allclose(one, full / 2, atol=1e-6) and torch.allclose(other, full / 2, atol=1e-6)


def test_skipped_unconditional_rows(host: Host, full: torch.Tensor) -> None:
    host.shared.opts.skip_early_cond = 1.0
    for step in steps_of(host, job(host, {"guidance": 7.0, "strength": 0.5})):
        assert step.shape[0] == 1 and torch.allclose(step[0], full / 2)


def test_off_stays_neutral(host: Host) -> None:
    steps = steps_of(host, job(host, {"enabled": False, "strength": 0.5, "neutral": 0.25}))
    assert all((step == 0.25).all() for step in steps)


@pytest.mark.parametrize("strength", [1.0, 0.9])
def test_noise_alone(host: Host, strength: float) -> None:
    p = job(host, {"ignore_colours": True}, denoising_strength=strength)
    host.run(p)
    assert bool(p.init_latent.any()) is (strength < 1)
    assert any("denoising strength 1 only" in comment for comment in p.comments) is (strength < 1)


def test_noise_alone_keeps_what_a_mask_keeps(host: Host) -> None:
    """Wholly or in part; only what is repainted for good loses its colours."""
    p = job(host, {}, denoising_strength=1.0)
    p.init_latent = torch.arange(1.0, 9.0).reshape(1, 1, 2, 4)
    p.mask = torch.tensor([[0.0, 0.0, 0.25, 1.0], [0.0, 1.0, 1.0, 1.0]])[None]
    host.ours("jobs.hook").start_from_noise(p)
    assert p.init_latent.tolist() == [[[[0, 0, 3, 4], [0, 6, 7, 8]]]]


def test_fill_and_own_map_under_the_mask(host: Host) -> None:
    import numpy as np

    values = np.tile(np.linspace(0, 1, 96, dtype=np.float32), (64, 1))
    bump = values.copy()
    bump[16:48, 32:64] = 1.0
    mask = Image.new("L", (96, 64))
    mask.paste(255, (32, 16, 64, 48))
    rows = {}
    for under_mask in ("keep", "fill"):
        depth = {"depth_map": bump, "source": "map", "under_mask": under_mask}
        p = job(host, depth, mask=mask, inpaint_full_res=False)
        rows[under_mask] = steps_of(host, p)[0][0, 0, 4, 4:8]
    backwards = np.ascontiguousarray(values[:, ::-1])
    p = job(host, {"depth_map": backwards, "under_mask": "map"}, mask=mask, inpaint_full_res=False)
    rows["map"] = steps_of(host, p)[0][0, 0, 4, 4:8]
    assert rows["keep"].min() > 0.9
    assert (rows["fill"].diff() > 0).all() and (rows["map"].diff() < 0).all()


def fixed(far: float, near: float, **more: Any) -> dict[str, Any]:
    return {"range": "fixed", "range_far": far, "range_near": near, **more}


@pytest.mark.parametrize("given", ["picture", "reference", "map"])
@pytest.mark.parametrize("adjustments", [{}, {"invert": True, "gamma": 2.0}])
def test_a_fixed_range_is_in_the_maps_own_units(
    host: Host, tmp_path: Path, given: str, adjustments: dict[str, Any]
) -> None:
    """Wherever the map comes from: far and near are its own values, and what lies beyond is limited."""
    raw = depth_of(ramp())
    far, near = np.quantile(raw, [0.2, 0.7])
    payload: dict[str, Any] = {"map": {"depth_map": map_file(raw, tmp_path / "map.npy").read_bytes()}}
    payload["reference"] = {"reference": ramp()}
    depth = fixed(float(far), float(near), **payload.get(given, {}), **adjustments)
    step = steps_of(host, host.img2img(ramp(), args=(depth,)))[0][0, 0].numpy()
    unit = np.clip((raw - far) / (near - far), 0, 1)
    unit = (1 - unit) ** 0.5 if adjustments else unit
    whole = Image.fromarray(unit.astype(np.float32)).resize((12, 8), Image.Resampling.BOX)
    # The host resizes bicubically before it limits; a box of 8 x 8 pixels is close to that on a ramp.
    assert np.abs(step - (2 * np.asarray(whole) - 1)).mean() < 0.03
    assert (step == -1).any() and (step == 1).any()


def test_a_fixed_range_is_the_same_in_every_picture_of_a_batch(host: Host) -> None:
    """Two pictures alike but for one bright pixel: with own ranges all of the second one changes."""
    changed = ramp()
    changed.paste((255, 255, 255), (80, 48, 96, 64))
    found = {}
    for name, depth in {"own": {}, "fixed": fixed(-0.5, 2.0)}.items():
        rows = steps_of(host, host.img2img(ramp(), changed, batch_size=2, args=(depth,)))[0]
        found[name] = float((rows[0, 0, :4] - rows[1, 0, :4]).abs().max())
    assert found["fixed"] == 0 < found["own"]


def test_a_fixed_range_without_its_ends_is_refused(host: Host) -> None:
    with pytest.raises(OptionError, match="range_near"):
        host.run(host.img2img(ramp(), args=({"range": "fixed"},)))
