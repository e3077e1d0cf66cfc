"""The YAML beside a single file, by which `ldm` builds the model: read and written as data, never instantiated."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from ...errors import CheckpointError
from ..storage.tensors import Tensors
from . import keys
from .config import (
    MAX_LAYERS,
    MAX_LEVELS,
    TINY_DEPTH,
    VIT_H,
    Config,
    ModelConfig,
    checked,
    from_json,
    read_text,
    reading,
    take_midas,
)
from .key_map import has_attention

METADATA: Final = "depth2img.anatomy"
"""Metadata of a single file that was written here: its model config."""

CLASS: Final = "ldm.models.diffusion.ddpm.LatentDepth2ImageDiffusion"
MIDAS_CLASS: Final = "ldm.modules.midas.api.MiDaSInference"
TEXT_CLASS: Final = "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder"
UNET_CLASS: Final = "ldm.modules.diffusionmodules.openaimodel.UNetModel"
VAE_CLASS: Final = "ldm.models.autoencoder.AutoencoderKL"
NO_LOSS: Final = "torch.nn.Identity"
"""Classes that the ldm YAML of a depth checkpoint names as `target`."""

CLIP_TOKENS: Final = 49408
HEAD_WIDTH: Final = 64
"""Channels of an attention head in the transformers of CLIP and ViT."""

DEFAULT_SCALE: Final = 0.18215
"""Factor of latents where an autoencoder's configuration does not name one (diffusers' default)."""

OWN_ARCH: Final = re.compile(r"depth2img-text-w(\d{1,5})-h(\d{1,3})-l(\d{1,3})")
"""Names of text encoders that OpenCLIP does not know: width, heads, layers in the file. See `open_clip_config`."""


def open_clip_config(arch: str) -> Config | None:
    """Return OpenCLIP's configuration of one of our text encoders (`open_clip.add_model_config`), None for its own.

    The picture half is a stump: `ldm` builds it and throws it away.
    """
    match = OWN_ARCH.fullmatch(arch)
    if match is None:
        return None
    width, heads, layers = (int(number) for number in match.groups())
    return {
        "embed_dim": width,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": CLIP_TOKENS, "width": width, "heads": heads, "layers": layers},
    }


def text_config(*, width: int, heads: int, layers: int) -> Config:
    """Return the configuration of a `CLIPTextModel` with OpenCLIP's habits: GELU, 77 tokens, CLIP's vocabulary."""
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": 77,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": width,
        "vocab_size": CLIP_TOKENS,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }


def scheduler_config(*, beta_start: float, beta_end: float, steps: int, prediction: str) -> Config:
    """Return the configuration of a `DDIMScheduler` with `ldm`'s noise schedule (linear in the root of beta)."""
    return {
        "_class_name": "DDIMScheduler",
        "beta_start": beta_start,
        "beta_end": beta_end,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": steps,
        "prediction_type": prediction,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "timestep_spacing": "leading",
    }


def dpt_config(tensors: Tensors) -> Config:
    """Derive the configuration of a hybrid `DPTForDepthEstimation` from the shapes of a single file's MiDaS."""
    model = keys.MIDAS + "pretrained.model."
    backbone = model + "patch_embed.backbone."

    stages = count_layers(tensors, backbone + "stages.")
    depths = [count_layers(tensors, f"{backbone}stages.{stage}.blocks.") for stage in range(stages)]
    sizes = [tensors.shape(f"{backbone}stages.{stage}.blocks.0.conv3.weight")[0] for stage in range(stages)]
    width, patches = tensors.shape(model + "cls_token")[2], tensors.shape(model + "pos_embed")[1] - 1
    grid = round(patches**0.5)
    neck = [tensors.shape(f"{keys.MIDAS}scratch.layer{number}_rn.weight") for number in (1, 2, 3, 4)]
    return {
        "architectures": ["DPTForDepthEstimation"],
        "model_type": "dpt",
        "is_hybrid": True,
        "hidden_size": width,
        "intermediate_size": tensors.shape(model + "blocks.0.mlp.fc1.weight")[0],
        "num_hidden_layers": count_layers(tensors, model + "blocks."),
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "hidden_act": "gelu",
        # timm's, which the single file was trained with; the published folder says 1e-12.
        "layer_norm_eps": 1e-6,
        "image_size": grid * 16,
        "patch_size": 16,
        "num_channels": 3,
        "qkv_bias": True,
        "backbone_out_indices": [2, 5, 8, 11],
        "neck_hidden_sizes": [shape[1] for shape in neck],
        "neck_ignore_stages": [0, 1],
        "fusion_hidden_size": neck[0][0],
        "readout_type": "project",
        "reassemble_factors": [1, 1, 1, 0.5],
        "backbone_featmap_shape": [1, sizes[-1], grid, grid],
        "backbone_config": {
            "model_type": "bit",
            "layer_type": "bottleneck",
            "global_padding": "same",
            "embedding_dynamic_padding": True,
            "embedding_size": tensors.shape(backbone + "stem.conv.weight")[0],
            "hidden_sizes": sizes,
            "depths": depths,
            "num_groups": 32,
            "out_features": [f"stage{number + 1}" for number in range(stages)],
        },
    }


