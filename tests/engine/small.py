"""Small random models of Stable Diffusion 2's config, in diffusers' and in Stability's own classes."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from depth2img.checkpoints import Model, ModelConfig
from depth2img.checkpoints.layout.config import TINY_DEPTH
from depth2img.checkpoints.layout.ldm_yaml import open_clip_config, scheduler_config, text_config
from depth2img.checkpoints.storage.tensors import InMemory
from depth2img.embedded.depth_net import TinyDepthNet

UNET = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 16,
    "in_channels": 5,
    "out_channels": 4,
    "block_out_channels": [32, 64, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "cross_attention_dim": 64,
    "attention_head_dim": [1, 2, 2],
    "use_linear_projection": True,
    "norm_num_groups": 32,
}
VAE = {
    "_class_name": "AutoencoderKL",
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [32, 32, 64, 64],
    "layers_per_block": 1,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "sample_size": 128,
    "scaling_factor": 0.3,
}
TEXT = text_config(width=64, heads=2, layers=3)
SCHEDULER = scheduler_config(beta_start=0.00085, beta_end=0.012, steps=1000, prediction="epsilon")
DPT: dict[str, Any] = {
    "architectures": ["DPTForDepthEstimation"],
    "model_type": "dpt",
    "is_hybrid": True,
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 12,
    "num_attention_heads": 1,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "image_size": 64,
    "patch_size": 16,
    "num_channels": 3,
    "qkv_bias": True,
    "backbone_out_indices": [2, 5, 8, 11],
    "neck_hidden_sizes": [128, 256, 64, 64],
    "neck_ignore_stages": [0, 1],
    "fusion_hidden_size": 32,
    "readout_type": "project",
    "reassemble_factors": [1, 1, 1, 0.5],
    "backbone_featmap_shape": [1, 256, 4, 4],
    "backbone_config": {
        "model_type": "bit",
        "layer_type": "bottleneck",
        "global_padding": "same",
        "embedding_dynamic_padding": True,
        "embedding_size": 32,
        "hidden_sizes": [128, 256, 256],
        "depths": [1, 1, 2],
        "num_groups": 32,
        "out_features": ["stage1", "stage2", "stage3"],
    },
}
TINY_NET = {"target": TINY_DEPTH, "channels": [8, 16, 16]}


def config(*, midas: bool = True, penultimate: bool = False) -> ModelConfig:
    """A small config; without MiDaS the depth network is a small `TinyDepthNet`."""
    return ModelConfig(UNET, VAE, TEXT, DPT if midas else TINY_NET, SCHEDULER, penultimate)


def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Draw every parameter, so that none is zero and activations keep their scale; in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        fan_in = max(1, value[0].numel()) if value.ndim > 1 else 1
        if value.ndim < 2:
            value.data = (1.0 if name.endswith("weight") else 0.0) + 0.1 * noise
        else:
            value.data = noise * (0.02 if "embedding" in name else fan_in**-0.5)
    return module.eval().requires_grad_(False)


@functools.lru_cache(maxsize=4)
def modules(*, midas: bool = True) -> dict[str, nn.Module]:
    """The four networks in the classes of diffusers and transformers, seeded; shared, so never change them."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, DPTConfig, DPTForDepthEstimation

    def plain(config: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in config.items() if not key.startswith("_")}

    depth = DPTForDepthEstimation(DPTConfig(**DPT)) if midas else TinyDepthNet(tuple(TINY_NET["channels"]))
    networks: dict[str, nn.Module] = {
        "unet": UNet2DConditionModel(**plain(UNET)),
        "vae": AutoencoderKL(**plain(VAE)),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**TEXT)),
        "depth_estimator": depth,
    }
    for seed, network in enumerate(networks.values()):
        randomise(network, seed)
    if midas:
        depth.head.head[4].bias.data.fill_(1.0)  # a ReLU follows; without this half of the map would be flat
        depth.head.head[4].weight.data.abs_()
    return networks


def model(*, midas: bool = True, penultimate: bool = False) -> Model:
    """A small random model in memory."""
    described = config(midas=midas, penultimate=penultimate)
    states = {name: dict(network.state_dict()) for name, network in modules(midas=midas).items()}
    # As folders have the names; transformers 5 itself leaves out the prefix.
    text = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in states["text_encoder"].items()}
    text.pop("text_model.embeddings.position_ids", None)
    states["text_encoder"] = text
    return Model(
        name="small",
        config=described,
        parts={name: InMemory(state) for name, state in states.items()},
        key_map=described.key_map(list(states["depth_estimator"])),
        aside=InMemory({}),
    )


def part(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors of a single file behind a prefix, without it."""
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def ldm_text(params: dict[str, Any]) -> nn.Module:
    """Stability's text encoder as the YAML describes it, on today's OpenCLIP."""
    import open_clip
    from ldm.modules.encoders.modules import FrozenOpenCLIPEmbedder

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{params['arch']}.json"
        path.write_text(json.dumps(open_clip_config(params["arch"])))
        open_clip.add_model_config(path)
    encoder: nn.Module = FrozenOpenCLIPEmbedder(**params, device="cpu")
    for block in encoder.model.transformer.resblocks:
        block.attn.batch_first = False  # as in OpenCLIP 2.20, which Stability's code is written for
    return encoder


def ldm_midas(config: dict[str, Any]) -> nn.Module:
    """MiDaS' DPT-hybrid in Stability's classes, at the widths of `config` instead of the fixed ones."""
    from unittest import mock

    from ldm.modules.midas.midas import blocks, dpt_depth, vit
    from timm.layers import StdConv2dSame
    from timm.models.resnetv2 import ResNetV2
    from timm.models.vision_transformer import VisionTransformer
    from timm.models.vision_transformer_hybrid import HybridEmbed

    bit = config["backbone_config"]

    def encoder(*_: object, hooks: list[int], **__: object) -> tuple[nn.Module, nn.Module]:
        backbone = ResNetV2(
            layers=bit["depths"],
            channels=bit["hidden_sizes"],
            stem_chs=bit["embedding_size"],
            num_classes=0,
            global_pool="",
            preact=False,
            stem_type="same",
            conv_layer=functools.partial(StdConv2dSame, eps=1e-8),
        )
        transformer = VisionTransformer(
            img_size=config["image_size"],
            patch_size=1,
            embed_dim=config["hidden_size"],
            depth=config["num_hidden_layers"],
            num_heads=config["num_attention_heads"],
            embed_layer=functools.partial(HybridEmbed, backbone=backbone),
        )
        neck = config["neck_hidden_sizes"]
        pretrained = vit._make_vit_b_rn50_backbone(
            transformer, features=neck, hooks=hooks, vit_features=config["hidden_size"], use_readout="project"
        )
        return pretrained, blocks._make_scratch(neck, config["fusion_hidden_size"])

    with mock.patch.object(dpt_depth, "_make_encoder", encoder):
        network: nn.Module = dpt_depth.DPTDepthModel(features=config["fusion_hidden_size"])
    return network.eval()
