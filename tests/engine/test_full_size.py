"""Stable Diffusion 2's depth model at full size, with random weights: 1,608 tensors, 2.9 GB in float16."""

from __future__ import annotations

import gc
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from depth2img.checkpoints import Model, convert, open_model
from depth2img.checkpoints.layout.ldm_only import schedule
from depth2img.checkpoints.layout.ldm_yaml import SD2_YAML
from depth2img.checkpoints.layout.tokenizer import token_ids
from depth2img.diffusion.networks import DptNetwork, public_config
from tests.engine import small

pytestmark = pytest.mark.slow
pytest.importorskip("ldm", reason="Stability's ldm is not installed (tests/requirements-no-deps.txt)")

PARAMS = SD2_YAML["model"]["params"]
# fp32 sums in another order at full width; the bound is the issue's.
CLOSE = 1e-4


def ldm_networks() -> dict[str, nn.Module]:
    """Stability's own classes by their prefix in the file, without weights."""
    import open_clip
    from ldm.models.autoencoder import AutoencoderKL
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    with torch.device("meta"):
        text = open_clip.create_model("ViT-H-14", pretrained=None, device="meta")
        del text.visual
        return {
            "model.diffusion_model.": UNetModel(**PARAMS["unet_config"]["params"]),
            "first_stage_model.": AutoencoderKL(**PARAMS["first_stage_config"]["params"]),
            "cond_stage_model.model.": text,
            "depth_model.model.": ldm_midas(),
        }


def ldm_midas() -> nn.Module:
    from ldm.modules.midas.midas.dpt_depth import DPTDepthModel

    with warnings.catch_warnings(), torch.device("cpu"):  # timm reads values while it builds
        warnings.simplefilter("ignore")  # and has renamed MiDaS' backbone
        network: nn.Module = DPTDepthModel(path=None, backbone="vitb_rn50_384", non_negative=True)
    return network


