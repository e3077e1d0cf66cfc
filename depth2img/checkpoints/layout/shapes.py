"""The shape of every tensor that a single file (`ldm`'s layout) needs, from the configurations of its parts.

The arithmetic is that of Stability's `ldm` (openaimodel.UNetModel, model.Encoder and Decoder), of OpenCLIP's text
transformer, and of MiDaS' DPT-hybrid on timm's ViT with a ResNet-V2 stem.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import torch

from . import keys, ldm_only
from .config import Anatomy, Config

Shape = tuple[int, ...]
Named = Iterator[tuple[str, Shape]]

TEXT_LENGTH: Final = 77

DPT_HYBRID: Final[Mapping[str, Any]] = {
    "is_hybrid": True,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "image_size": 384,
    "patch_size": 16,
    "neck_hidden_sizes": [256, 512, 768, 768],
    "fusion_hidden_size": 256,
    "backbone_config": {"embedding_size": 64, "hidden_sizes": [256, 512, 1024], "depths": [3, 4, 9]},
}
"""What is read here of MiDaS' dpt_hybrid, the one that Stable Diffusion 2 depth checkpoints carry; names as in
transformers' `DPTConfig`."""


def sides(shape: Shape) -> str:
    """A shape for people."""
    return " x ".join(map(str, shape)) or "no sides"


def required(anatomy: Anatomy) -> dict[str, Shape]:
    """Name -> shape of all that is run; of the depth network only where it is MiDaS."""
    depth = dpt_shapes(anatomy.depth_estimator) if anatomy.is_midas else iter(())
    return dict([*unet_shapes(anatomy.unet), *vae_shapes(anatomy.vae), *text_shapes(anatomy.text_encoder), *depth])


def unused(anatomy: Anatomy) -> dict[str, Shape]:
    """Name -> shape of what `ldm` has besides and never runs."""
    return {lazy.key: lazy.shape for lazy in ldm_only.recreated(anatomy, torch.float32)}


def _layer(name: str, *shape: int, bias: bool = True) -> Named:
    """A linear layer or convolution: (out, in, ...)."""
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", shape[:1]


def _norm(name: str, width: int) -> Named:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


# --- UNet -------------------------------------------------------------------------------------------------------------


def _resnet(name: str, width: int, out: int, time: int) -> Named:
    yield from _norm(f"{name}.in_layers.0", width)
    yield from _layer(f"{name}.in_layers.2", out, width, 3, 3)
    yield from _layer(f"{name}.emb_layers.1", out, time)
    yield from _norm(f"{name}.out_layers.0", out)
    yield from _layer(f"{name}.out_layers.3", out, out, 3, 3)
    if width != out:
        yield from _layer(f"{name}.skip_connection", out, width, 1, 1)


def _transformer(name: str, width: int, context: int) -> Named:
    yield from _norm(f"{name}.norm", width)
    yield from _layer(f"{name}.proj_in", width, width)
    block = f"{name}.transformer_blocks.0"
    for attention, seen in (("attn1", width), ("attn2", context)):
        yield from _layer(f"{block}.{attention}.to_q", width, width, bias=False)
        yield from _layer(f"{block}.{attention}.to_k", width, seen, bias=False)
        yield from _layer(f"{block}.{attention}.to_v", width, seen, bias=False)
        yield from _layer(f"{block}.{attention}.to_out.0", width, width)
    yield from _layer(f"{block}.ff.net.0.proj", 8 * width, width)
    yield from _layer(f"{block}.ff.net.2", width, 4 * width)
    for number in (1, 2, 3):
        yield from _norm(f"{block}.norm{number}", width)
    yield from _layer(f"{name}.proj_out", width, width)


