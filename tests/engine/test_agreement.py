"""The same weights in Stability's own `ldm` and in diffusers give the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from depth2img.checkpoints import open_clip_config, to_single_file
from depth2img.checkpoints.layout.tokenizer import token_ids
from tests.engine import small

pytest.importorskip("ldm", reason="Stability's ldm is not installed (tests/requirements-no-deps.txt)")

# fp32 sums in another order; seen are 1e-6 to 2e-5 at activations of size 1.
CLOSE = 1e-4


@pytest.fixture(scope="module", params=[False, True], ids=["last", "penultimate"])
def single(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Any]:
    """A written single file, read back: its tensors, and its YAML's parameters."""
    path = tmp_path_factory.mktemp("single") / "small.safetensors"
    to_single_file(small.model(penultimate=request.param), path)
    return load_file(path), yaml.safe_load(path.with_suffix(".yaml").read_text())["model"]["params"]


def check(one: torch.Tensor, other: torch.Tensor, record: Any, *, close: float = CLOSE) -> None:
    assert one.shape == other.shape
    assert float(one.std()) > 1e-3, "a constant would agree with anything"
    apart = float((one - other).abs().max())
    record("largest difference", f"{apart:.1e} at a deviation of {float(one.std()):.2f}")
    assert apart <= close


@torch.no_grad()
def test_unet_predicts_the_same_noise(single: Any, record_property: Any) -> None:
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    state, params = single
    theirs = UNetModel(**params["unet_config"]["params"]).eval()
    theirs.load_state_dict(small.part(state, "model.diffusion_model."), strict=True)
    latent, text = torch.randn(2, 5, 12, 20), torch.randn(2, 77, 64)
    steps = torch.tensor([3, 951])
    ours = small.modules()["unet"](latent, steps, encoder_hidden_states=text).sample
    check(theirs(latent, steps, context=text), ours, record_property)


@torch.no_grad()
def test_autoencoder_gives_the_same_picture_and_latent(single: Any, record_property: Any) -> None:
    from ldm.models.autoencoder import AutoencoderKL

    state, params = single
    theirs = AutoencoderKL(**params["first_stage_config"]["params"]).eval()
    theirs.load_state_dict(small.part(state, "first_stage_model."), strict=True)
    ours = small.modules()["vae"]
    latent, picture = torch.randn(1, 4, 6, 10), torch.rand(1, 3, 48, 80) * 2 - 1
    check(theirs.decode(latent), ours.decode(latent).sample, record_property)
    check(theirs.encode(picture).parameters, ours.encode(picture).latent_dist.parameters, record_property)


@torch.no_grad()
def test_text_states_are_the_same(single: Any, record_property: Any) -> None:
    state, params = single
    theirs = small.ldm_text(params["cond_stage_config"]["params"])
    theirs.model.load_state_dict(small.part(state, "cond_stage_model.model."), strict=True)
    texts = ["a red box on a blue floor", "", "Fog; 3 PYRAMIDS, café! " * 30]
    ours = small.modules()["text_encoder"](token_ids(texts)).last_hidden_state
    check(theirs(texts), ours, record_property)


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (64, 96), (128, 32)], ids=str)
def test_depth_is_the_same(single: Any, size: tuple[int, int], record_property: Any) -> None:
    from depth2img.diffusion.networks import DptNetwork

    state, _ = single
    theirs = small.ldm_midas(small.DPT)
    theirs.load_state_dict(small.part(state, "depth_model.model."), strict=True)
    picture = torch.rand(1, 3, *size) * 2 - 1
    check(theirs(picture)[:, None], DptNetwork(small.modules()["depth_estimator"])(picture), record_property)


def test_noise_schedule_is_the_same(single: Any) -> None:
    from ldm.modules.diffusionmodules.util import make_beta_schedule

    state, params = single
    betas = make_beta_schedule("linear", params["timesteps"], params["linear_start"], params["linear_end"])
    assert float((state["betas"] - torch.tensor(betas).float()).abs().max()) <= 1e-9
    kept = torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64), 0).float()
    assert float((state["alphas_cumprod"] - kept).abs().max()) <= 1e-7


@torch.no_grad()
def test_whole_model_builds_from_its_yaml_and_generates_the_same(
    tmp_path: Path, monkeypatch: Any, record_property: Any
) -> None:
    """`LatentDepth2ImageDiffusion` as the YAML says, strictly loaded; a hybrid step agrees with diffusers' UNet."""
    import sys

    import open_clip
    import pytorch_lightning.utilities.rank_zero as rank_zero
    from omegaconf import OmegaConf

    # Since Lightning 2 the function is there; ldm asks for it where it was in 2022.
    monkeypatch.setitem(sys.modules, "pytorch_lightning.utilities.distributed", rank_zero)
    from ldm.util import instantiate_from_config

    path = tmp_path / "whole.safetensors"
    to_single_file(small.model(midas=False), path)
    config = OmegaConf.load(path.with_suffix(".yaml"))
    config.model.params.cond_stage_config.params.device = "cpu"
    arch = config.model.params.cond_stage_config.params.arch
    described = tmp_path / f"{arch}.json"
    described.write_text(json.dumps(open_clip_config(arch)))
    open_clip.add_model_config(described)
    whole = instantiate_from_config(config.model).eval()
    missing, unexpected = whole.load_state_dict(load_file(path), strict=False)
    assert not unexpected
    assert not missing
    for block in whole.cond_stage_model.model.transformer.resblocks:
        block.attn.batch_first = False

    networks = small.modules(midas=False)
    latent, depth, steps = torch.randn(2, 4, 8, 12), torch.rand(2, 1, 8, 12) * 2 - 1, torch.tensor([3, 951])
    text = whole.get_learned_conditioning(["a red box", ""])
    theirs = whole.apply_model(latent, steps, {"c_concat": [depth], "c_crossattn": [text]})
    states = networks["text_encoder"](token_ids(["a red box", ""])).last_hidden_state
    ours = networks["unet"](torch.cat([latent, depth], 1), steps, encoder_hidden_states=states).sample
    check(theirs, ours, record_property)
    picture = torch.rand(1, 3, 64, 96) * 2 - 1
    check(whole.depth_model(picture), networks["depth_estimator"](picture), record_property, close=0.0)
