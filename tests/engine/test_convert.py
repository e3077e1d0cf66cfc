"""There and back between the layouts: every tensor accounted for, bit for bit."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from depth2img.checkpoints import convert, open_clip_config, open_model, to_folder, to_single_file
from depth2img.checkpoints.model import ASIDE
from depth2img.errors import CheckpointError
from tests.engine import small


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def random_single(path: Path, *, penultimate: bool) -> dict[str, torch.Tensor]:
    """A single file as training leaves it: every tensor random, among them those that only this layout has."""
    to_single_file(small.model(penultimate=penultimate), path)
    generator = torch.Generator().manual_seed(3)
    state = {key: torch.randn(value.shape, generator=generator) for key, value in load_file(path).items()}
    state["model_ema.num_updates"] = torch.tensor(7, dtype=torch.int32)
    state["half"] = torch.ones(3, dtype=torch.float16)
    save_file(state, path, metadata={"format": "pt"})
    return state


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


@pytest.mark.parametrize("midas", [True, False], ids=["midas", "tiny net"])
def test_folder_to_file_and_back(tmp_path: Path, midas: bool) -> None:
    to_folder(small.model(midas=midas), tmp_path / "one")
    convert(tmp_path / "one", tmp_path / "file.safetensors")
    convert(tmp_path / "file.safetensors", tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")


@pytest.mark.parametrize("penultimate", [True, False])
def test_file_to_folder_and_back(tmp_path: Path, penultimate: bool) -> None:
    state = random_single(tmp_path / "one.safetensors", penultimate=penultimate)
    convert(tmp_path / "one.safetensors", tmp_path / "folder")
    ledger = convert(tmp_path / "folder", tmp_path / "two.safetensors")
    assert same(load_file(tmp_path / "two.safetensors"), state)
    assert "re-created" not in ledger.counts()
    layer = "cond_stage_model.model.transformer.resblocks.3.ln_1.weight"
    assert (layer in load_file(tmp_path / "folder" / ASIDE)) == penultimate


def test_there_and_back_as_a_checkpoint(tmp_path: Path) -> None:
    state = random_single(tmp_path / "one.safetensors", penultimate=True)
    torch.save({"state_dict": state, "global_step": 3}, tmp_path / "one.ckpt")
    convert(tmp_path / "one.ckpt", tmp_path / "folder")
    convert(tmp_path / "folder", tmp_path / "two.safetensors")
    assert same(load_file(tmp_path / "two.safetensors"), state)


@pytest.mark.parametrize("penultimate", [True, False])
def test_ledger_names_every_tensor_once(tmp_path: Path, penultimate: bool) -> None:
    model = small.model(penultimate=penultimate)
    up = to_single_file(model, tmp_path / "file.safetensors")
    down = convert(tmp_path / "file.safetensors", tmp_path / "folder")
    for ledger in (up, down):
        ldm = [entry.ldm for entry in ledger.tensors]
        other = [name for entry in ledger.tensors for name in entry.other]
        assert sorted(ldm) == sorted(load_file(tmp_path / "file.safetensors"))
        assert sorted(other) == sorted(f"{name}/{key}" for name, part in model.parts.items() for key in part.keys())
    # Four schedule-free names and a layer of twelve where the last is never run, beside the twelve of the schedule.
    assert up.counts()["re-created"] == 12 + 2 + 2 + 12 * penultimate
    assert json.loads(json.dumps(up.to_json()))["counts"] == up.counts()


def test_changed_fillers_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    to_single_file(small.model(penultimate=True), path)
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    state = load_file(path)
    state["cond_stage_model.model.text_projection"] += 1
    save_file(state, path, metadata=metadata)
    convert(path, tmp_path / "folder")
    kept = load_file(tmp_path / "folder" / ASIDE)
    assert list(kept) == ["cond_stage_model.model.text_projection"]
    convert(tmp_path / "folder", tmp_path / "again.safetensors")
    # The folder does not say that the file had an unused layer; without it, all that is run is still the same.
    again = load_file(tmp_path / "again.safetensors")
    assert all(torch.equal(again[key], state[key]) for key in again)


def test_published_folder_s_old_names_and_buffers(tmp_path: Path) -> None:
    to_folder(small.model(), tmp_path / "new")
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    vae = tmp_path / "old" / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(vae)
    for old, new in {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}.items():
        state = {key.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): value for key, value in state.items()}
    assert any(".query." in key for key in state)
    save_file(state, vae)
    text = tmp_path / "old" / "text_encoder" / "model.safetensors"
    save_file(load_file(text) | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, text)
    convert(tmp_path / "new", tmp_path / "new.safetensors")
    ledger = convert(tmp_path / "old", tmp_path / "old.safetensors")
    assert same(load_file(tmp_path / "new.safetensors"), load_file(tmp_path / "old.safetensors"))
    assert ledger.counts()["constant"] == 1


def test_yaml_beside_alone_describes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    to_single_file(small.model(penultimate=True), path)
    save_file(load_file(path), path, metadata={"format": "pt"})
    config = open_model(path).config
    wanted = small.config(penultimate=True)
    assert config.penultimate
    for name in ("unet", "text_encoder", "depth_estimator", "scheduler"):
        assert getattr(config, name) == getattr(wanted, name)
    assert config.vae | {"sample_size": 128} == wanted.vae


def test_yaml_says_what_stability_s_says(tmp_path: Path) -> None:
    to_single_file(small.model(penultimate=True), tmp_path / "file.safetensors")
    described = yaml.safe_load((tmp_path / "file.yaml").read_text())["model"]
    params = described["params"]
    assert described["target"] == "ldm.models.diffusion.ddpm.LatentDepth2ImageDiffusion"
    assert params["conditioning_key"] == "hybrid"
    assert params["unet_config"]["params"]["in_channels"] == 5
    assert params["depth_stage_config"]["params"] == {"model_type": "dpt_hybrid"}
    assert params["cond_stage_config"]["params"]["layer"] == "penultimate"
    arch = params["cond_stage_config"]["params"]["arch"]
    assert open_clip_config(arch)["text_cfg"]["layers"] == 4
    assert open_clip_config("ViT-H-14") is None


def test_sizes_of_the_written_folder_load_in_the_original_classes(tmp_path: Path) -> None:
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer, DPTForDepthEstimation, DPTImageProcessor

    to_folder(small.model(), tmp_path / "model")
    for kind, name in (
        (UNet2DConditionModel, "unet"),
        (AutoencoderKL, "vae"),
        (CLIPTextModel, "text_encoder"),
        (DPTForDepthEstimation, "depth_estimator"),
    ):
        loaded, notes = kind.from_pretrained(tmp_path / "model" / name, output_loading_info=True)
        assert not any(notes[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert same(dict(loaded.state_dict()), small.model().state(name))  # type: ignore[arg-type]
    for kind, name in (
        (CLIPTokenizer, "tokenizer"),
        (DPTImageProcessor, "feature_extractor"),
        (DDIMScheduler, "scheduler"),
    ):
        kind.from_pretrained(tmp_path / "model" / name)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.fixture
def single(tmp_path: Path) -> Path:
    path = tmp_path / "file.safetensors"
    to_single_file(small.model(midas=False), path)
    return path


def test_truncated_file(single: Path) -> None:
    single.write_bytes(single.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="truncated"):
        open_model(single)


def test_wrong_kinds_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "b.safetensors").write_text("hello")
    (tmp_path / "c.ckpt").write_text("hello")
    (tmp_path / "d").mkdir()
    save_file({"lora_up": torch.ones(2)}, tmp_path / "e.safetensors")
    for name, words in {
        "a.txt": "neither a safetensors nor a PyTorch file",
        "b.safetensors": "neither a safetensors nor a PyTorch file",
        "c.ckpt": "neither a safetensors nor a PyTorch file",
        "d": "not a model in the diffusers layout",
        "e.safetensors": "not a Stable Diffusion checkpoint",
        "missing.ckpt": "There is no",
    }.items():
        with pytest.raises(CheckpointError, match=words):
            open_model(tmp_path / name)


class Foreign:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this must not run",))


def test_pickle_that_wants_to_run_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.ckpt").write_bytes(pickle.dumps(Foreign()))
    torch.save({"state_dict": {"a": torch.ones(1)}, "more": Foreign()}, tmp_path / "bad2.ckpt")
    for name in ("bad.ckpt", "bad2.ckpt"):
        with pytest.raises(CheckpointError, match="run code"):
            open_model(tmp_path / name)
    assert capsys.readouterr().out == ""


def rewritten(path: Path, change: Any) -> None:
    """The file without its own description, its tensors changed."""
    state = load_file(path)
    change(state)
    save_file(state, path)


def test_missing_tensors_are_counted(single: Path) -> None:
    rewritten(single, lambda state: state.pop("model.diffusion_model.out.0.bias"))
    with pytest.raises(CheckpointError, match=r"1 of \d+ tensors are missing.*out\.0\.bias"):
        open_model(single)


def test_plain_checkpoint_is_no_depth_checkpoint(single: Path) -> None:
    key = "model.diffusion_model.input_blocks.0.0.weight"
    rewritten(single, lambda state: state.update({key: state[key][:, :4].contiguous()}))
    with pytest.raises(CheckpointError, match="4 input channels"):
        open_model(single)


def test_file_without_depth_network(single: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        for key in [key for key in state if key.startswith("depth_model.")]:
            del state[key]

    rewritten(single, change)
    with pytest.raises(CheckpointError, match="no depth network"):
        open_model(single)


def test_text_encoder_in_the_layout_of_sd1(single: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        for key in [key for key in state if key.startswith("cond_stage_model.")]:
            state[key.replace("cond_stage_model.model", "cond_stage_model.transformer")] = state.pop(key)

    rewritten(single, change)
    with pytest.raises(CheckpointError, match="layout of Stable Diffusion 1"):
        open_model(single)


def test_bad_yaml(single: Path) -> None:
    rewritten(single, lambda state: None)
    beside = single.with_suffix(".yaml")
    good = beside.read_text()
    for text in ("][", "model: 3", "model: {params: {}}", "!!python/object/apply:os.system [true]", "x" * 2_000_000):
        beside.write_text(text)
        with pytest.raises(CheckpointError):
            open_model(single)
    beside.write_text(good.replace("depth2img.embedded.depth_net.TinyDepthNet", "os.system"))
    with pytest.raises(CheckpointError, match="unknown"):
        open_model(single)


def test_widths_that_contradict_the_yaml(single: Path) -> None:
    rewritten(single, lambda state: None)
    beside = single.with_suffix(".yaml")
    beside.write_text(beside.read_text().replace("model_channels: 32", "model_channels: 64"))
    with pytest.raises(CheckpointError, match="not as wide"):
        open_model(single)


def test_folder_with_parts_too_many(tmp_path: Path) -> None:
    to_folder(small.model(midas=False), tmp_path / "model")
    weights = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(weights) | {"adapter": torch.ones(1)}, weights)
    with pytest.raises(CheckpointError, match="no place for"):
        open_model(tmp_path / "model")


def test_nothing_is_left_of_a_failed_conversion(tmp_path: Path, single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    for target in ("new.safetensors", "folder"):
        with pytest.raises(KeyboardInterrupt):
            convert(single, tmp_path / target, fail)
        assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_targets_that_cannot_be_written(tmp_path: Path, single: Path) -> None:
    with pytest.raises(CheckpointError, match="exists already"):
        convert(single, tmp_path)
    with pytest.raises(CheckpointError, match="safetensors only"):
        convert(single, tmp_path / "new.ckpt")
    for target in ("nowhere/new.safetensors", "nowhere/folder"):
        with pytest.raises(CheckpointError, match="cannot be used"):
            convert(single, tmp_path / target)