def count_layers(tensors: Tensors, prefix: str) -> int:
    """Count the layers that the names below a prefix number; raises `ValueError` where no network has so many."""
    numbers = [key[len(prefix) :].partition(".")[0] for key in tensors.keys() if key.startswith(prefix)]
    found = 1 + max((int(number) for number in numbers if number.isdecimal()), default=-1)
    if found > MAX_LAYERS:  # names come from the file
        raise ValueError(f"{found} layers at {prefix}")
    return found


def to_ldm(config: ModelConfig) -> Config:
    """Return the ldm YAML of a model, as data."""
    unet, scheduler = config.unet, config.scheduler
    params: Config = {
        "linear_start": scheduler["beta_start"],
        "linear_end": scheduler["beta_end"],
        "timesteps": scheduler["num_train_timesteps"],
        "num_timesteps_cond": 1,
        "log_every_t": 200,
        "first_stage_key": "jpg",
        "cond_stage_key": "txt",
        "cond_stage_trainable": False,
        "conditioning_key": "hybrid",
        "image_size": unet.get("sample_size") or 64,
        "channels": unet["out_channels"],
        "scale_factor": config.vae.get("scaling_factor", DEFAULT_SCALE),
        "use_ema": False,
        "finetune_keys": None,
    }
    if scheduler.get("prediction_type", "epsilon") == "v_prediction":
        params["parameterization"] = "v"
    depth: Config = {"target": MIDAS_CLASS, "params": {"model_type": "dpt_hybrid"}}
    if not config.is_midas:
        depth = {"target": TINY_DEPTH, "params": {"channels": list(config.depth_estimator["channels"])}}
    params["depth_stage_config"] = depth
    params["unet_config"] = {"target": UNET_CLASS, "params": _unet_to_ldm(unet)}
    params["first_stage_config"] = {"target": VAE_CLASS, "params": _vae_to_ldm(config.vae)}
    text: Config = {"freeze": True, "layer": "penultimate" if config.penultimate else "last"}
    if config.arch != VIT_H:
        text |= {"arch": config.arch, "version": None}
    params["cond_stage_config"] = {"target": TEXT_CLASS, "params": text}
    return {"model": {"target": CLASS, "params": params}}


def to_yaml(config: ModelConfig) -> str:
    """Return the ldm YAML of a model, as text."""
    return yaml.safe_dump(to_ldm(config), sort_keys=False)


