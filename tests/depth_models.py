"""Small random depth models of transformers in folders as the hub has them; runs with the WebUI's old version, too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
}
NECK: dict[str, Any] = {"neck_hidden_sizes": [8, 16, 24, 32], "fusion_hidden_size": 16}
STANDARD: dict[str, Any] = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 3}
PROCESSORS: dict[str, dict[str, Any]] = {
    # As published with dpt-large, Depth-Anything-V2-Small-hf and zoedepth-nyu-kitti, smaller.
    "dpt": {**STANDARD, "image_processor_type": "DPTImageProcessor", "size": {"height": 64, "width": 64}},
    "depth_anything": {
        "image_processor_type": "DPTImageProcessor",
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
        "size": {"height": 70, "width": 70},
        "keep_aspect_ratio": True,
        "ensure_multiple_of": 14,
    },
    # As published with dpt-dinov2-small-nyu.
    "dpt_dinov2": {
        "image_processor_type": "DPTImageProcessor",
        "do_resize": False,
        "do_rescale": False,
        "do_pad": True,
        "size_divisor": 14,
        "image_mean": [123.675, 116.28, 103.53],
        "image_std": [58.395, 57.12, 57.375],
    },
    "zoedepth": {
        **STANDARD,
        "image_processor_type": "ZoeDepthImageProcessor",
        "resample": 2,
        "do_pad": True,
        "size": {"height": 64, "width": 96},
        "keep_aspect_ratio": True,
        "ensure_multiple_of": 32,
    },
}


def dinov2(**further: Any) -> Any:
    """Configuration of a small DINOv2; the last of its five blocks is not used."""
    import transformers as t

    sizes = {**SIZES, "num_hidden_layers": 5, "mlp_ratio": 2, "image_size": 70, "patch_size": 14}
    return t.Dinov2Config(**sizes, out_indices=[1, 2, 3, 4], reshape_hidden_states=False, **further)


def seed(made: nn.Module) -> None:
    """Fill a network with random numbers that keep the values in every layer in a useful range."""
    generator = torch.Generator().manual_seed(7)
    for name, value in made.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        if value.ndim < 2:
            value.data = (1.0 if name.endswith("weight") else 0.3) + 0.1 * noise
        else:
            value.data = noise * value[0].numel() ** -0.5


def network(kind: str) -> nn.Module:
    """A seeded network: `dpt`, `dpt_dinov2`, `depth_anything`, `depth_anything_metric` or `zoedepth`."""
    import transformers as t

    torch.manual_seed(5)
    if kind == "dpt":
        config = t.DPTConfig(
            **SIZES,
            **NECK,
            intermediate_size=64,
            image_size=64,
            patch_size=16,
            backbone_out_indices=[0, 1, 2, 3],
            is_hybrid=False,
        )
        made = t.DPTForDepthEstimation(config)
    elif kind == "dpt_dinov2":
        config = t.DPTConfig(
            backbone_config=dinov2(apply_layernorm=False),
            neck_hidden_sizes=[8, 16, 24, 32],
            fusion_hidden_size=256,  # what `add_projection` has built in
            add_projection=True,
            use_bias_in_fusion_residual=False,
        )
        made = t.DPTForDepthEstimation(config)
    elif kind.startswith("depth_anything"):
        sense = {"depth_estimation_type": "metric", "max_depth": 20} if kind.endswith("metric") else {}
        made = t.DepthAnythingForDepthEstimation(
            t.DepthAnythingConfig(
                backbone_config=dinov2(),
                reassemble_hidden_size=32,
                patch_size=14,
                head_hidden_size=8,
                **NECK,
                **sense,
            )
        )
    else:
        backbone = t.BeitConfig(
            **SIZES,
            intermediate_size=64,
            image_size=64,
            patch_size=16,
            out_indices=[1, 2, 3, 4],
            reshape_hidden_states=False,
            use_relative_position_bias=True,
            use_absolute_position_embeddings=False,
            add_fpn=False,
        )
        made = t.ZoeDepthForDepthEstimation(
            t.ZoeDepthConfig(
                backbone_config=backbone,
                backbone_hidden_size=32,
                bottleneck_features=16,
                bin_embedding_dim=16,
                num_relative_features=8,
                num_attractors=[4, 3, 2, 1],
                bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0, "name": "nyu"}],
                **NECK,
            )
        )
    seed(made)
    if kind in ("dpt_dinov2", "depth_anything_metric"):  # metres: none below 10 cm
        last = made.head.conv3 if kind.startswith("depth_anything") else made.head.head[4]
        last.bias.data += 4
    return made.eval().requires_grad_(False)


def write(folder: Path, kind: str) -> nn.Module:
    """Saves such a model as the hub has it, and returns the network."""
    made = network(kind)
    made.save_pretrained(str(folder), safe_serialization=True)
    processor = PROCESSORS[kind.removesuffix("_metric")]
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf8")
    return made


def in_authors_layout(made: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a Depth Anything of transformers, as Depth Anything's authors name and join them."""
    state = made.state_dict()
    dino, neck, head = "backbone.", "neck.", "depth_head.scratch."
    found = {
        "pretrained.cls_token": state[dino + "embeddings.cls_token"],
        "pretrained.mask_token": torch.zeros(1, state[dino + "embeddings.cls_token"].shape[-1]),
        "pretrained.pos_embed": state[dino + "embeddings.position_embeddings"],
    }

    def take(ours: str, theirs: str) -> None:
        for end in ("weight", "bias"):
            if f"{theirs}.{end}" in state:
                found[f"{ours}.{end}"] = state[f"{theirs}.{end}"]

    take("pretrained.patch_embed.proj", dino + "embeddings.patch_embeddings.projection")
    take("pretrained.norm", dino + "layernorm")
    for index in range(made.config.backbone_config.num_hidden_layers):
        ours, theirs = f"pretrained.blocks.{index}.", f"{dino}encoder.layer.{index}."
        for end in ("weight", "bias"):
            parts = [state[f"{theirs}attention.attention.{part}.{end}"] for part in ("query", "key", "value")]
            found[f"{ours}attn.qkv.{end}"] = torch.cat(parts)
        take(ours + "attn.proj", theirs + "attention.output.dense")
        for number in (1, 2):
            take(f"{ours}norm{number}", f"{theirs}norm{number}")
            take(f"{ours}mlp.fc{number}", f"{theirs}mlp.fc{number}")
            found[f"{ours}ls{number}.gamma"] = state[f"{theirs}layer_scale{number}.lambda1"]
    for level in range(4):
        take(f"depth_head.projects.{level}", f"{neck}reassemble_stage.layers.{level}.projection")
        take(f"depth_head.resize_layers.{level}", f"{neck}reassemble_stage.layers.{level}.resize")
        take(f"{head}layer{level + 1}_rn", f"{neck}convs.{level}")
        ours, theirs = f"{head}refinenet{level + 1}.", f"{neck}fusion_stage.layers.{3 - level}."
        take(ours + "out_conv", theirs + "projection")
        for unit in (1, 2):
            for number in (1, 2):
                take(f"{ours}resConfUnit{unit}.conv{number}", f"{theirs}residual_layer{unit}.convolution{number}")
    for ours, theirs in (("output_conv1", "conv1"), ("output_conv2.0", "conv2"), ("output_conv2.2", "conv3")):
        take(head + ours, f"head.{theirs}")
    return found