def unet_shapes(config: Config) -> Named:
    """Of a UNet; `config` as diffusers' `UNet2DConditionModel` has it."""
    widths, layers = [int(width) for width in config["block_out_channels"]], int(config["layers_per_block"])
    context, first = int(config["cross_attention_dim"]), widths[0]
    time, crossed = 4 * first, [keys.has_attention(name) for name in config["down_block_types"]]
    yield from _layer(keys.UNET + "time_embed.0", time, first)
    yield from _layer(keys.UNET + "time_embed.2", time, time)
    yield from _layer(keys.UNET + "input_blocks.0.0", first, int(config["in_channels"]), 3, 3)
    width, skips, number = first, [first], 1
    for level, wide in enumerate(widths):
        for _ in range(layers):
            yield from _resnet(f"{keys.UNET}input_blocks.{number}.0", width, wide, time)
            if crossed[level]:
                yield from _transformer(f"{keys.UNET}input_blocks.{number}.1", wide, context)
            width, number = wide, number + 1
            skips.append(wide)
        if level < len(widths) - 1:
            yield from _layer(f"{keys.UNET}input_blocks.{number}.0.op", wide, wide, 3, 3)
            number += 1
            skips.append(wide)
    yield from _resnet(keys.UNET + "middle_block.0", width, width, time)
    yield from _transformer(keys.UNET + "middle_block.1", width, context)
    yield from _resnet(keys.UNET + "middle_block.2", width, width, time)
    number = 0
    for level in reversed(range(len(widths))):
        for layer in range(layers + 1):
            name = f"{keys.UNET}output_blocks.{number}"
            yield from _resnet(f"{name}.0", width + skips.pop(), widths[level], time)
            width = widths[level]
            if crossed[level]:
                yield from _transformer(f"{name}.1", width, context)
            if layer == layers and level:
                yield from _layer(f"{name}.{2 if crossed[level] else 1}.conv", width, width, 3, 3)
            number += 1
    yield from _norm(keys.UNET + "out.0", width)
    yield from _layer(keys.UNET + "out.2", int(config["out_channels"]), width, 3, 3)


# --- VAE --------------------------------------------------------------------------------------------------------------


def _vae_block(name: str, width: int, out: int) -> Named:
    yield from _norm(f"{name}.norm1", width)
    yield from _layer(f"{name}.conv1", out, width, 3, 3)
    yield from _norm(f"{name}.norm2", out)
    yield from _layer(f"{name}.conv2", out, out, 3, 3)
    if width != out:
        yield from _layer(f"{name}.nin_shortcut", out, width, 1, 1)


def _vae_middle(half: str, width: int) -> Named:
    for number in (1, 2):
        yield from _vae_block(f"{half}.mid.block_{number}", width, width)
    yield from _norm(f"{half}.mid.attn_1.norm", width)
    for name in ("q", "k", "v", "proj_out"):
        yield from _layer(f"{half}.mid.attn_1.{name}", width, width, 1, 1)


def vae_shapes(config: Config) -> Named:
    """Of an autoencoder; `config` as diffusers' `AutoencoderKL` has it."""
    widths, layers = [int(width) for width in config["block_out_channels"]], int(config["layers_per_block"])
    latent, encoder, decoder = int(config["latent_channels"]), keys.VAE + "encoder", keys.VAE + "decoder"
    yield from _layer(f"{encoder}.conv_in", widths[0], int(config["in_channels"]), 3, 3)
    width = widths[0]
    for level, wide in enumerate(widths):
        for block in range(layers):
            yield from _vae_block(f"{encoder}.down.{level}.block.{block}", width, wide)
            width = wide
        if level < len(widths) - 1:
            yield from _layer(f"{encoder}.down.{level}.downsample.conv", wide, wide, 3, 3)
    yield from _vae_middle(encoder, width)
    yield from _norm(f"{encoder}.norm_out", width)
    yield from _layer(f"{encoder}.conv_out", 2 * latent, width, 3, 3)  # mean and log-variance
    yield from _layer(keys.VAE + "quant_conv", 2 * latent, 2 * latent, 1, 1)
    yield from _layer(keys.VAE + "post_quant_conv", latent, latent, 1, 1)
    yield from _layer(f"{decoder}.conv_in", width, latent, 3, 3)
    yield from _vae_middle(decoder, width)
    for level in reversed(range(len(widths))):
        for block in range(layers + 1):
            yield from _vae_block(f"{decoder}.up.{level}.block.{block}", width, widths[level])
            width = widths[level]
        if level:
            yield from _layer(f"{decoder}.up.{level}.upsample.conv", width, width, 3, 3)
    yield from _norm(f"{decoder}.norm_out", width)
    yield from _layer(f"{decoder}.conv_out", int(config["out_channels"]), width, 3, 3)


# --- text encoder, depth ----------------------------------------------------------------------------------------------


