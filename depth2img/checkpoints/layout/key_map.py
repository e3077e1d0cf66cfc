"""The key map: every tensor of the single-file (`ldm`) layout, its counterpart in the diffusers layout, and its shape.

The names are facts of the two code bases: Stability's `ldm` and OpenCLIP on one side, diffusers and transformers on
the other. The arithmetic of the shapes is that of `ldm` (openaimodel.UNetModel, model.Encoder and Decoder), of
OpenCLIP's text transformer, and of MiDaS' DPT-hybrid on timm's ViT with a ResNet-V2 stem.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from .keys import DEPTH, MIDAS, TEXT, UNET, VAE, Component, Shape

if TYPE_CHECKING:
    import torch

Form = Literal["same", "stacked", "pointwise"]

TEXT_LENGTH: Final = 77
"""Tokens that the text encoder takes."""

VAE_OLD_NAMES: Final = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of the VAE's attention matrices in the published folders -> diffusers' names today."""

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
"""The part of the configuration of MiDaS' dpt_hybrid that is read here. Stable Diffusion 2 depth checkpoints carry that
network; names and defaults are those of transformers' `DPTConfig`."""


@dataclass(frozen=True)
class Entry:
    """One tensor of the single file and its counterpart.

    Attributes:
        ldm: the name in the single file.
        component: the folder on the other side.
        names: the name in that folder, or three for `stacked`.
        shape: the shape in the single file; None where only the file knows it.
        form: `same`: equal. `stacked`: the single file's tensor is the three, one below the other. `pointwise`: the
            single file's is a 1x1 convolution (C, D, 1, 1), the other a matrix (C, D).
    """

    ldm: str
    component: Component
    names: tuple[str, ...]
    shape: Shape | None
    form: Form = "same"

    def to_ldm(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Make the single file's tensor of the counterparts."""
        if self.form == "stacked":
            import torch

            return torch.cat(list(parts))
        return parts[0][:, :, None, None] if self.form == "pointwise" else parts[0]

    def ldm_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Return the shape of `to_ldm`'s result."""
        if self.form == "stacked":
            return (sum(shape[0] for shape in shapes), *shapes[0][1:])
        return (*shapes[0], 1, 1) if self.form == "pointwise" else shapes[0]

    def from_ldm(self, tensor: torch.Tensor, index: int) -> torch.Tensor:
        """Take the counterpart number `index` out of the single file's tensor."""
        if self.form == "stacked":
            return tensor.chunk(len(self.names))[index]
        return tensor[:, :, 0, 0] if self.form == "pointwise" else tensor

    def part_shape(self, shape: Shape) -> Shape:
        """Return the shape of `from_ldm`'s result."""
        if self.form == "stacked":
            return (shape[0] // len(self.names), *shape[1:])
        return shape[:2] if self.form == "pointwise" else shape


Row = tuple[str, tuple[str, ...], Shape, Form]
"""Name in the single file behind the component's prefix, counterparts, shape in the single file, form."""

Rows = Iterator[Row]


def _layer(ldm: str, other: str, *shape: int, bias: bool = True, form: Form = "same") -> Rows:
    """Yield the rows of a linear layer or convolution (out, in, ...)."""
    yield f"{ldm}.weight", (f"{other}.weight",), shape, form
    if bias:
        yield f"{ldm}.bias", (f"{other}.bias",), shape[:1], "same"


def _norm(ldm: str, other: str, width: int) -> Rows:
    return _layer(ldm, other, width)


def _stacked(ldm: str, others: Sequence[str], width: int) -> Rows:
    """Yield the rows of query, key and value, which the single file stacks; "weight" or "bias" is appended to `ldm`."""
    yield f"{ldm}weight", tuple(f"{name}.weight" for name in others), (3 * width, width), "stacked"
    yield f"{ldm}bias", tuple(f"{name}.bias" for name in others), (3 * width,), "stacked"


def _entries(component: Component, prefix: str, rows: Rows) -> Iterator[Entry]:
    return (Entry(prefix + ldm, component, names, shape, form) for ldm, names, shape, form in rows)


def _levels(config: Mapping[str, Any]) -> tuple[list[int], int]:
    return [int(width) for width in config["block_out_channels"]], int(config["layers_per_block"])


# --- UNet -------------------------------------------------------------------------------------------------------------


def has_attention(block_type: str) -> bool:
    """Tell whether a diffusers block type carries transformers."""
    return block_type.startswith("CrossAttn")


def unet_entries(config: Mapping[str, Any]) -> Iterator[Entry]:
    """Map a UNet.

    Args:
        config: of diffusers' `UNet2DConditionModel`. The up blocks are taken for the mirror image of the down blocks.
    """
    return _entries("unet", UNET, _unet(config))


def _unet_resnet(ldm: str, other: str, width: int, out: int, time: int) -> Rows:
    yield from _norm(f"{ldm}.in_layers.0", f"{other}.norm1", width)
    yield from _layer(f"{ldm}.in_layers.2", f"{other}.conv1", out, width, 3, 3)
    yield from _layer(f"{ldm}.emb_layers.1", f"{other}.time_emb_proj", out, time)
    yield from _norm(f"{ldm}.out_layers.0", f"{other}.norm2", out)
    yield from _layer(f"{ldm}.out_layers.3", f"{other}.conv2", out, out, 3, 3)
    if width != out:
        yield from _layer(f"{ldm}.skip_connection", f"{other}.conv_shortcut", out, width, 1, 1)


def _transformer(ldm: str, other: str, width: int, context: int) -> Rows:
    def same(name: str, *shape: int, bias: bool = True) -> Rows:
        return _layer(f"{ldm}.{name}", f"{other}.{name}", *shape, bias=bias)

    block = "transformer_blocks.0"
    yield from same("norm", width)
    yield from same("proj_in", width, width)
    yield from same("proj_out", width, width)
    for number in (1, 2, 3):
        yield from same(f"{block}.norm{number}", width)
    for attention, seen in (("attn1", width), ("attn2", context)):
        yield from same(f"{block}.{attention}.to_q", width, width, bias=False)
        yield from same(f"{block}.{attention}.to_k", width, seen, bias=False)
        yield from same(f"{block}.{attention}.to_v", width, seen, bias=False)
        yield from same(f"{block}.{attention}.to_out.0", width, width)
    yield from same(f"{block}.ff.net.0.proj", 8 * width, width)
    yield from same(f"{block}.ff.net.2", width, 4 * width)


def _unet(config: Mapping[str, Any]) -> Rows:
    widths, layers = _levels(config)
    crossed = [has_attention(name) for name in config["down_block_types"]]
    context, first, last = int(config["cross_attention_dim"]), widths[0], len(widths) - 1
    time = 4 * first
    yield from _layer("time_embed.0", "time_embedding.linear_1", time, first)
    yield from _layer("time_embed.2", "time_embedding.linear_2", time, time)
    yield from _layer("input_blocks.0.0", "conv_in", first, int(config["in_channels"]), 3, 3)
    width, skips, number = first, [first], 1
    for level, (wide, cross) in enumerate(zip(widths, crossed, strict=True)):
        other = f"down_blocks.{level}"
        for layer in range(layers):
            yield from _unet_resnet(f"input_blocks.{number}.0", f"{other}.resnets.{layer}", width, wide, time)
            if cross:
                yield from _transformer(f"input_blocks.{number}.1", f"{other}.attentions.{layer}", wide, context)
            width, number = wide, number + 1
            skips.append(wide)
        if level < last:
            yield from _layer(f"input_blocks.{number}.0.op", f"{other}.downsamplers.0.conv", wide, wide, 3, 3)
            number += 1
            skips.append(wide)
    yield from _unet_resnet("middle_block.0", "mid_block.resnets.0", width, width, time)
    yield from _transformer("middle_block.1", "mid_block.attentions.0", width, context)
    yield from _unet_resnet("middle_block.2", "mid_block.resnets.1", width, width, time)
    number = 0
    for level, (wide, cross) in enumerate(zip(reversed(widths), reversed(crossed), strict=True)):
        other = f"up_blocks.{level}"
        for layer in range(layers + 1):
            ldm = f"output_blocks.{number}"
            yield from _unet_resnet(f"{ldm}.0", f"{other}.resnets.{layer}", width + skips.pop(), wide, time)
            width, number = wide, number + 1
            if cross:
                yield from _transformer(f"{ldm}.1", f"{other}.attentions.{layer}", wide, context)
            if layer == layers and level < last:
                yield from _layer(f"{ldm}.{1 + cross}.conv", f"{other}.upsamplers.0.conv", wide, wide, 3, 3)
    yield from _norm("out.0", "conv_norm_out", width)
    yield from _layer("out.2", "conv_out", int(config["out_channels"]), width, 3, 3)


# --- VAE --------------------------------------------------------------------------------------------------------------


def vae_entries(config: Mapping[str, Any]) -> Iterator[Entry]:
    """Map an autoencoder; `config` is that of diffusers' `AutoencoderKL`."""
    return _entries("vae", VAE, _vae(config))


def _vae_resnet(ldm: str, other: str, width: int, out: int) -> Rows:
    yield from _norm(f"{ldm}.norm1", f"{other}.norm1", width)
    yield from _layer(f"{ldm}.conv1", f"{other}.conv1", out, width, 3, 3)
    yield from _norm(f"{ldm}.norm2", f"{other}.norm2", out)
    yield from _layer(f"{ldm}.conv2", f"{other}.conv2", out, out, 3, 3)
    if width != out:
        yield from _layer(f"{ldm}.nin_shortcut", f"{other}.conv_shortcut", out, width, 1, 1)


def _vae_ends(half: str, channels: tuple[int, int], inner: int, outer: int) -> Rows:
    """Yield the rows of the first and last layers and the middle block of one half.

    Args:
        half: `encoder` or `decoder`.
        channels: of its input and its output.
        inner: width of the middle block.
        outer: width on the picture's side.
    """
    ldm, other = f"{half}.mid", f"{half}.mid_block"
    first, last = (outer, inner) if half == "encoder" else (inner, outer)
    yield from _layer(f"{half}.conv_in", f"{half}.conv_in", first, channels[0], 3, 3)
    yield from _vae_resnet(f"{ldm}.block_1", f"{other}.resnets.0", inner, inner)
    yield from _vae_resnet(f"{ldm}.block_2", f"{other}.resnets.1", inner, inner)
    yield from _norm(f"{ldm}.attn_1.norm", f"{other}.attentions.0.group_norm", inner)
    for here, there in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")):
        yield from _layer(f"{ldm}.attn_1.{here}", f"{other}.attentions.0.{there}", inner, inner, 1, 1, form="pointwise")
    yield from _norm(f"{half}.norm_out", f"{half}.conv_norm_out", last)
    yield from _layer(f"{half}.conv_out", f"{half}.conv_out", channels[1], last, 3, 3)


def _vae(config: Mapping[str, Any]) -> Rows:
    widths, layers = _levels(config)
    latent, top = int(config["latent_channels"]), len(widths) - 1
    double = 2 * latent  # mean and log-variance
    yield from _vae_ends("encoder", (int(config["in_channels"]), double), widths[-1], widths[0])
    yield from _vae_ends("decoder", (latent, int(config["out_channels"])), widths[-1], widths[0])
    width = widths[0]
    for level, wide in enumerate(widths):
        ldm, other = f"encoder.down.{level}", f"encoder.down_blocks.{level}"
        for layer in range(layers):
            yield from _vae_resnet(f"{ldm}.block.{layer}", f"{other}.resnets.{layer}", width, wide)
            width = wide
        if level < top:
            yield from _layer(f"{ldm}.downsample.conv", f"{other}.downsamplers.0.conv", wide, wide, 3, 3)
    for step, wide in enumerate(reversed(widths)):
        # The single file counts the decoder's levels from the picture's end.
        ldm, other = f"decoder.up.{top - step}", f"decoder.up_blocks.{step}"
        for layer in range(layers + 1):
            yield from _vae_resnet(f"{ldm}.block.{layer}", f"{other}.resnets.{layer}", width, wide)
            width = wide
        if step < top:
            yield from _layer(f"{ldm}.upsample.conv", f"{other}.upsamplers.0.conv", wide, wide, 3, 3)
    yield from _layer("quant_conv", "quant_conv", double, double, 1, 1)
    yield from _layer("post_quant_conv", "post_quant_conv", latent, latent, 1, 1)


# --- text encoder -----------------------------------------------------------------------------------------------------


def text_entries(config: Mapping[str, Any]) -> Iterator[Entry]:
    """Map a text encoder: OpenCLIP and transformers' `CLIPTextModel`, whose configuration `config` is.

    A last layer that the single file carries and never runs ("penultimate") has no counterpart.
    """
    return _entries("text_encoder", TEXT, _text(config))


def text_layer_rows(width: int, inner: int, ldm: str = "", other: str = "") -> Rows:
    """List the rows of one layer of the text encoder, (width, inner) being the sizes of its two linear layers."""
    yield from _norm(f"{ldm}ln_1", f"{other}layer_norm1", width)
    yield from _norm(f"{ldm}ln_2", f"{other}layer_norm2", width)
    yield from _stacked(f"{ldm}attn.in_proj_", [f"{other}self_attn.{role}_proj" for role in "qkv"], width)
    yield from _layer(f"{ldm}attn.out_proj", f"{other}self_attn.out_proj", width, width)
    yield from _layer(f"{ldm}mlp.c_fc", f"{other}mlp.fc1", inner, width)
    yield from _layer(f"{ldm}mlp.c_proj", f"{other}mlp.fc2", width, inner)


def _text(config: Mapping[str, Any]) -> Rows:
    width, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    embeddings = "text_model.embeddings."
    yield (
        "token_embedding.weight",
        (embeddings + "token_embedding.weight",),
        (int(config["vocab_size"]), width),
        "same",
    )
    yield "positional_embedding", (embeddings + "position_embedding.weight",), (TEXT_LENGTH, width), "same"
    yield from _norm("ln_final", "text_model.final_layer_norm", width)
    for number in range(int(config["num_hidden_layers"])):
        ldm, other = f"transformer.resblocks.{number}.", f"text_model.encoder.layers.{number}."
        yield from text_layer_rows(width, inner, ldm, other)


# --- depth ------------------------------------------------------------------------------------------------------------


def dpt_entries(config: Mapping[str, Any]) -> Iterator[Entry]:
    """Map MiDaS' DPT-hybrid: timm's names and those of transformers' `DPTForDepthEstimation`.

    Args:
        config: of the latter; what it leaves out is as in `DPT_HYBRID`.
    """
    backbone = {**DPT_HYBRID["backbone_config"], **(config.get("backbone_config") or {})}
    return _entries("depth_estimator", MIDAS, _dpt({**DPT_HYBRID, **config, "backbone_config": backbone}))


def plain_depth_entries(names: Sequence[str]) -> Iterator[Entry]:
    """Map a depth network whose names are the same in both layouts (the embedded model's)."""
    return (Entry(DEPTH + name, "depth_estimator", (name,), None) for name in names)


def _dpt(config: Mapping[str, Any]) -> Rows:
    width, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    patches = (int(config["image_size"]) // int(config["patch_size"])) ** 2
    backbone, model = config["backbone_config"], "pretrained.model"
    depths = [int(depth) for depth in backbone["depths"]]
    sizes = [int(size) for size in backbone["hidden_sizes"]][: len(depths)]  # transformers' default names one more
    yield f"{model}.cls_token", ("dpt.embeddings.cls_token",), (1, 1, width), "same"
    yield f"{model}.pos_embed", ("dpt.embeddings.position_embeddings",), (1, patches + 1, width), "same"
    yield from _layer(f"{model}.patch_embed.proj", "dpt.embeddings.projection", width, sizes[-1], 1, 1)
    yield from _backbone(int(backbone["embedding_size"]), sizes, depths)
    for number in range(int(config["num_hidden_layers"])):
        ldm, other = f"{model}.blocks.{number}", f"dpt.encoder.layer.{number}"
        yield from _norm(f"{ldm}.norm1", f"{other}.layernorm_before", width)
        yield from _norm(f"{ldm}.norm2", f"{other}.layernorm_after", width)
        roles = [f"{other}.attention.attention.{role}" for role in ("query", "key", "value")]
        yield from _stacked(f"{ldm}.attn.qkv.", roles, width)
        yield from _layer(f"{ldm}.attn.proj", f"{other}.attention.output.dense", width, width)
        yield from _layer(f"{ldm}.mlp.fc1", f"{other}.intermediate.dense", inner, width)
        yield from _layer(f"{ldm}.mlp.fc2", f"{other}.output.dense", width, inner)
    yield from _norm(f"{model}.norm", "dpt.layernorm", width)
    yield from _neck(list(map(int, config["neck_hidden_sizes"])), int(config["fusion_hidden_size"]), width)


def _backbone(width: int, sizes: Sequence[int], depths: Sequence[int]) -> Rows:
    ldm, other = "pretrained.model.patch_embed.backbone.", "dpt.embeddings.backbone.bit."
    yield from _layer(f"{ldm}stem.conv", f"{other}embedder.convolution", width, 3, 7, 7, bias=False)
    yield from _norm(f"{ldm}stem.norm", f"{other}embedder.norm", width)
    for stage, (wide, depth) in enumerate(zip(sizes, depths, strict=True)):
        inner = wide // 4
        for number in range(depth):
            here, there = f"{ldm}stages.{stage}.blocks.{number}.", f"{other}encoder.stages.{stage}.layers.{number}."
            if number == 0:
                yield from _layer(here + "downsample.conv", there + "downsample.conv", wide, width, 1, 1, bias=False)
                yield from _norm(here + "downsample.norm", there + "downsample.norm", wide)
            shapes = ((inner, width, 1, 1), (inner, inner, 3, 3), (wide, inner, 1, 1))
            for part, shape in enumerate(shapes, start=1):
                yield from _layer(f"{here}conv{part}", f"{there}conv{part}", *shape, bias=False)
                yield from _norm(f"{here}norm{part}", f"{there}norm{part}", shape[0])
            width = wide


def _neck(sizes: Sequence[int], fusion: int, width: int) -> Rows:
    pretrained, reassemble = "pretrained.act_postprocess", "neck.reassemble_stage"
    for number in (2, 3):  # of a hybrid the first two taps are in its ResNet, and need no reassembling
        ldm, other = f"{pretrained}{number + 1}", f"{reassemble}.layers.{number}"
        yield from _layer(f"{ldm}.0.project.0", f"{reassemble}.readout_projects.{number}.0", width, 2 * width)
        yield from _layer(f"{ldm}.3", f"{other}.projection", sizes[number], width, 1, 1)
    yield from _layer(f"{pretrained}4.4", f"{reassemble}.layers.3.resize", sizes[3], sizes[3], 3, 3)
    for number, size in enumerate(sizes):
        yield from _layer(f"scratch.layer{number + 1}_rn", f"neck.convs.{number}", fusion, size, 3, 3, bias=False)
        # MiDaS counts its fusion stages from the fine end, transformers from the coarse one.
        ldm, other = f"scratch.refinenet{len(sizes) - number}", f"neck.fusion_stage.layers.{number}"
        yield from _layer(f"{ldm}.out_conv", f"{other}.projection", fusion, fusion, 1, 1)
        for unit in (1, 2):
            for part in (1, 2):
                here, there = f"resConfUnit{unit}.conv{part}", f"residual_layer{unit}.convolution{part}"
                yield from _layer(f"{ldm}.{here}", f"{other}.{there}", fusion, fusion, 3, 3)
    for number, shape in ((0, (fusion // 2, fusion, 3, 3)), (2, (32, fusion // 2, 3, 3)), (4, (1, 32, 1, 1))):
        yield from _layer(f"scratch.output_conv.{number}", f"head.head.{number}", *shape)
