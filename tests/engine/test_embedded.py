"""The format of the embedded model's file, and its installation into the WebUI."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from depth2img import CheckpointError, embedded
from depth2img.checkpoints import open_checkpoint
from depth2img.checkpoints.layout.config import EMBEDDED
from depth2img.checkpoints.layout.tokenizer import token_ids
from depth2img.diffusion import find
from depth2img.embedded import TABLE, is_embedded, open_embedded
from tests.engine import small

IDS = (0, 320, 736, 49406, 49407)


@pytest.fixture
def compact(tmp_path: Path) -> Path:
    """A small model in the form of the embedded file: float16, trained rows only."""
    path, model = tmp_path / "compact.safetensors", small.model(midas=False)
    state = {f"{name}.{key}": value.clone() for name in model.parts for key, value in model.state(name).items()}
    state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    table = state.pop("text_encoder." + TABLE + "weight")
    state["text_encoder." + TABLE + "rows"] = torch.cat([table[list(IDS)], torch.full((1, 64), 0.5).half()])
    state["text_encoder." + TABLE + "row_ids"] = torch.tensor(IDS, dtype=torch.int32)
    config = model.config
    configs = {
        f"{name}_config": json.dumps(getattr(config, name))
        for name in ("unet", "vae", "text_encoder", "depth_estimator", "scheduler")
    }
    save_file(state, path, metadata={"kind": EMBEDDED, "version": "1", **configs})
    return path


def test_rows_go_to_their_ids(compact: Path) -> None:
    whole = open_embedded(compact).state("text_encoder")[TABLE + "weight"]
    assert whole.shape == (49408, 64)
    assert torch.equal(whole[list(IDS)], load_file(compact)["text_encoder." + TABLE + "rows"][:-1])
    others = torch.ones(49408, dtype=torch.bool)
    others[list(IDS)] = False
    assert bool((whole[others] == 0.5).all())


def test_compact_file_opens_by_its_path_too(compact: Path) -> None:
    assert is_embedded(open_checkpoint(compact))
    assert find(compact).config == small.config(midas=False)


def test_install_writes_file_and_yaml(compact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "open_embedded", lambda: open_embedded(compact))
    embedded.install(tmp_path / "depth2img-tiny.safetensors")
    described = yaml.safe_load((tmp_path / "depth2img-tiny.yaml").read_text())["model"]["params"]
    assert described["depth_stage_config"]["target"] == "depth2img.embedded.depth_net.TinyDepthNet"
    assert load_file(tmp_path / "depth2img-tiny.safetensors").keys() > {"betas", "cond_stage_model.model.ln_final.bias"}
    assert not is_embedded(open_checkpoint(tmp_path / "depth2img-tiny.safetensors"))


def test_damaged_files(compact: Path, tmp_path: Path) -> None:
    state = load_file(compact)
    save_file(state, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="not the embedded model"):
        open_embedded(tmp_path / "foreign.safetensors")
    save_file(state, tmp_path / "bare.safetensors", metadata={"kind": EMBEDDED})
    with pytest.raises(CheckpointError, match="unet_config"):
        open_embedded(tmp_path / "bare.safetensors")
    with pytest.raises(CheckpointError, match="There is no"):
        open_embedded(tmp_path / "missing.safetensors")


@pytest.mark.parametrize(
    "text", ["", "a red box", "Fog; 3 PYRAMIDS, café!", "!!! wow !", "日本 🎨 naïve &amp; <b>", "word " * 200, "a\n\tb"]
)
def test_tokens_are_openclip_s(text: str) -> None:
    import open_clip

    assert torch.equal(token_ids([text]), open_clip.tokenize([text]))
