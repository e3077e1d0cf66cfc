"""Make depth models with random weights on their device, at Stable Diffusion 2's size or small."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from depth2img.checkpoints.layout.config import ModelConfig
from depth2img.checkpoints.layout.ldm_yaml import (
    SD2_YAML,
    scheduler_config,
    text_config,
    unet_from_ldm,
    vae_from_ldm,
)
from depth2img.checkpoints.model import Model
from depth2img.checkpoints.storage.tensors import InMemory
from depth2img.diffusion.networks import Networks, build, public_config


def dpt(width: int, heads: int, sizes: Sequence[int], depths: Sequence[int], neck: Sequence[int], side: int) -> Any:
    """Return the configuration of a DPT-hybrid."""
    return {
        "model_type": "dpt",
        "is_hybrid": True,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": 12,
        "num_attention_heads": heads,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "image_size": side,
        "patch_size": 16,
        "num_channels": 3,
        "qkv_bias": True,
        "backbone_out_indices": [2, 5, 8, 11],
        "neck_hidden_sizes": list(neck),
        "neck_ignore_stages": [0, 1],
        "fusion_hidden_size": neck[0],
        "readout_type": "project",
        "reassemble_factors": [1, 1, 1, 0.5],
        "backbone_featmap_shape": [1, sizes[-1], side // 16, side // 16],
        "backbone_config": {
            "model_type": "bit",
            "layer_type": "bottleneck",
            "global_padding": "same",
            "embedding_dynamic_padding": True,
            "embedding_size": sizes[0] // 4,
            "hidden_sizes": list(sizes),
            "depths": list(depths),
            "num_groups": 32,
            "out_features": ["stage1", "stage2", "stage3"],
        },
    }


SCHEDULER = scheduler_config(beta_start=0.00085, beta_end=0.012, steps=1000, prediction="epsilon")


def full() -> ModelConfig:
    """Return the configuration of Stable Diffusion 2's depth model."""
    params = SD2_YAML["model"]["params"]
    depth = dpt(768, 12, (256, 512, 1024), (3, 4, 9), (256, 512, 768, 768), 384)
    text = text_config(width=1024, heads=16, layers=23)
    return ModelConfig(unet_from_ldm(params), vae_from_ldm(params), text, depth, SCHEDULER, penultimate=False)


def small() -> ModelConfig:
    """Return Stable Diffusion 2's configuration with narrow layers, for a CPU."""
    params = SD2_YAML["model"]["params"]
    unet = {**unet_from_ldm(params), "block_out_channels": [32, 64, 64, 64], "attention_head_dim": [1, 2, 2, 2]}
    unet |= {"cross_attention_dim": 64, "sample_size": 8, "layers_per_block": 1}
    vae = {**vae_from_ldm(params), "block_out_channels": [32, 32, 64, 64], "layers_per_block": 1}
    depth = dpt(64, 1, (128, 256, 256), (1, 1, 2), (128, 256, 64, 64), 64)
    depth["fusion_hidden_size"] = 32
    return ModelConfig(unet, vae, text_config(width=64, heads=2, layers=3), depth, SCHEDULER, penultimate=False)


@dataclass(frozen=True)
class Random:
    """Tensors of one component, each drawn when it is read.

    Attributes:
        shapes: of all of them.
        device, dtype: where and as what they are drawn.
        seed: the same gives the same tensors on one kind of device.
    """

    shapes: Mapping[str, tuple[int, ...]]
    device: torch.device
    dtype: torch.dtype
    seed: int

    @property
    def metadata(self) -> Mapping[str, str]:
        """See `Tensors.metadata`."""
        return {}

    def keys(self) -> Sequence[str]:
        """See `Tensors.keys`."""
        return list(self.shapes)

    def shape(self, key: str) -> tuple[int, ...]:
        """See `Tensors.shape`."""
        return self.shapes[key]

    def get(self, key: str) -> torch.Tensor:
        """Draw values that preserve the scale of activations."""
        shape = self.shapes[key]
        generator = torch.Generator(self.device).manual_seed(self.seed + self.keys().index(key))
        noise = torch.randn(shape, generator=generator, device=self.device)
        if key.endswith("running_var"):
            return (1 + 0.1 * noise.abs()).to(self.dtype)
        if len(shape) < 2:
            return ((1.0 if key.endswith("weight") else 0.0) + 0.1 * noise).to(self.dtype)
        scale = 0.02 if "embedding" in key or "embed" in key.rpartition(".")[2] else noise[0].numel() ** -0.5
        return (noise * scale).to(self.dtype)


def networks(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Networks:
    """Make the model; its depth network is drawn on the CPU, where results are compared."""
    parts: dict[str, Any] = {}
    for seed, (name, shapes) in enumerate(empty(config)):
        depth = name == "depth_estimator"
        where, kind = (torch.device("cpu"), torch.float32) if depth else (device, dtype)
        parts[name] = Random(shapes, where, kind, 10_000 * seed)
    state = {key: parts["depth_estimator"].get(key) for key in parts["depth_estimator"].keys()}
    # A ReLU ends MiDaS; without this half of the map would be flat.
    state["head.head.4.weight"].abs_()
    state["head.head.4.bias"].fill_(1.0)
    parts["depth_estimator"] = InMemory(state)
    model = Model(name="random", config=config, parts=parts, key_map=(), aside=InMemory({}))
    return build(model, device=device, dtype=dtype)


def empty(config: ModelConfig) -> Iterator[tuple[str, dict[str, tuple[int, ...]]]]:
    """Return the name of each component and the shapes of its tensors."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, DPTConfig, DPTForDepthEstimation

    made = {
        "unet": lambda: UNet2DConditionModel.from_config(public_config(config.unet)),
        "vae": lambda: AutoencoderKL.from_config(public_config(config.vae)),
        "text_encoder": lambda: CLIPTextModel(CLIPTextConfig(**public_config(config.text_encoder))),
        "depth_estimator": lambda: DPTForDepthEstimation(DPTConfig(**public_config(config.depth_estimator))),
    }
    for name, make in made.items():
        with torch.device("meta"):
            state = make().state_dict()
        yield name, {key: tuple(value.shape) for key, value in state.items()}