def text_shapes(config: Config) -> Named:
    """Of a text encoder in OpenCLIP's layout; `config` as transformers' `CLIPTextModel` has it."""
    width, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    yield keys.TEXT + "token_embedding.weight", (int(config["vocab_size"]), width)
    yield keys.TEXT + "positional_embedding", (TEXT_LENGTH, width)
    yield from _norm(keys.TEXT + "ln_final", width)
    for number in range(int(config["num_hidden_layers"])):
        name = keys.text_layer(number)
        yield from ((name + leaf, shape) for leaf, shape in ldm_only.text_layer_shapes(width, inner).items())


def dpt_shapes(config: Mapping[str, Any]) -> Named:
    """Of MiDaS' DPT-hybrid; `config` as transformers' `DPTForDepthEstimation` has it, see `DPT_HYBRID`."""
    width, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    patches = (int(config["image_size"]) // int(config["patch_size"])) ** 2
    model, backbone = keys.MIDAS + "pretrained.model.", config["backbone_config"]
    yield model + "cls_token", (1, 1, width)
    yield model + "pos_embed", (1, patches + 1, width)
    yield from _backbone(model + "patch_embed.backbone.", backbone)
    yield from _layer(model + "patch_embed.proj", width, int(backbone["hidden_sizes"][-1]), 1, 1)
    for number in range(int(config["num_hidden_layers"])):
        block = f"{model}blocks.{number}"
        yield from _norm(f"{block}.norm1", width)
        yield from _layer(f"{block}.attn.qkv", 3 * width, width)
        yield from _layer(f"{block}.attn.proj", width, width)
        yield from _norm(f"{block}.norm2", width)
        yield from _layer(f"{block}.mlp.fc1", inner, width)
        yield from _layer(f"{block}.mlp.fc2", width, inner)
    yield from _norm(model + "norm", width)
    yield from _neck(config, width)


def _backbone(name: str, config: Mapping[str, Any]) -> Named:
    width = int(config["embedding_size"])
    yield from _layer(f"{name}stem.conv", width, 3, 7, 7, bias=False)
    yield from _norm(f"{name}stem.norm", width)
    sizes: Sequence[int] = config["hidden_sizes"]
    for stage, (wide, depth) in enumerate(zip(sizes, config["depths"], strict=True)):
        inner = wide // 4
        for number in range(depth):
            block = f"{name}stages.{stage}.blocks.{number}"
            if number == 0:
                yield from _layer(f"{block}.downsample.conv", wide, width, 1, 1, bias=False)
                yield from _norm(f"{block}.downsample.norm", wide)
            yield from _layer(f"{block}.conv1", inner, width, 1, 1, bias=False)
            yield from _layer(f"{block}.conv2", inner, inner, 3, 3, bias=False)
            yield from _layer(f"{block}.conv3", wide, inner, 1, 1, bias=False)
            for norm, size in (("norm1", inner), ("norm2", inner), ("norm3", wide)):
                yield from _norm(f"{block}.{norm}", size)
            width = wide


def _neck(config: Mapping[str, Any], width: int) -> Named:
    pretrained, scratch = keys.MIDAS + "pretrained.", keys.MIDAS + "scratch."
    sizes, fusion = list(config["neck_hidden_sizes"]), int(config["fusion_hidden_size"])
    for number in (3, 4):
        yield from _layer(f"{pretrained}act_postprocess{number}.0.project.0", width, 2 * width)
        yield from _layer(f"{pretrained}act_postprocess{number}.3", sizes[number - 1], width, 1, 1)
    yield from _layer(f"{pretrained}act_postprocess4.4", sizes[3], sizes[3], 3, 3)
    for number, size in enumerate(sizes, start=1):
        yield from _layer(f"{scratch}layer{number}_rn", fusion, size, 3, 3, bias=False)
        yield from _layer(f"{scratch}refinenet{number}.out_conv", fusion, fusion, 1, 1)
        for unit in (1, 2):
            for convolution in (1, 2):
                name = f"{scratch}refinenet{number}.resConfUnit{unit}.conv{convolution}"
                yield from _layer(name, fusion, fusion, 3, 3)
    yield from _layer(f"{scratch}output_conv.0", fusion // 2, fusion, 3, 3)
    yield from _layer(f"{scratch}output_conv.2", 32, fusion // 2, 3, 3)
    yield from _layer(f"{scratch}output_conv.4", 1, 32, 1, 1)
