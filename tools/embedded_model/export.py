"""The shipped form: one fp16 safetensors file, and the way back from it to the four networks.

Keys are those of diffusers and transformers behind a prefix: `unet.`, `vae.`, `text_encoder.` and
`depth_estimator.`. Configurations are JSON strings in the file's metadata. The text encoder's token
table is stored without the rows that were never trained:

    text_encoder.text_model.embeddings.token_embedding.rows      fp16 (R + 1, width)
    text_encoder.text_model.embeddings.token_embedding.row_ids   int32 (R,), rising CLIP ids

Row i belongs to CLIP id row_ids[i]; the last row is shared by every other of the 49408 ids.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from depth2img.embedded.depth_net import TinyDepthNet
from tools.embedded_model.models import (
    BETA_END,
    BETA_START,
    DEPTH_CONFIG,
    TEXT_CONFIG,
    TRAINING_STEPS,
    UNET_CONFIG,
    VAE_CONFIG,
)
from tools.embedded_model.tokens import CLIP_ROWS, trained_ids

FORMAT: Final = "depth2img-embedded"
LIMIT_BYTES: Final = 24_000_000
PART_BYTES: Final = 14_000_000
TOKEN_TABLE: Final = "text_model.embeddings.token_embedding."
SCHEDULER_CONFIG: Final[dict[str, Any]] = {
    "_class_name": "DDIMScheduler",
    "beta_end": BETA_END,
    "beta_schedule": "scaled_linear",
    "beta_start": BETA_START,
    "clip_sample": False,
    "num_train_timesteps": TRAINING_STEPS,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


@dataclass(frozen=True)
class Networks:
    """The embedded model in memory; `text` knows all 49408 ids once it has been through a file."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text: CLIPTextModel
    depth: TinyDepthNet
    scaling_factor: float

    def to(self, device: torch.device) -> Networks:
        """Move the networks to another device."""
        for net in (self.unet, self.vae, self.text, self.depth):
            net.to(device)
        return self


def _with_prefix(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    state = {}
    for key, value in module.state_dict().items():
        stored = value.half() if value.dtype.is_floating_point else value
        state[prefix + key] = stored.cpu().contiguous().clone()
    return state


def write(networks: Networks, path: Path, notes: dict[str, Any]) -> int:
    """Write the networks in fp16 with `notes` (anything JSON) in the metadata; return the bytes written."""
    state = _with_prefix("unet.", networks.unet) | _with_prefix("vae.", networks.vae)
    state |= _with_prefix("text_encoder.", networks.text) | _with_prefix("depth_estimator.", networks.depth)
    table = "text_encoder." + TOKEN_TABLE
    state[table + "rows"] = state.pop(table + "weight")
    state[table + "row_ids"] = torch.tensor(trained_ids(), dtype=torch.int32)
    state.pop("text_encoder.text_model.embeddings.position_ids", None)
    configs: dict[str, Any] = {
        "unet_config": {"_class_name": "UNet2DConditionModel", **UNET_CONFIG},
        "vae_config": {"_class_name": "AutoencoderKL", **VAE_CONFIG, "scaling_factor": networks.scaling_factor},
        "text_encoder_config": {
            "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "vocab_size": CLIP_ROWS, **TEXT_CONFIG,
        },
        "depth_estimator_config": {"target": "depth2img.embedded.depth_net.TinyDepthNet", **DEPTH_CONFIG},
        "scheduler_config": SCHEDULER_CONFIG,
        "notes": notes,
    }  # fmt: skip
    metadata = {"format": "pt", "kind": FORMAT, "version": "1"} | {
        key: json.dumps(value) for key, value in configs.items()
    }
    for key, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{key} holds values that are not finite in fp16: the training has failed")
    size = _save(state, path, metadata)
    if size > LIMIT_BYTES:
        raise ValueError(f"{path.name} holds {size} bytes, more than {LIMIT_BYTES}: choose smaller networks")
    return size


def _save(state: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> int:
    beside = path.with_suffix(".part")
    save_file(state, beside, metadata=metadata)
    beside.chmod(0o644)
    beside.replace(path)
    return path.stat().st_size


def split(path: Path, folder: Path, most: int = PART_BYTES) -> list[Path]:
    """Write a file as parts of at most about `most` bytes, each a safetensors file with the whole metadata."""
    with safe_open(path, framework="pt") as file:
        metadata, state = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}
    groups: list[dict[str, Tensor]] = [{}]
    held = 0
    for key, value in sorted(state.items()):
        if held + value.nbytes > most and groups[-1]:
            groups.append({})
            held = 0
        groups[-1][key] = value
        held += value.nbytes
    parts = [folder / f"{path.stem}.part{number}.safetensors" for number in range(1, len(groups) + 1)]
    for part, group in zip(parts, groups, strict=True):
        _save(group, part, metadata | {"parts": str(len(groups))})
    return parts


def join(parts: Sequence[Path], path: Path) -> int:
    """One file again out of its parts; return its bytes."""
    state: dict[str, Tensor] = {}
    for part in parts:
        with safe_open(part, framework="pt") as file:
            metadata = file.metadata()
            state |= {key: file.get_tensor(key) for key in file.keys()}
    if int(metadata.pop("parts")) != len(parts):
        raise ValueError(f"{path.name}: {len(parts)} parts were given, but it has another number of them")
    return _save(state, path, metadata)


def _take(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value.float() if value.is_floating_point() else value
            for key, value in state.items() if key.startswith(prefix)}  # fmt: skip


def read(path: Path) -> Networks:
    """Read the networks of a file, in fp32, in eval mode, the token table at its full 49408 rows."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        state = {key: file.get_tensor(key) for key in file.keys()}
    configs = {key: json.loads(value) for key, value in metadata.items() if key.endswith("_config")}
    unet, vae = UNet2DConditionModel(**_plain(configs["unet_config"])), AutoencoderKL(**_plain(configs["vae_config"]))
    text = CLIPTextModel(CLIPTextConfig(**configs["text_encoder_config"]))
    depth = TinyDepthNet(tuple(configs["depth_estimator_config"]["channels"]))
    text_state = _take(state, "text_encoder.")
    rows, ids = text_state.pop(TOKEN_TABLE + "rows"), text_state.pop(TOKEN_TABLE + "row_ids").long()
    full = rows[-1].repeat(CLIP_ROWS, 1)
    full[ids] = rows[:-1]
    text_state[TOKEN_TABLE + "weight"] = full
    unet.load_state_dict(_take(state, "unet."))
    vae.load_state_dict(_take(state, "vae."))
    text.load_state_dict(text_state)
    depth.load_state_dict(_take(state, "depth_estimator."))
    for network in (unet, vae, text, depth):
        network.eval().requires_grad_(False)
    return Networks(unet, vae, text, depth, float(configs["vae_config"]["scaling_factor"]))


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if not key.startswith("_")}


def main() -> None:
    """Join parts: `python -m tools.embedded_model.export FILE PART PART ...`."""
    parser = argparse.ArgumentParser(description="Join the parts of an exported model.")
    parser.add_argument("file", type=Path)
    parser.add_argument("parts", type=Path, nargs="+")
    arguments = parser.parse_args()
    print(f"{arguments.file}: {join(arguments.parts, arguments.file)} bytes")


if __name__ == "__main__":
    main()
