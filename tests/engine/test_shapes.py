"""The shapes that a single file must have, against the networks that read it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from depth2img.checkpoints import ModelConfig, inspect, to_single_file
from depth2img.checkpoints.inspection.inspect import config_of
from depth2img.checkpoints.layout.key_map import DPT_HYBRID
from depth2img.checkpoints.layout.ldm_only import unused
from depth2img.checkpoints.layout.ldm_yaml import SD2
from depth2img.checkpoints.storage.opening import open_checkpoint
from tests.engine import small


def test_full_size_against_stabilitys_own_classes() -> None:
    pytest.importorskip("ldm", reason="needs stable-diffusion-sdkit (tests/requirements-no-deps.txt)")
    from tests.engine.test_full_size import ldm_networks

    there = {
        prefix + name: tuple(value.shape)
        for prefix, network in ldm_networks().items()
        for name, value in network.state_dict().items()
    }
    full = dataclasses.replace(SD2, depth_estimator=dict(DPT_HYBRID))
    ours = {**full.required(), **unused(full)}
    schedule = {name for name in ours if "." not in name}
    assert len(schedule) == 12 and len(there) == 1596
    assert {name: shape for name, shape in ours.items() if name not in schedule} == there


@pytest.mark.parametrize("penultimate", [True, False])
@pytest.mark.parametrize("midas", [True, False])
def test_small_against_a_written_file(tmp_path: Path, midas: bool, penultimate: bool) -> None:
    model = small.model(midas=midas, penultimate=penultimate)
    path = tmp_path / "small.safetensors"
    to_single_file(model, path)
    written = open_checkpoint(path)
    ours = {**model.config.required(), **unused(model.config)}
    there = {name: tuple(written.shape(name)) for name in written.keys()}
    if not midas:
        there = {name: shape for name, shape in there.items() if not name.startswith("depth_model.")}
    differing = {name for name in ours.keys() | there.keys() if ours.get(name) != there.get(name)}
    assert not {name for name in differing if not name.endswith("pretrained.model.head.weight")}
    report = inspect(path)
    assert report.usable and report.midas == ("inside" if midas else "other")
    assert report.sidecar is not None and report.sidecar.state == "right"


def test_widths_are_read_from_the_file(tmp_path: Path) -> None:
    """Without metadata, from a few shapes: Stable Diffusion 2's config, narrower."""
    from tests.library import sparse

    narrow: ModelConfig = dataclasses.replace(
        sparse.FULL,
        unet={**SD2.unet, "block_out_channels": [64, 128, 256, 256], "cross_attention_dim": 256},
        vae={**SD2.vae, "block_out_channels": [32, 64, 128, 128]},
        text_encoder=small.text_config(width=256, heads=4, layers=9),
    )
    path = sparse.write(tmp_path / "narrow.safetensors", {**narrow.required(), **unused(narrow)})
    found = config_of(open_checkpoint(path))
    assert found.required() == narrow.required()
    assert [fault.code for fault in inspect(path).faults] == ["yaml-none"]
