"""Rows of the conditioning at each step, in whatever order the host batches them."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from depth2img import DepthMap, DepthOptions
from depth2img.depth import schedule
from depth2img.depth.conditioning import conditioning
from depth2img_comfy.applied import KEY, Applied, Part, is_unconditional, place, scheduled
from depth2img_comfy.depth_batch import DepthBatch
from depth2img_comfy.sampling import without_colours

HEIGHT, WIDTH = 5, 7


def a_map(seed: int, height: int = 20, width: int = 28) -> DepthMap:
    values = np.random.default_rng(seed).uniform(1, 9, (height, width)).astype(np.float32)
    return DepthMap(values=values)


def a_batch(*seeds: int) -> DepthBatch:
    return DepthBatch(tuple(a_map(seed) for seed in seeds))


OPTIONS = DepthOptions(strength=0.5, guidance=3.0, start=0.25, end=0.75, neutral=-0.5)


@pytest.mark.parametrize("order", [*permutations((0, 1)), (0, 0, 1), (1, 0, 1)])
@pytest.mark.parametrize("step", range(8))
def test_each_row_is_what_the_librarys_schedule_says(order: tuple[int, ...], step: int) -> None:
    parts = (Part(OPTIONS, False), Part(OPTIONS, True))
    two = conditioning([a_map(1), a_map(2)], height=HEIGHT, width=WIDTH)
    concat, rows = torch.cat([two] * len(order)), [part for part in order for _ in range(2)]
    found = scheduled(concat, rows, parts, step=step, total=8, cfg_scale=7.0)
    wanted = {
        0: schedule.conditional(two, OPTIONS, step, 8),
        1: schedule.unconditional(two, OPTIONS, step, 8, cfg_scale=7.0),
    }
    assert torch.equal(found, torch.cat([wanted[part] for part in order]))
    on = 2 <= step < 6
    assert torch.equal(found, torch.full_like(found, -0.5)) != on  # the schedule had something to do at this step


def test_prompts_with_depths_of_their_own() -> None:
    weak = DepthOptions(strength=0.25)
    parts = (Part(DepthOptions(), False), Part(weak, False))
    concat = conditioning([a_map(1), a_map(2), a_map(3)], height=HEIGHT, width=WIDTH)
    found = scheduled(concat, [1, -1, 0], parts, step=0, total=4, cfg_scale=7.0)
    assert torch.equal(found, torch.stack([concat[0] * 0.25, concat[1], concat[2]]))


def test_nothing_is_touched_without_options() -> None:
    concat = conditioning([a_map(1)], height=HEIGHT, width=WIDTH)
    parts = (Part(DepthOptions(), False), Part(DepthOptions(), True))
    assert scheduled(concat, [0], parts, step=0, total=4, cfg_scale=7.0) is concat


def test_the_names_of_guiders() -> None:
    names = ["positive", "middle", "negative", "empty_negative_prompt"]
    assert [is_unconditional(name) for name in names] == [False, False, True, True]


@pytest.mark.parametrize(
    ("sigma", "step"),
    [(10.0, 0), (10.0004, 0), (9.9996, 0), (7.0, 0), (5.0, 1), (3.0, 1), (2.0, 2), (0.3, 2), (40.0, 0), (1e-9, 2)],
)
def test_a_step_is_found_by_its_noise_level(sigma: float, step: int) -> None:
    assert place([10.0, 5.0, 2.0, 0.0], sigma) == (step, 3)


def test_a_run_of_no_steps_has_one() -> None:
    assert place([3.0], 3.0) == (0, 1)


def test_conditioning_is_made_from_the_maps_at_any_size() -> None:
    applied = Applied(a_batch(1, 2), DepthOptions())
    for height, width in ((HEIGHT, WIDTH), (11, 8)):
        wanted = conditioning([a_map(1), a_map(2)], height=height, width=width)
        assert torch.equal(applied.conditioning(2, height=height, width=width), wanted)
        assert torch.equal(applied.conditioning(3, height=height, width=width)[2], wanted[0])


def test_inside_the_region_only() -> None:
    half = np.zeros((20, 28), np.float32)
    half[:, 12:] = 1
    applied = Applied(a_batch(1), DepthOptions(neutral=0.5), (DepthMap(values=half),))
    found = applied.conditioning(1, height=HEIGHT, width=WIDTH)
    wanted = conditioning([a_map(1)], height=HEIGHT, width=WIDTH)
    assert torch.equal(found[..., :3], torch.full((1, 1, HEIGHT, 3), 0.5))
    assert torch.equal(found[..., 3:], wanted[..., 3:])


def test_prompts_keep_what_they_carry() -> None:
    states, concat = torch.ones(1, 77, 3), torch.zeros(1, 1, HEIGHT, WIDTH)
    before = [[states, {"area": (1, 2, 3, 4)}], [states, {}]]
    applied = Applied(a_batch(1), DepthOptions())
    [first, second] = applied.to(before, concat)
    assert first[0] is states and first[1] == {"area": (1, 2, 3, 4), "noise_concat": concat, KEY: applied}
    assert second[1].keys() == {"noise_concat", KEY}
    assert before[1][1] == {}


def test_colours_leave_where_everything_is_repainted() -> None:
    latent = torch.arange(1.0, 9.0).reshape(1, 2, 2, 2)
    mask = torch.tensor([[[[1.0, 0.5], [0.0, 1.0]]]])
    assert without_colours(latent, None) is not None and not without_colours(latent, None).any()
    assert without_colours(latent, mask).tolist() == [[[[0, 2], [3, 0]], [[0, 6], [7, 0]]]]
    assert without_colours(None, mask) is None
