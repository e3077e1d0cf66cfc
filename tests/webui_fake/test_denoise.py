"""Each step of the sampler: the UNet gets conditioning of the rows and the size that it has."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from depth2img import Depth2ImgError
from tests.webui_fake import standin
from tests.webui_fake.standin import Host, blobs, depth_of, map_file, ramp

SHAPES = "Sizes of tensors must match"


def without_callback(host: Host) -> None:
    """The host alone: shows that the defect is there."""
    host.script_callbacks.clear_callbacks()


SKIPS = [
    pytest.param({"s_min_uncond": 5.0}, {}, id="NGMS"),
    pytest.param({"s_min_uncond": 5.0}, {"s_min_uncond_all": True}, id="NGMS all steps"),
    pytest.param({}, {"skip_early_cond": 0.5}, id="skip early"),
    pytest.param({"s_min_uncond": 5.0}, {"skip_early_cond": 0.25}, id="both"),
]


@pytest.mark.parametrize("prompt", ["a vase", "a vase AND a cat AND a dog"])
@pytest.mark.parametrize(("fields", "settings"), SKIPS)
def test_skipped_unconditional_rows(host: Host, fields: dict[str, Any], settings: dict[str, Any], prompt: str) -> None:
    for key, value in settings.items():
        setattr(host.shared.opts, key, value)
    pictures, conds = (ramp(), blobs(1)), len(prompt.split(" AND "))

    def job() -> Any:
        return host.img2img(*pictures, batch_size=2, steps=8, prompt=prompt, **fields)

    host.run(job())
    full, cut = 2 * conds + 2, 2 * conds
    counts = [step.shape[0] for step in host.seen]
    assert set(counts) == {full, cut}
    for step in host.seen:
        for row in range(conds):
            assert torch.equal(step[row], step[0]) and torch.equal(step[conds + row], step[conds])
        assert not torch.equal(step[0], step[conds])
        if step.shape[0] == full:
            assert torch.equal(step[-2], step[0]) and torch.equal(step[-1], step[conds])
    without_callback(host)
    with pytest.raises(RuntimeError, match=SHAPES):
        host.run(job())


def test_all_rows_are_kept_otherwise(host: Host) -> None:
    host.run(host.img2img(ramp(), steps=6, s_min_uncond=0.0, prompt="a AND b"))
    assert [step.shape[0] for step in host.seen] == [3] * 6


def test_the_prediction_is_the_hosts_rule(host: Host) -> None:
    """Against the step itself: how many rows did the UNet get?"""
    conds = host.prompt_parser.MulticondLearnedConditioning(None, [["a"]])
    predictions = []
    for limit, every, early in itertools.product([0.0, 1.0], [False, True], [0.0, 0.5]):
        host.shared.opts.s_min_uncond_all, host.shared.opts.skip_early_cond = every, early
        p = host.img2img(ramp(), steps=4)
        host.ours("jobs.hook").begin(p, ())
        p.init([], [], [])
        p.sampler.sampler_extra_args = {"s_min_uncond": limit, "cond": conds, "cond_scale": 7.0}
        for step, sigma in itertools.product(range(5), [0.5, 4.0]):
            denoiser = host.sd_samplers_cfg_denoiser.CFGDenoiser(p.sampler)
            denoiser.p, denoiser.step, denoiser.total_steps = p, step, 4
            sigmas = torch.tensor([sigma])
            predictions.append(host.ours("hosts.a1111").skips_uncond(denoiser, sigmas))
            denoiser(p.init_latent, sigmas, torch.zeros(1, 77, 8), conds, 7.0, limit, p.image_conditioning)
            assert host.seen[-1].shape[0] == (1 if predictions[-1] else 2)
    assert 0 < sum(predictions) < len(predictions)


def test_settings_that_an_older_host_lacks(host: Host) -> None:
    """They came with 1.10; a file of settings may hold them all the same, and the host does not read them."""
    for key in ("skip_early_cond", "s_min_uncond_all"):
        del host.shared.opts.data_labels[key]
    host.shared.opts.skip_early_cond, host.shared.opts.s_min_uncond_all = 0.9, True
    sampler = SimpleNamespace(sampler_extra_args={"s_min_uncond": 1.0})
    denoiser = SimpleNamespace(step=1, total_steps=4, sampler=sampler)
    skips = host.ours("hosts.a1111").skips_uncond
    assert skips(denoiser, torch.tensor([0.5])) and not skips(denoiser, torch.tensor([2.0]))
    denoiser.step = 2
    assert not skips(denoiser, torch.tensor([0.5]))


@pytest.fixture
def older(bare: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host whose callbacks are not told the denoiser (before 1.8), which has no CFG++ (before 1.10)."""
    samplers, callbacks = bare.sd_samplers_cfg_denoiser, bare.script_callbacks

    class CFGDenoiserParams(callbacks.CFGDenoiserParams):
        def __init__(
            self, x: Any, image_cond: Any, sigma: Any, step: Any, steps: Any, text: Any, uncond: Any, *newer: Any
        ) -> None:
            super().__init__(x, image_cond, sigma, step, steps, text, uncond)
            del self.denoiser

    init = samplers.CFGDenoiser.__init__

    def without_cfgpp(self: Any, sampler: Any) -> None:
        init(self, sampler)
        del self.cond_scale_miltiplier

    monkeypatch.setattr(samplers, "CFGDenoiserParams", CFGDenoiserParams)
    monkeypatch.setattr(callbacks, "CFGDenoiserParams", CFGDenoiserParams)
    monkeypatch.setattr(samplers.CFGDenoiser, "__init__", without_cfgpp)
    bare.ours("script").register()
    bare.add("depth", lambda: standin.state_dict(5, midas=True))
    bare.select("depth")
    return bare


