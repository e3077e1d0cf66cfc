"""The four networks, in the layouts of diffusers and transformers, at their embedded sizes."""

from __future__ import annotations

from typing import Any, Final

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from depth2img.embedded.depth_net import TinyDepthNet
from tools.embedded_model.loop import normalise_in_place
from tools.embedded_model.tokens import trained_ids

TEXT_WIDTH: Final = 128
LATENT_FACTOR: Final = 8
TRAINING_STEPS: Final = 1000
BETA_START, BETA_END = 0.00085, 0.012

VAE_CONFIG: Final[dict[str, Any]] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [64, 64, 64, 64],
    "layers_per_block": 1,
    "act_fn": "silu",
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 256,
}
UNET_CONFIG: Final[dict[str, Any]] = {
    "sample_size": 32,
    "in_channels": 5,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [64, 128, 192],
    "layers_per_block": 1,
    "cross_attention_dim": TEXT_WIDTH,
    "attention_head_dim": [2, 4, 6],  # diffusers means the number of heads: 32 channels each
    "use_linear_projection": True,
    "norm_num_groups": 32,
}
TEXT_CONFIG: Final[dict[str, Any]] = {
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 4 * TEXT_WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "projection_dim": TEXT_WIDTH,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
DEPTH_CONFIG: Final[dict[str, Any]] = {"channels": [24, 32, 48, 64, 96, 96]}


def build_vae() -> AutoencoderKL:
    """RGB (B, 3, H, W) in -1..1 <-> latents (B, 4, H/8, W/8). Starts with a narrow posterior."""
    vae = AutoencoderKL(**VAE_CONFIG)
    with torch.no_grad():
        vae.quant_conv.weight[4:] *= 0.1
        vae.quant_conv.bias[4:] = -6.0
    normalise_in_place(vae)
    return vae.to(memory_format=torch.channels_last)


def build_unet() -> UNet2DConditionModel:
    """(B, 5, h, w): four of noisy latents and one of depth in -1..1 -> noise (B, 4, h, w)."""
    unet = UNet2DConditionModel(**UNET_CONFIG)
    normalise_in_place(unet)
    return unet.to(memory_format=torch.channels_last)


def build_text() -> CLIPTextModel:
    """Compact row numbers (B, 77) -> states (B, 77, TEXT_WIDTH), after the final layer norm."""
    config = CLIPTextConfig(vocab_size=len(trained_ids()) + 1, attn_implementation="sdpa", **TEXT_CONFIG)
    text = CLIPTextModel(config)
    with torch.no_grad():
        nn.init.normal_(text.text_model.embeddings.token_embedding.weight, std=0.3)
        nn.init.normal_(text.text_model.embeddings.position_embedding.weight, std=0.1)
    return text


def build_depth() -> TinyDepthNet:
    """RGB (B, 3, H, W) in -1..1 -> inverse depth (B, 1, H, W)."""
    return TinyDepthNet(tuple(DEPTH_CONFIG["channels"])).to(memory_format=torch.channels_last)
