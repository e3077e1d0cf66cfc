"""Settings, and the switch to a depth checkpoint for one job."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np
import pytest

from depth2img import OPTIONS, NoDepthModelError
from tests.webui_fake.standin import Host, depth_of, map_file, ramp


@pytest.fixture
def depth_map(host: Host) -> dict[str, Any]:
    return {"depth_map": map_file(depth_of(ramp()), host.folder / "map.npy").read_bytes()}


def name(host: Host) -> str:
    return host.model.sd_checkpoint_info.name_for_extra


def add_settings(host: Host) -> None:
    host.script_callbacks.fake_call("ui_settings")


def test_the_option(host: Host) -> None:
    add_settings(host)
    info = host.shared.opts.data_labels["depth2img_checkpoint"]
    assert host.shared.opts.depth2img_checkpoint == "None"
    assert info.component is gr.Dropdown and info.section == ("depth2img", "Depth to image")
    assert info.component_args() == {"choices": ["None", *host.sd_models.checkpoint_tiles()]}
    assert info.refresh is host.shared_items.refresh_checkpoints
    host.shared.opts.depth2img_checkpoint = "depth"
    add_settings(host)  # Reload UI
    assert host.shared.opts.depth2img_checkpoint == "depth"


@pytest.mark.parametrize(("value", "expected"), [(None, None), ("", None), ("None", None), ("depth", "depth")])
def test_depth_checkpoint(host: Host, value: str | None, expected: str | None) -> None:
    settings = host.ours("settings")
    assert settings.depth_checkpoint() is None  # never shown, never saved
    host.shared.opts.depth2img_checkpoint = value
    assert settings.depth_checkpoint() == expected


def test_job_after_job_switches(host: Host, depth_map: dict[str, Any]) -> None:
    """After the first job the depth checkpoint is still in memory, but the host goes back to the selected one."""
    host.select("plain")
    host.shared.opts.depth2img_checkpoint = host.sd_models.checkpoint_aliases["depth"].title
    for _ in range(3):
        p = host.img2img(ramp(), args=(depth_map,))
        host.run(p)
        assert name(host) == "depth" and host.seen[-1].max() == 1
        assert host.shared.opts.sd_model_checkpoint == "plain"
    host.run(host.img2img(ramp()))
    assert name(host) == "plain"
    host.run(host.txt2img(args=(depth_map,)))
    assert name(host) == "depth"
    assert host.reported == []


def test_a_selected_depth_checkpoint_is_not_switched_after_its_refiner(host: Host, depth_map: dict[str, Any]) -> None:
    """The refiner is what is in memory when the next job begins."""
    host.select("depth-b")
    host.shared.opts.depth2img_checkpoint = "depth"
    fields = {"refiner_checkpoint": "plain", "refiner_switch_at": 0.5, "steps": 4}
    for _ in range(2):
        p = host.img2img(ramp(), args=(depth_map,), **fields)
        host.run(p)
        assert name(host) == "plain" and "sd_model_checkpoint" not in p.override_settings
    assert str(host.folder / "depth.safetensors") not in host.sd_models.fake_loads[1:]


def test_the_jobs_own_checkpoint_wins(host: Host, depth_map: dict[str, Any]) -> None:
    host.select("plain")
    host.shared.opts.depth2img_checkpoint = "depth"
    p = host.img2img(ramp(), args=(depth_map,), override_settings={"sd_model_checkpoint": "depth-b"})
    host.run(p)
    assert name(host) == "depth-b"


@pytest.mark.parametrize("setting", ["None", "gone", "plain"])
def test_no_switch_no_depth(host: Host, depth_map: dict[str, Any], setting: str) -> None:
    host.select("plain")
    host.shared.opts.depth2img_checkpoint = setting
    with pytest.raises(NoDepthModelError, match="choose one under Settings > Depth to image"):
        host.run(host.img2img(ramp(), args=(depth_map,)))


@pytest.mark.parametrize("args", [(), (False,), ({"near": 7},), ({"gamma": 2.0},)])
def test_only_given_depth_switches(host: Host, args: tuple[Any, ...]) -> None:
    """Not a plain job, not one that is switched off, not one that will be refused."""
    host.select("plain")
    host.shared.opts.depth2img_checkpoint = "depth"
    p = host.img2img(ramp(), args=args)
    if args == ({"near": 7},):
        with pytest.raises(ValueError, match="near"):
            host.run(p)
    else:
        host.run(p)
    assert name(host) == "plain"


def test_with_no_setting_nothing_is_read(
    host: Host, monkeypatch: pytest.MonkeyPatch, depth_map: dict[str, Any]
) -> None:
    """`before_process` costs nothing for who does not use the switch."""
    monkeypatch.setattr(host.ours("jobs.request"), "read_options", lambda args: pytest.fail("read"))
    script = host.ours("script").DepthToImage()
    p = host.img2img(ramp())
    script.before_process(p, depth_map)
    assert p.override_settings == {}


def test_the_given_map_is_what_conditions(host: Host, depth_map: dict[str, Any]) -> None:
    host.select("plain")
    host.shared.opts.depth2img_checkpoint = "depth"
    host.run(host.txt2img(args=(depth_map,)))
    switched = host.seen[-1].numpy()
    host.select("depth")
    host.run(host.txt2img(args=(depth_map,)))
    assert np.array_equal(switched, host.seen[-1])


def test_every_option_has_a_default_of_the_user(host: Host) -> None:
    add_settings(host)
    settings = host.ours("settings")
    for name, option in OPTIONS.items():
        if not option.infotext:
            continue
        info = host.shared.opts.data_labels[settings.default_key(name)]
        assert info.default == option.default == settings.default(name)
        assert info.section == ("depth2img", "Depth to image")


def test_defaults_of_the_user_are_in_the_panel(host: Host) -> None:
    add_settings(host)
    host.shared.opts.depth2img_default_gamma = 1.5
    host.shared.opts.depth2img_default_enabled = False
    host.shared.opts.depth2img_default_under_mask = "map"
    script = host.ours("script").DepthToImage()
    script.is_img2img = True
    with gr.Blocks():
        controls = dict(zip(OPTIONS, script.ui(True), strict=True))
    assert controls["gamma"].value == 1.5 and controls["near"].value == 1.0
    assert controls["enabled"].value is False
    assert controls["depth_map"].visible and not controls["reference"].visible


def test_a_bad_default_is_passed_over(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    add_settings(host)
    host.shared.opts.depth2img_default_gamma = 99
    assert host.ours("settings").default("gamma") == 1.0
    assert "gamma" in caplog.text


@pytest.mark.parametrize(("megabytes", "expected"), [(0, 0), (16, 16 * 2**20), ("x", 256 * 2**20), (-1, 256 * 2**20)])
def test_size_of_the_cache(host: Host, megabytes: Any, expected: int) -> None:
    add_settings(host)
    host.shared.opts.depth2img_cache_mb = megabytes
    assert host.ours("settings").cache_bytes() == expected
    host.run(host.img2img(ramp()))
    assert len(host.ours("jobs.maps").CACHE) == (expected > 0)


def test_colour_map_of_what_is_appended(host: Host) -> None:
    add_settings(host)
    host.shared.opts.depth2img_colour_map = "turbo"
    shown = np.asarray(host.run(host.img2img(ramp(), args=({"append_map": True},))).images[-1])
    assert np.ptp(shown, axis=2).max() > 100
    host.shared.opts.depth2img_colour_map = "no such"
    assert host.ours("settings").colour_map() == "grey"