def test_the_schedule_works_in_an_older_host(older: Host) -> None:
    older.run(older.img2img(ramp()))
    full = older.seen[0][0]
    args = ({"strength": 0.5, "end": 0.75, "guidance": 3.0},)
    older.run(older.img2img(ramp(), steps=8, cfg_scale=5.0, args=args))
    for step in older.seen[2:8]:
        assert torch.equal(step[0], full * 0.5) and torch.equal(step[1], full * 0.25)
    assert not any(step.any() for step in older.seen[8:]) and older.reported == []


def test_skipped_rows_in_an_older_host(older: Host) -> None:
    older.run(older.img2img(ramp(), steps=4, s_min_uncond=9.0))
    assert [step.shape[0] for step in older.seen] == [2, 1, 2, 1]


def test_the_older_host_gets_its_functions_back(older: Host) -> None:
    kind = older.sd_samplers_cfg_denoiser.CFGDenoiser
    patched = kind.forward
    older.script_callbacks.script_unloaded_callback()
    assert kind.forward is not patched and older.patches.originals == {}


def test_a_job_within_a_job_has_its_own_denoiser(older: Host) -> None:
    """A script may run a whole job from a step of another one."""
    inner = older.img2img(ramp(), args=({"strength": 0.25},))
    outer = older.img2img(ramp(), args=({"strength": 0.5},), steps=1)

    def run_inner(params: Any) -> None:
        if outer is not None and inner.sampler is None:
            older.run(inner)

    older.script_callbacks.fake_callbacks.insert(0, ("cfg_denoiser", run_inner))
    older.run(outer)
    assert [float(step.max()) for step in older.seen] == [0.25, 0.25, 0.5]


def test_plain_checkpoints_are_left_alone(host: Host) -> None:
    host.select("plain")
    conditioning = torch.zeros(3, 5, 1, 1)
    denoiser = SimpleNamespace(p=SimpleNamespace())
    params = host.script_callbacks.CFGDenoiserParams(None, conditioning, None, 0, 1, None, None, denoiser)
    host.script_callbacks.cfg_denoiser_callback(params)
    assert params.image_cond is conditioning and host.reported == []


