"""Which tensor of the single-file (`ldm`) layout is which of the diffusers layout: one table, read both ways.

The names are facts of the two code bases: Stability's `ldm` and OpenCLIP on one side, diffusers and transformers on
the other. Every line pairs one `ldm` tensor with one tensor of the other layout, or with three that it holds stacked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch

Component = Literal["unet", "vae", "text_encoder", "depth_estimator"]
"""The parts of a model, by their folder names in the diffusers layout."""

Form = Literal["same", "stacked", "pointwise"]

UNET: Final = "model.diffusion_model."
VAE: Final = "first_stage_model."
TEXT: Final = "cond_stage_model.model."
TOKEN_TABLE: Final = TEXT + "token_embedding.weight"
DEPTH: Final = "depth_model."
MIDAS: Final = "depth_model.model."

INPUT: Final = UNET + "input_blocks.0.0.weight"
"""The UNet's first convolution, by whose input channels a depth checkpoint is told."""

DEPTH_CHANNELS: Final = 5
"""Of a depth checkpoint's UNet: four of the latent, one of depth."""


@dataclass(frozen=True)
class Pair:
    """One tensor of the single file and its counterpart.

    Attributes:
        ldm: the name in the single file.
        component: the folder on the other side.
        names: the name in that folder, or three for `stacked`.
        form: `same`: equal. `stacked`: the single file's tensor is the three, one below the other. `pointwise`: the
            single file's is a 1x1 convolution (C, D, 1, 1), the other a matrix (C, D).
    """

    ldm: str
    component: Component
    names: tuple[str, ...]
    form: Form = "same"

    def to_ldm(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """The single file's tensor from the counterparts."""
        if self.form == "stacked":
            return torch.cat(list(parts))
        return parts[0][:, :, None, None] if self.form == "pointwise" else parts[0]

    def ldm_shape(self, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """The shape of `to_ldm`'s result."""
        if self.form == "stacked":
            return (sum(shape[0] for shape in shapes), *shapes[0][1:])
        return (*shapes[0], 1, 1) if self.form == "pointwise" else shapes[0]

    def from_ldm(self, tensor: torch.Tensor, index: int) -> torch.Tensor:
        """The counterpart number `index` from the single file's tensor."""
        if self.form == "stacked":
            return tensor.chunk(len(self.names))[index]
        return tensor[:, :, 0, 0] if self.form == "pointwise" else tensor

    def part_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of `from_ldm`'s result."""
        if self.form == "stacked":
            return (shape[0] // len(self.names), *shape[1:])
        return shape[:2] if self.form == "pointwise" else shape


def _both(ldm: str, other: str, component: Component, leaves: Sequence[str] = ("weight", "bias")) -> Iterator[Pair]:
    for leaf in leaves:
        yield Pair(f"{ldm}.{leaf}", component, (f"{other}.{leaf}",))


def _table(ldm: str, other: str, component: Component, names: Mapping[str, str]) -> Iterator[Pair]:
    for here, there in names.items():
        yield from _both(f"{ldm}.{here}", f"{other}.{there}", component)


def has_attention(block_type: str) -> bool:
    """Whether a diffusers block type carries transformers."""
    return block_type.startswith("CrossAttn")


# --- UNet -------------------------------------------------------------------------------------------------------------

_UNET_RESNET: Final = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
}
_TRANSFORMER_BIASED: Final = (
    "norm1",
    "norm2",
    "norm3",
    "attn1.to_out.0",
    "attn2.to_out.0",
    "ff.net.0.proj",
    "ff.net.2",
)
_TRANSFORMER_PLAIN: Final = tuple(f"attn{number}.to_{role}" for number in (1, 2) for role in "qkv")


def _unet_resnet(ldm: str, other: str, widens: bool) -> Iterator[Pair]:
    yield from _table(UNET + ldm, other, "unet", _UNET_RESNET)
    if widens:
        yield from _both(f"{UNET}{ldm}.skip_connection", f"{other}.conv_shortcut", "unet")


def _unet_attention(ldm: str, other: str) -> Iterator[Pair]:
    ldm = UNET + ldm
    yield from _table(ldm, other, "unet", {name: name for name in ("norm", "proj_in", "proj_out")})
    for name in _TRANSFORMER_BIASED:
        yield from _both(f"{ldm}.transformer_blocks.0.{name}", f"{other}.transformer_blocks.0.{name}", "unet")
    for name in _TRANSFORMER_PLAIN:
        yield from _both(
            f"{ldm}.transformer_blocks.0.{name}", f"{other}.transformer_blocks.0.{name}", "unet", ("weight",)
        )


def unet_pairs(config: Mapping[str, Any]) -> Iterator[Pair]:
    """The pairs of a UNet.

    Args:
        config: of diffusers' `UNet2DConditionModel`; `block_out_channels`, `layers_per_block` and the block types
            are read.
    """
    widths, layers = list(config["block_out_channels"]), int(config["layers_per_block"])
    yield from _table(UNET + "time_embed", "time_embedding", "unet", {"0": "linear_1", "2": "linear_2"})
    yield from _both(UNET + "input_blocks.0.0", "conv_in", "unet")
    number, width = 1, widths[0]
    for level, block_type in enumerate(config["down_block_types"]):
        block = f"down_blocks.{level}"
        for layer in range(layers):
            yield from _unet_resnet(f"input_blocks.{number}.0", f"{block}.resnets.{layer}", width != widths[level])
            if has_attention(block_type):
                yield from _unet_attention(f"input_blocks.{number}.1", f"{block}.attentions.{layer}")
            number, width = number + 1, widths[level]
        if level < len(widths) - 1:
            yield from _both(f"{UNET}input_blocks.{number}.0.op", f"{block}.downsamplers.0.conv", "unet")
            number += 1
    yield from _unet_resnet("middle_block.0", "mid_block.resnets.0", False)
    yield from _unet_attention("middle_block.1", "mid_block.attentions.0")
    yield from _unet_resnet("middle_block.2", "mid_block.resnets.1", False)
    yield from _unet_up_pairs(config)
    yield from _both(UNET + "out.0", "conv_norm_out", "unet")
    yield from _both(UNET + "out.2", "conv_out", "unet")


def _unet_up_pairs(config: Mapping[str, Any]) -> Iterator[Pair]:
    layers, types, number = int(config["layers_per_block"]) + 1, list(config["up_block_types"]), 0
    for level, block_type in enumerate(types):
        block = f"up_blocks.{level}"
        for layer in range(layers):
            # The skip that is concatenated makes every one of these resnets change its width.
            yield from _unet_resnet(f"output_blocks.{number}.0", f"{block}.resnets.{layer}", True)
            if has_attention(block_type):
                yield from _unet_attention(f"output_blocks.{number}.1", f"{block}.attentions.{layer}")
            if layer == layers - 1 and level < len(types) - 1:
                place = f"{UNET}output_blocks.{number}.{2 if has_attention(block_type) else 1}.conv"
                yield from _both(place, f"{block}.upsamplers.0.conv", "unet")
            number += 1


# --- VAE --------------------------------------------------------------------------------------------------------------

_VAE_RESNET: Final = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2"}
_VAE_ATTENTION: Final = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}

VAE_OLD_NAMES: Final = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""What the published folders still call the VAE's attention matrices, and what diffusers calls them today."""


def _vae_resnet(ldm: str, other: str, widens: bool) -> Iterator[Pair]:
    yield from _table(VAE + ldm, other, "vae", _VAE_RESNET)
    if widens:
        yield from _both(f"{VAE}{ldm}.nin_shortcut", f"{other}.conv_shortcut", "vae")


def _vae_ends(half: str) -> Iterator[Pair]:
    """Middle block, first and last layers of the encoder or the decoder."""
    mid, other = f"{half}.mid", f"{half}.mid_block"
    yield from _both(f"{VAE}{half}.conv_in", f"{half}.conv_in", "vae")
    yield from _vae_resnet(f"{mid}.block_1", f"{other}.resnets.0", False)
    yield from _vae_resnet(f"{mid}.block_2", f"{other}.resnets.1", False)
    yield from _both(f"{VAE}{mid}.attn_1.norm", f"{other}.attentions.0.group_norm", "vae")
    for here, there in _VAE_ATTENTION.items():
        ldm, name = f"{VAE}{mid}.attn_1.{here}", f"{other}.attentions.0.{there}"
        yield Pair(f"{ldm}.weight", "vae", (f"{name}.weight",), "pointwise")
        yield Pair(f"{ldm}.bias", "vae", (f"{name}.bias",))
    yield from _both(f"{VAE}{half}.norm_out", f"{half}.conv_norm_out", "vae")
    yield from _both(f"{VAE}{half}.conv_out", f"{half}.conv_out", "vae")


def vae_pairs(config: Mapping[str, Any]) -> Iterator[Pair]:
    """The pairs of an autoencoder.

    Args:
        config: of diffusers' `AutoencoderKL`; `block_out_channels` and `layers_per_block` are read.
    """
    widths, layers = list(config["block_out_channels"]), int(config["layers_per_block"])
    for half in ("encoder", "decoder"):
        yield from _vae_ends(half)
    width = widths[0]
    for level, wide in enumerate(widths):
        for layer in range(layers):
            ldm, other = f"encoder.down.{level}.block.{layer}", f"encoder.down_blocks.{level}.resnets.{layer}"
            yield from _vae_resnet(ldm, other, width != wide)
            width = wide
        if level < len(widths) - 1:
            ldm, other = (
                f"{VAE}encoder.down.{level}.downsample.conv",
                f"encoder.down_blocks.{level}.downsamplers.0.conv",
            )
            yield from _both(ldm, other, "vae")
    width = widths[-1]
    for step, wide in enumerate(reversed(widths)):
        level = len(widths) - 1 - step  # the single file counts the decoder's levels from the picture's end
        for layer in range(layers + 1):
            ldm, other = f"decoder.up.{level}.block.{layer}", f"decoder.up_blocks.{step}.resnets.{layer}"
            yield from _vae_resnet(ldm, other, width != wide)
            width = wide
        if level > 0:
            ldm, other = f"{VAE}decoder.up.{level}.upsample.conv", f"decoder.up_blocks.{step}.upsamplers.0.conv"
            yield from _both(ldm, other, "vae")
    yield from _both(VAE + "quant_conv", "quant_conv", "vae")
    yield from _both(VAE + "post_quant_conv", "post_quant_conv", "vae")


# --- text encoder -----------------------------------------------------------------------------------------------------

_TEXT_LAYER: Final = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def text_layer(number: int) -> str:
    """Where the single file keeps one layer of the text encoder."""
    return f"{TEXT}transformer.resblocks.{number}."


def text_pairs(config: Mapping[str, Any]) -> Iterator[Pair]:
    """The pairs of a text encoder: OpenCLIP and transformers.

    Args:
        config: of transformers' `CLIPTextModel`; `num_hidden_layers` is read. A last layer that the single file
            carries and never runs ("penultimate") has no pair.
    """
    there = "text_model."
    embeddings = there + "embeddings."
    yield Pair(TOKEN_TABLE, "text_encoder", (embeddings + "token_embedding.weight",))
    yield Pair(TEXT + "positional_embedding", "text_encoder", (embeddings + "position_embedding.weight",))
    yield from _both(TEXT + "ln_final", there + "final_layer_norm", "text_encoder")
    for number in range(int(config["num_hidden_layers"])):
        ldm, other = text_layer(number), f"{there}encoder.layers.{number}."
        yield from _table(ldm[:-1], other[:-1], "text_encoder", _TEXT_LAYER)
        for leaf in ("weight", "bias"):
            names = tuple(f"{other}self_attn.{role}_proj.{leaf}" for role in "qkv")
            yield Pair(f"{ldm}attn.in_proj_{leaf}", "text_encoder", names, "stacked")


# --- depth ------------------------------------------------------------------------------------------------------------

_DEPTH_LAYER: Final = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_FUSION: Final = {
    "out_conv": "projection",
    "resConfUnit1.conv1": "residual_layer1.convolution1",
    "resConfUnit1.conv2": "residual_layer1.convolution2",
    "resConfUnit2.conv1": "residual_layer2.convolution1",
    "resConfUnit2.conv2": "residual_layer2.convolution2",
}
_REASSEMBLE: Final = {
    "act_postprocess3.0.project.0": "readout_projects.2.0",
    "act_postprocess4.0.project.0": "readout_projects.3.0",
    "act_postprocess3.3": "layers.2.projection",
    "act_postprocess4.3": "layers.3.projection",
    "act_postprocess4.4": "layers.3.resize",
}

DPT_DEPTHS: Final = (3, 4, 9)
"""Blocks of DPT-hybrid's ResNet where a configuration leaves them out (transformers' default)."""


def _depth_backbone(depths: Sequence[int]) -> Iterator[Pair]:
    ldm, other = MIDAS + "pretrained.model.patch_embed.backbone.", "dpt.embeddings.backbone.bit."
    yield from _both(ldm + "stem.conv", other + "embedder.convolution", "depth_estimator", ("weight",))
    yield from _both(ldm + "stem.norm", other + "embedder.norm", "depth_estimator")
    for stage, blocks in enumerate(depths):
        for block in range(blocks):
            here, there = f"{ldm}stages.{stage}.blocks.{block}.", f"{other}encoder.stages.{stage}.layers.{block}."
            if block == 0:
                yield from _both(here + "downsample.conv", there + "downsample.conv", "depth_estimator", ("weight",))
                yield from _both(here + "downsample.norm", there + "downsample.norm", "depth_estimator")
            for number in (1, 2, 3):
                yield from _both(f"{here}conv{number}", f"{there}conv{number}", "depth_estimator", ("weight",))
                yield from _both(f"{here}norm{number}", f"{there}norm{number}", "depth_estimator")


def dpt_pairs(config: Mapping[str, Any]) -> Iterator[Pair]:
    """The pairs of MiDaS' DPT-hybrid and transformers' `DPTForDepthEstimation`.

    Args:
        config: of the latter; `num_hidden_layers` and `backbone_config["depths"]` are read.
    """
    ldm, other = MIDAS + "pretrained.model.", "dpt."
    yield Pair(ldm + "cls_token", "depth_estimator", (other + "embeddings.cls_token",))
    yield Pair(ldm + "pos_embed", "depth_estimator", (other + "embeddings.position_embeddings",))
    yield from _both(ldm + "patch_embed.proj", other + "embeddings.projection", "depth_estimator")
    yield from _depth_backbone((config.get("backbone_config") or {}).get("depths", DPT_DEPTHS))
    for number in range(int(config["num_hidden_layers"])):
        here, there = f"{ldm}blocks.{number}", f"{other}encoder.layer.{number}"
        yield from _table(here, there, "depth_estimator", _DEPTH_LAYER)
        for leaf in ("weight", "bias"):
            names = tuple(f"{there}.attention.attention.{role}.{leaf}" for role in ("query", "key", "value"))
            yield Pair(f"{here}.attn.qkv.{leaf}", "depth_estimator", names, "stacked")
    yield from _both(ldm + "norm", other + "layernorm", "depth_estimator")
    yield from _table(MIDAS + "pretrained", "neck.reassemble_stage", "depth_estimator", _REASSEMBLE)
    scratch = MIDAS + "scratch."
    for number in range(4):
        yield from _both(f"{scratch}layer{number + 1}_rn", f"neck.convs.{number}", "depth_estimator", ("weight",))
        # MiDaS counts its fusion stages from the fine end, transformers from the coarse one.
        yield from _table(
            f"{scratch}refinenet{4 - number}", f"neck.fusion_stage.layers.{number}", "depth_estimator", _FUSION
        )
    for number in (0, 2, 4):
        yield from _both(f"{scratch}output_conv.{number}", f"head.head.{number}", "depth_estimator")


def plain_depth_pairs(names: Sequence[str]) -> Iterator[Pair]:
    """The pairs of a depth network whose names are the same in both layouts (the embedded model's)."""
    for name in names:
        yield Pair(DEPTH + name, "depth_estimator", (name,))