def _multipliers(widths: Sequence[int], what: str) -> list[int]:
    if any(width % widths[0] for width in widths):
        raise CheckpointError(
            f"The {what}'s widths do not fit the single-file layout.",
            got=", ".join(map(str, widths)),
            fix="It needs whole multiples of the first width.",
        )
    return [width // widths[0] for width in widths]


def _unet_to_ldm(unet: Mapping[str, Any]) -> Config:
    widths = list(unet["block_out_channels"])
    heads = unet["attention_head_dim"]  # diffusers' name for the number of heads
    heads = [heads] * len(widths) if isinstance(heads, int) else list(heads)
    head_widths = {width // count for width, count in zip(widths, heads, strict=True)}
    if len(head_widths) != 1:
        raise CheckpointError("The UNet's attention heads differ in width; the single-file layout has one width.")
    return {
        "image_size": 32,
        "in_channels": unet["in_channels"],
        "out_channels": unet["out_channels"],
        "model_channels": widths[0],
        "channel_mult": _multipliers(widths, "UNet"),
        "num_res_blocks": unet["layers_per_block"],
        "attention_resolutions": [2**n for n, name in enumerate(unet["down_block_types"]) if has_attention(name)],
        "num_head_channels": head_widths.pop(),
        "use_spatial_transformer": True,
        "use_linear_in_transformer": True,
        "transformer_depth": 1,
        "context_dim": unet["cross_attention_dim"],
        "use_checkpoint": False,
        "legacy": False,
    }


def _vae_to_ldm(vae: Mapping[str, Any]) -> Config:
    widths = list(vae["block_out_channels"])
    return {
        "embed_dim": vae["latent_channels"],
        "ddconfig": {
            "double_z": True,
            "z_channels": vae["latent_channels"],
            "resolution": 256,
            "in_channels": vae["in_channels"],
            "out_ch": vae["out_channels"],
            "ch": widths[0],
            "ch_mult": _multipliers(widths, "autoencoder"),
            "num_res_blocks": vae["layers_per_block"],
            "attn_resolutions": [],
            "dropout": 0.0,
        },
        "lossconfig": {"target": NO_LOSS},
    }


def from_single_file(path: Path, tensors: Tensors) -> ModelConfig:
    """Read the model config of a single file: from its metadata, else its YAML, else Stable Diffusion 2's.

    Raises:
        CheckpointError: the YAML cannot be used, or the file holds no depth model.
    """
    if not any(name.startswith(keys.DEPTH) for name in tensors.keys()):
        raise CheckpointError(
            f"{path.name} holds no depth network.", got="no tensor named depth_model.*", fix=take_midas(path)
        )
    own = tensors.metadata.get(METADATA)
    if own is not None:
        return from_json(own)
    sidecar = path.with_suffix(".yaml")
    with reading(f"YAML of {path.name}"):
        return checked(_from_yaml(yaml.safe_load(read_text(sidecar)) if sidecar.is_file() else SD2_YAML, tensors))


def read_params(path: Path) -> Mapping[str, Any]:
    """Read `model.params` of an ldm YAML; raises `KeyError` and the like."""
    params: Mapping[str, Any] = yaml.safe_load(read_text(path))["model"]["params"]
    return params


def _from_yaml(values: Any, tensors: Tensors) -> ModelConfig:
    params = values["model"]["params"]
    text, penultimate = text_from_ldm(params, tensors)
    depth = params.get("depth_stage_config") or {}
    return ModelConfig(
        unet=unet_from_ldm(params),
        vae=vae_from_ldm(params),
        text_encoder=text,
        depth_estimator=_depth_from_ldm(depth, tensors),
        scheduler=scheduler_from_ldm(params),
        penultimate=penultimate,
    )


def unet_from_ldm(params: Mapping[str, Any]) -> Config:
    """Read the UNet's configuration from a YAML's `model.params`; raises `KeyError` and the like."""
    unet = params["unet_config"]["params"]
    widths = _widths(unet["model_channels"], unet["channel_mult"], unet["num_res_blocks"])
    crossed = [2**level in list(unet["attention_resolutions"]) for level in range(len(widths))]
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": int(params.get("image_size", 64)),
        "in_channels": int(unet["in_channels"]),
        "out_channels": int(unet["out_channels"]),
        "block_out_channels": widths,
        "down_block_types": ["CrossAttnDownBlock2D" if cross else "DownBlock2D" for cross in crossed],
        "up_block_types": ["CrossAttnUpBlock2D" if cross else "UpBlock2D" for cross in reversed(crossed)],
        "layers_per_block": int(unet["num_res_blocks"]),
        "cross_attention_dim": int(unet["context_dim"]),
        "attention_head_dim": [width // int(unet["num_head_channels"]) for width in widths],
        "use_linear_projection": bool(unet.get("use_linear_in_transformer", False)),
        "norm_num_groups": 32,
    }


def _widths(first: Any, factors: Any, layers: Any) -> list[int]:
    widths = [int(first) * int(factor) for factor in factors]
    if not 0 < len(widths) <= MAX_LEVELS or not 0 < int(layers) <= MAX_LAYERS:
        raise ValueError(f"{len(widths)} levels of {layers} layers")
    return widths


def vae_from_ldm(params: Mapping[str, Any]) -> Config:
    """Read the autoencoder's configuration from a YAML's `model.params`; raises `KeyError` and the like."""
    ddconfig = params["first_stage_config"]["params"]["ddconfig"]
    widths = _widths(ddconfig["ch"], ddconfig["ch_mult"], ddconfig["num_res_blocks"])
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": int(ddconfig["in_channels"]),
        "out_channels": int(ddconfig["out_ch"]),
        "latent_channels": int(ddconfig["z_channels"]),
        "block_out_channels": widths,
        "layers_per_block": int(ddconfig["num_res_blocks"]),
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "act_fn": "silu",
        "norm_num_groups": 32,
        "sample_size": int(ddconfig.get("resolution", 256)),
        "scaling_factor": float(params["scale_factor"]),
    }


def scheduler_from_ldm(params: Mapping[str, Any]) -> Config:
    """Read the noise schedule from a YAML's `model.params`; raises `KeyError` and the like."""
    return scheduler_config(
        beta_start=float(params["linear_start"]),
        beta_end=float(params["linear_end"]),
        steps=int(params["timesteps"]),
        prediction="v_prediction" if params.get("parameterization") == "v" else "epsilon",
    )


def text_from_ldm(params: Mapping[str, Any], tensors: Tensors) -> tuple[Config, bool]:
    """Read the text encoder's configuration from a YAML's `model.params` and tensors; raises `KeyError` and the like.

    Returns:
        The configuration, and whether the tensors have one more layer than is used.
    """
    text = params["cond_stage_config"].get("params") or {}
    penultimate = text.get("layer", "last") == "penultimate"
    layers = count_layers(tensors, keys.TEXT + "transformer.resblocks.")
    if layers < 2:
        raise CheckpointError(
            "The file's text encoder is not laid out like OpenCLIP's.",
            got="no cond_stage_model.model.transformer.resblocks",
            fix="It was converted with the layout of Stable Diffusion 1; convert the original folder again.",
        )
    width = tensors.shape(f"{keys.text_layer(0)}ln_1.weight")[0]
    own = OWN_ARCH.fullmatch(str(text.get("arch", VIT_H)))
    heads = int(own[2]) if own else max(1, width // HEAD_WIDTH)
    return text_config(width=width, heads=heads, layers=layers - penultimate), penultimate


def _depth_from_ldm(depth: Mapping[str, Any], tensors: Tensors) -> Config:
    target = str(depth.get("target", ""))
    if keys.CLS_TOKEN in tensors.keys():
        return dpt_config(tensors)
    return {"target": target, **{key: list(value) for key, value in (depth.get("params") or {}).items()}}


SD2: Final = ModelConfig(
    unet={
        "in_channels": 5,
        "out_channels": 4,
        "sample_size": 64,
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "layers_per_block": 2,
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
    },
    vae={
        "scaling_factor": 0.18215,
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "latent_channels": 4,
        "in_channels": 3,
        "out_channels": 3,
    },
    text_encoder=text_config(width=1024, heads=16, layers=23),
    depth_estimator={"is_hybrid": True},
    scheduler=scheduler_config(beta_start=0.00085, beta_end=0.012, steps=1000, prediction="epsilon"),
    penultimate=True,
)
"""Stable Diffusion 2's depth model; of each part what the ldm YAML needs."""

SD2_YAML: Final[Config] = to_ldm(SD2)
"""The ldm YAML of Stable Diffusion 2's depth model, as data."""