def test_steps_of_an_unknown_job(host: Host) -> None:
    """Another extension calls the callbacks on its own: of no concern, unless a depth checkpoint is at work."""
    params = host.script_callbacks.CFGDenoiserParams(None, None, None, 0, 1, None, None)
    host.script_callbacks.cfg_denoiser_callback(params)
    (reported,) = host.reported
    assert "does not tell which job" in reported
    host.select("plain")
    host.script_callbacks.cfg_denoiser_callback(params)
    assert host.reported == [reported]


def refined(host: Host, *pictures: Any, **fields: Any) -> Any:
    host.select("plain")
    return host.img2img(*pictures, steps=4, refiner_checkpoint="depth", refiner_switch_at=0.5, **fields)


def test_a_depth_checkpoint_as_refiner(host: Host) -> None:
    """It comes in at half of the steps, where the host has made no conditioning for it."""
    p = refined(host, ramp(), blobs(2), batch_size=2, prompt="a AND b")
    host.run(p)
    assert [step.shape for step in host.seen] == [(6, 1, 8, 12)] * 2
    for step in host.seen:
        assert torch.equal(step, host.seen[0])
        assert torch.equal(step[0], step[1]) and torch.equal(step[2], step[3]) and torch.equal(step[4], step[0])
    refined_rows = host.seen[0][[0, 2], 0].clone()
    host.select("depth")
    host.run(host.img2img(ramp(), blobs(2), batch_size=2))
    assert torch.equal(refined_rows, host.seen[-1][:2, 0])
    assert p.comments == {} and host.left_on(p) == [] and host.reported == []
    assert "Depth to image" not in p.extra_generation_params


@pytest.mark.parametrize(("base", "refiner"), [("plain", "depth"), ("depth", "plain")])
def test_a_refiner_in_each_batch(host: Host, base: str, refiner: str) -> None:
    """The sampler of img2img lives through all batches and would keep the UNet of the refiner."""
    host.select(base)
    fields = {"n_iter": 3, "steps": 4, "refiner_checkpoint": refiner, "refiner_switch_at": 0.5}
    result = host.run(host.img2img(ramp(), **fields))
    assert len(result.images) == 3 and host.reported == []
    if refiner == "depth":
        assert [step.shape for step in host.seen] == [(2, 1, 8, 12)] * 2
    host.select(base)
    without_callback(host)
    with pytest.raises(RuntimeError, match=f"meta|{SHAPES}"):
        host.run(host.img2img(ramp(), **fields))


def test_the_host_alone_fails_with_that_refiner(host: Host) -> None:
    p = refined(host, ramp())
    without_callback(host)
    with pytest.raises(RuntimeError, match=SHAPES):
        host.run(p)


def test_a_refiner_and_skipped_rows(host: Host) -> None:
    host.run(refined(host, ramp(), s_min_uncond=9.0))
    assert [step.shape[0] for step in host.seen] == [2, 1]


def test_a_refiner_for_a_given_map(host: Host, tmp_path: Path) -> None:
    depth_map = map_file(depth_of(blobs(3)), tmp_path / "map.npy").read_bytes()
    p = refined(host, ramp(), args=({"depth_map": depth_map},))
    host.run(p)
    assert host.seen[0].shape == (2, 1, 8, 12) and host.seen[0].max() == 1
    host.run(host.img2img(blobs(3)))
    assert p.extra_generation_params["Depth from"] == "map"


def test_a_refiner_with_depth_switched_off(host: Host) -> None:
    p = refined(host, ramp(), args=({"enabled": False},))
    host.run(p)
    assert host.seen[0].shape == (2, 1, 8, 12) and not host.seen[0].any()


def test_a_refiner_in_txt2img_runs_without_depth_and_says_so(host: Host) -> None:
    host.select("plain")
    p = host.txt2img(steps=4, refiner_checkpoint="depth", refiner_switch_at=0.5, batch_size=2)
    host.run(p)
    assert host.seen[0].shape == (4, 1, 8, 12) and not host.seen[0].any()
    (comment,) = p.comments
    assert "ran without depth" in comment and "no depth map is given" in comment


