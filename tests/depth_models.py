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


def network(kind: str) -> nn.Module:
    """A seeded network: `dpt`, `depth_anything`, `depth_anything_metric` or `zoedepth`."""
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
    elif kind.startswith("depth_anything"):
        backbone = t.Dinov2Config(
            **SIZES, mlp_ratio=2, image_size=70, patch_size=14, out_indices=[1, 2, 3, 4], reshape_hidden_states=False
        )
        sense = {"depth_estimation_type": "metric", "max_depth": 20} if kind.endswith("metric") else {}
        made = t.DepthAnythingForDepthEstimation(
            t.DepthAnythingConfig(
                backbone_config=backbone,
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
    generator = torch.Generator().manual_seed(7)
    for name, value in made.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        if value.ndim < 2:
            value.data = (1.0 if name.endswith("weight") else 0.3) + 0.1 * noise
        else:
            value.data = noise * value[0].numel() ** -0.5
    return made.eval().requires_grad_(False)


def write(folder: Path, kind: str) -> nn.Module:
    """Saves such a model as the hub has it, and returns the network."""
    made = network(kind)
    made.save_pretrained(str(folder), safe_serialization=True)
    processor = PROCESSORS[kind.removesuffix("_metric")]
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf8")
    return made
