"""Check the conditioning at step k."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from depth2img import DepthMap, DepthOptions, OptionError, neutral
from depth2img.depth import schedule


def ramp(height: int = 4, width: int = 6) -> torch.Tensor:
    return torch.linspace(-1, 1, height * width).reshape(1, 1, height, width)


def active(total: int, **fields: float) -> list[int]:
    options = DepthOptions(**fields)
    return [step for step in range(total) if schedule.strength_at(options, step, total)]


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({}, range(10)),
        ({"end": 0.3}, range(3)),
        ({"start": 0.3}, range(3, 10)),
        ({"start": 0.2, "end": 0.7}, range(2, 7)),
        ({"end": 0.0}, []),
        ({"start": 1.0}, []),
        ({"start": 0.5, "end": 0.5}, []),
        ({"end": 0.01}, [0]),
        ({"start": 0.99}, []),
        ({"start": 0.9}, [9]),
    ],
)
def test_start_and_end_are_parts_of_the_steps(fields, steps):
    assert active(10, **fields) == list(steps)


def test_a_millionth_of_a_step_is_rounding():
    """As a start it is the beginning, as an end it is nothing yet."""
    assert active(1, start=1e-6) == [0] and active(1, start=1.1e-6) == []
    assert active(1, end=1e-6) == [] and active(1, end=1.1e-6) == [0]


@given(st.integers(1, 200), st.integers(0, 100), st.integers(0, 100))
def test_neighbouring_ranges_meet_without_gap_or_overlap(total, one, two):
    """Depth until x and depth from x on are all steps, each once."""
    at = min(one, two) / 100
    assert active(total, end=at) + active(total, start=at) == list(range(total))


def test_steps_beyond_the_last_count_as_the_last():
    """DPM adaptive asks as often as it likes."""
    options = DepthOptions(end=0.5)
    assert schedule.strength_at(options, 25, 10) == 0.0
    assert schedule.strength_at(DepthOptions(start=0.5), 25, 10) == 1.0
    assert schedule.strength_at(options, 0, 0) == schedule.strength_at(options, 7, 0) == 1.0


def test_start_after_end_is_refused():
    with pytest.raises(OptionError, match="'start' must not be greater than 'end'"):
        DepthOptions(start=0.6, end=0.5)


def test_defaults_hand_back_the_same_tensor():
    depth, options = ramp(), DepthOptions()
    assert schedule.constant(options)
    assert schedule.conditional(depth, options, 3, 10) is depth
    assert schedule.unconditional(depth, options, 3, 10, 7.5) is depth
    assert schedule.inside(depth, None, 0.0) is depth


@pytest.mark.parametrize("change", [{"strength": 0.5}, {"start": 0.1}, {"end": 0.9}, {"guidance": 2.0}])
def test_each_control_is_noticed(change):
    assert not schedule.constant(DepthOptions(**change))


@pytest.mark.parametrize("level", [0.0, -1.0, 0.25])
def test_strength_goes_to_neutral(level):
    depth = ramp()
    for strength in (0.0, 0.25, 0.5, 1.0):
        options = DepthOptions(strength=strength, neutral=level)
        expected = neutral(1, height=4, width=6, level=level).lerp(depth, strength)
        for rows in (schedule.conditional(depth, options, 0, 5), schedule.unconditional(depth, options, 0, 5, 7.0)):
            assert torch.allclose(rows, expected, atol=1e-6)


def test_outside_the_steps_it_is_neutral_to_the_last_bit():
    options = DepthOptions(start=0.5, neutral=-0.5)
    assert torch.equal(schedule.conditional(ramp(), options, 0, 4), neutral(1, height=4, width=6, level=-0.5))


@pytest.mark.parametrize(("scale", "seen"), [(1.0, 1.0), (7.0, 0.0), (4.0, 0.5), (13.0, -1.0), (30.0, -1.0)])
def test_guidance_takes_depth_from_the_unconditional_rows(scale, seen):
    """At cfg scale 7: the map, neutral, half of it, mirrored."""
    options = DepthOptions(guidance=scale)
    assert torch.allclose(schedule.unconditional(ramp(), options, 0, 5, 7.0), ramp() * seen, atol=1e-6)
    assert schedule.conditional(ramp(), options, 0, 5) is not None
    assert torch.equal(schedule.conditional(ramp(), options, 0, 5), ramp())


@given(st.floats(1.0, 20.0), st.floats(1.1, 20.0))
def test_guidance_is_the_factor_of_a_linear_network(guidance, cfg_scale):
    """For e(d) = d the guided output is the map times the depth guidance, whatever the CFG scale."""
    options = DepthOptions(guidance=guidance)
    with_depth = schedule.conditional(ramp(), options, 0, 1)
    without = schedule.unconditional(ramp(), options, 0, 1, cfg_scale)
    out = without + cfg_scale * (with_depth - without)
    reached = min(guidance, 1 + schedule.FARTHEST_OPPOSITE * (cfg_scale - 1))
    assert torch.allclose(out, ramp() * reached, atol=1e-4 * reached)


def test_guidance_has_no_part_at_cfg_scale_one():
    assert schedule.unconditional_part(DepthOptions(guidance=9.0), 1.0) == 0.0


def test_guidance_counts_from_what_strength_leaves():
    options = DepthOptions(guidance=7.0, strength=0.5, neutral=0.2)
    rows = schedule.unconditional(ramp(), options, 0, 5, 7.0)
    assert torch.allclose(rows, torch.full_like(ramp(), 0.2))


def test_region():
    mask = np.zeros((40, 60), np.float32)
    mask[:, 30:] = 1.0
    region = schedule.region_tensor(DepthMap(values=mask), height=4, width=6)
    assert region.shape == (1, 1, 4, 6)
    assert torch.equal(region[0, 0, 0], torch.tensor([0.0, 0, 0, 1, 1, 1]))
    inside = schedule.inside(ramp(), region, -1.0)
    assert torch.equal(inside[..., 3:], ramp()[..., 3:])
    assert (inside[..., :3] == -1).all()


def test_a_grey_region_counts_partly_and_is_not_stretched():
    region = schedule.region_tensor(DepthMap(values=np.full((8, 8), 0.25, np.float32)), height=4, width=6)
    assert torch.allclose(schedule.inside(ramp(), region, 0.0), ramp() * 0.25)


def test_a_region_is_limited_to_nothing_and_everything():
    values = np.tile(np.array([-0.5, 0.25, 1.5], np.float32), (4, 1))
    region = schedule.region_tensor(DepthMap(values=values), height=4, width=3)
    assert torch.equal(region[0, 0], torch.tensor([0.0, 0.25, 1.0]).expand(4, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_type_is_kept(dtype):
    depth, options = ramp().to(dtype), DepthOptions(strength=0.5, neutral=0.1, guidance=3.0)
    region = schedule.region_tensor(DepthMap(values=np.eye(8, dtype=np.float32)), height=4, width=6)
    assert schedule.conditional(depth, options, 0, 5).dtype == dtype
    assert schedule.unconditional(depth, options, 0, 5, 7.0).dtype == dtype
    assert schedule.inside(depth, region, 0.1).dtype == dtype