def test_a_refiner_whose_network_fails(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    network = __import__("ldm.modules.midas.api", fromlist=["api"]).MiDaSInference
    monkeypatch.setattr(network, "forward", lambda self, x: x[:, :1] * float("nan"))
    p = refined(host, ramp())
    with pytest.raises(Depth2ImgError, match="NaN"):
        host.run(p)
    assert host.seen == [] and host.reported == [] and host.left_on(p) == []


def test_a_plain_checkpoint_as_refiner(host: Host) -> None:
    """It ignores the conditioning; nothing is to be done."""
    p = host.img2img(ramp(), steps=4, refiner_checkpoint="plain", refiner_switch_at=0.5)
    host.run(p)
    assert host.model.sd_checkpoint_info.name_for_extra == "plain" and len(host.seen) == 2
    assert p.comments == {} and host.reported == []


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
@pytest.mark.parametrize(("truncate_x", "truncate_y"), [(4, 0), (0, 3), (5, 2)])
def test_truncation(host: Host, tmp_path: Path, upscaler: str, truncate_x: int, truncate_y: int) -> None:
    """The host cuts the latent of a hires pass after it has made the conditioning."""
    depth_map = map_file(depth_of(ramp()), tmp_path / "map.npy").read_bytes()
    p = host.txt2img(args=({"depth_map": depth_map},), enable_hr=True, hr_upscaler=upscaler)
    p.hr_upscale_to_x, p.hr_upscale_to_y = 192, 128
    p.latent_scale_mode = {"mode": "bilinear", "antialias": False} if upscaler == "Latent" else None
    host.run(p)
    whole = host.seen[-1]
    assert whole.shape[-2:] == (16, 24)
    p.truncate_x, p.truncate_y = truncate_x, truncate_y
    host.run(p)
    cut = host.seen[-1]
    left, top = truncate_x // 2, truncate_y // 2
    assert cut.shape[-2:] == (16 - truncate_y, 24 - truncate_x)
    assert torch.equal(cut, whole[..., top : top + cut.shape[-2], left : left + cut.shape[-1]])
    without_callback(host)
    with pytest.raises(RuntimeError, match=SHAPES):
        host.run(p)


def test_truncation_with_and_prompts_in_a_batch(host: Host, tmp_path: Path) -> None:
    depth_map = map_file(depth_of(ramp()), tmp_path / "map.npy").read_bytes()
    p = host.txt2img(args=({"depth_map": depth_map},), enable_hr=True, batch_size=2, prompt="a AND b", s_min_uncond=9.0)
    p.hr_upscale_to_x, p.hr_upscale_to_y, p.truncate_x = 192, 128, 7
    host.run(p)
    assert [step.shape for step in host.seen[-2:]] == [(6, 1, 16, 17), (4, 1, 16, 17)]


def test_truncated_on_its_own(host: Host) -> None:
    given = torch.arange(2 * 7 * 9.0).reshape(2, 1, 7, 9)
    truncated = host.ours("jobs.denoise").truncated
    p = SimpleNamespace(truncate_x=3, truncate_y=1)
    assert torch.equal(truncated(p, given, torch.zeros(2, 4, 6, 6)), given[:, :, 0:6, 1:7])
    assert torch.equal(truncated(SimpleNamespace(), given, torch.zeros(2, 4, 7, 9)), given)


def test_the_fitted_conditioning_is_kept_for_the_next_steps(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The depth network of a refiner runs once per picture, and the maps are made once."""
    maps = host.ours("jobs.maps")
    made: list[Any] = []
    inner = maps.condition
    monkeypatch.setattr(maps, "condition", lambda *args: made.append(args) or inner(*args))
    host.select("plain")
    host.run(host.img2img(ramp(), steps=10, refiner_checkpoint="depth", refiner_switch_at=0.3))
    assert len(host.seen) == 7 and len(made) == 1
    assert all(np.array_equal(step, host.seen[0]) for step in host.seen)