def random_values(name: str, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """float16 values that keep the size of activations."""
    noise = torch.randn(like.shape, generator=generator)
    if like.ndim < 2:
        return ((1.0 if name.endswith("weight") else 0.0) + 0.1 * noise).half()
    scale = 0.02 if "embedding" in name or "embed" in name.rpartition(".")[2] else like[0].numel() ** -0.5
    return (noise * scale).half()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The single file, removed at the end: pytest would keep it."""
    folder = tmp_path_factory.mktemp("full")
    generator = torch.Generator().manual_seed(0)
    state: dict[str, torch.Tensor] = schedule(small.SCHEDULER)
    for prefix, network in ldm_networks().items():
        for key, value in network.state_dict().items():
            state[prefix + key] = random_values(key, value, generator)
    # A ReLU ends MiDaS; without this half of the map would be flat.
    state["depth_model.model.scratch.output_conv.4.weight"].abs_()
    state["depth_model.model.scratch.output_conv.4.bias"].fill_(1.0)
    assert len(state) == 1608
    save_file(state, folder / "512-depth-ema.safetensors", metadata={"format": "pt"})
    del state
    gc.collect()
    yield folder / "512-depth-ema.safetensors"
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def model(file: Path) -> Model:
    return open_model(file)


def theirs(file: Path, prefix: str, network: nn.Module) -> nn.Module:
    """One of Stability's networks with the file's weights, in float32."""
    with safe_open(file, framework="pt") as opened:
        state = {key[len(prefix) :]: opened.get_tensor(key).float() for key in opened.keys() if key.startswith(prefix)}
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def ours(model: Model, component: Any, network: nn.Module) -> nn.Module:
    """One of diffusers' or transformers' networks with the same weights, in float32."""
    network.load_state_dict(
        {key: value.float() for key, value in model.state(component).items()}, strict=True, assign=True
    )
    return network.eval().requires_grad_(False)


def check(one: torch.Tensor, other: torch.Tensor, record: Any) -> None:
    assert one.shape == other.shape
    assert float(one.std()) > 1e-3
    apart = float((one - other).abs().max())
    record("largest difference", f"{apart:.2e} at a deviation of {float(one.std()):.2f}")
    assert apart <= CLOSE


def test_file_to_folder_and_back(file: Path, tmp_path: Path) -> None:
    try:
        convert(file, tmp_path / "folder")
        ledger = convert(tmp_path / "folder", tmp_path / "again.safetensors")
        assert len(ledger.tensors) == 1608
        before, after = load_file(file), load_file(tmp_path / "again.safetensors")
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)
        parts = open_model(tmp_path / "folder").parts
        assert {name: sum(torch.Size(p.shape(k)).numel() for k in p.keys()) for name, p in parts.items()} == {
            "unet": 865_913_604,
            "vae": 83_653_863,
            "text_encoder": 340_387_840,
            "depth_estimator": 122_377_985,
        }
    finally:
        shutil.rmtree(tmp_path)


@torch.no_grad()
def test_unet(file: Path, model: Model, record_property: Any) -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        network = UNet2DConditionModel.from_config(public_config(model.config.unet))
    latent, text, steps = torch.randn(1, 5, 16, 24), torch.randn(1, 77, 1024), torch.tensor([951])
    mine = ours(model, "unet", network)(latent, steps, encoder_hidden_states=text).sample
    del network
    gc.collect()
    their = theirs(file, "model.diffusion_model.", ldm_networks()["model.diffusion_model."])
    check(their(latent, steps, context=text), mine, record_property)


@torch.no_grad()
def test_autoencoder(file: Path, model: Model, record_property: Any) -> None:
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        network = AutoencoderKL.from_config(public_config(model.config.vae))
    latent = torch.randn(1, 4, 16, 24)
    their = theirs(file, "first_stage_model.", ldm_networks()["first_stage_model."])
    check(their.decode(latent), ours(model, "vae", network).decode(latent).sample, record_property)


@torch.no_grad()
def test_text(file: Path, model: Model, record_property: Any) -> None:
    from ldm.modules.encoders.modules import FrozenOpenCLIPEmbedder
    from transformers import CLIPTextConfig, CLIPTextModel

    texts = ["a photo of two tigers", "", "an oil painting of a living room, warm light"]
    mine = ours(model, "text_encoder", CLIPTextModel(CLIPTextConfig(**public_config(model.config.text_encoder))))
    states = mine(token_ids(texts)).last_hidden_state
    del mine
    gc.collect()
    their = FrozenOpenCLIPEmbedder(arch="ViT-H-14", version=None, device="cpu", layer="penultimate")
    theirs(file, "cond_stage_model.model.", their.model)
    for block in their.model.transformer.resblocks:
        block.attn.batch_first = False  # as in OpenCLIP 2.20, which Stability's code is written for
    check(their(texts), states, record_property)


@torch.no_grad()
@pytest.mark.parametrize("size", [(384, 384), (384, 512)], ids=str)
def test_depth(file: Path, model: Model, record_property: Any, size: tuple[int, int]) -> None:
    from transformers import DPTConfig, DPTForDepthEstimation

    picture = torch.rand(1, 3, *size) * 2 - 1
    mine = DptNetwork(
        ours(model, "depth_estimator", DPTForDepthEstimation(DPTConfig(**public_config(model.config.depth_estimator))))
    )
    check(theirs(file, "depth_model.model.", ldm_midas())(picture)[:, None], mine(picture), record_property)


def test_engine_generates_from_the_single_file(file: Path) -> None:
    from depth2img.diffusion import Engine, Settings

    engine = Engine.open(file, device="cpu", dtype="bfloat16")
    assert engine.networks.side == 512
    picture = torch.randint(0, 256, (64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)).numpy()
    [result] = engine.generate([picture], Settings(prompt="two tigers", steps=2, width=96, height=64))
    assert result.depth is not None
    assert (result.depth.height, result.depth.width) == (256, 384)
    assert result.picture.shape == (64, 96, 3)
    assert result.picture.std() > 1
