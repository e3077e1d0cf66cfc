"""LoRAs: small changes of weights, made for a job and undone after it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import nn

from ..checkpoints.storage.opening import CheckpointFile, open_checkpoint
from ..errors import CheckpointError
from .library import LoraFile
from .networks import Networks

PARTS: Final[Mapping[str, str]] = {
    "lora_up.weight": "up",
    "lora_down.weight": "down",
    "lora_mid.weight": "mid",
    "lora_B.weight": "up",
    "lora_A.weight": "down",
    "lora_B.default.weight": "up",
    "lora_A.default.weight": "down",
    "lora.up.weight": "up",
    "lora.down.weight": "down",
    "lora_linear_layer.up.weight": "up",
    "lora_linear_layer.down.weight": "down",
    "up.weight": "up",
    "down.weight": "down",
    "alpha": "alpha",
}
"""Names that trainers give to the parts of a LoRA: kohya, peft, diffusers."""

PREFIXES: Final[Mapping[str, Sequence[str]]] = {
    "unet": ("lora_unet_", "unet_", "base_model_model_", ""),
    "text_encoder": ("lora_te_text_model_", "text_encoder_text_model_", "base_model_model_text_model_", "text_model_"),
}
"""Component -> what may stand before a module's name."""


@dataclass
class Change:
    """The change of one module's weight: `up @ down`, with `mid` between them, times `alpha / rank`."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    def delta(self, like: torch.Tensor) -> torch.Tensor:
        """Return the change in the shape of a weight, float32 on its device.

        Raises:
            ValueError: its shape is another one.
        """
        up, down = (self.tensors[name].to(like.device, torch.float32) for name in ("up", "down"))
        rank = down.shape[0]
        scale = float(self.tensors["alpha"]) / rank if "alpha" in self.tensors else 1.0
        if "mid" in self.tensors:
            mid = self.tensors["mid"].to(like.device, torch.float32)
            made = torch.einsum("nmkl,in,mj->ijkl", mid, up.flatten(1), down.flatten(1))
        else:
            made = up.flatten(1) @ down.flatten(1)
        if made.numel() != like.numel() or made.shape[0] != like.shape[0]:
            raise ValueError(f"{tuple(made.shape)} for a weight of shape {tuple(like.shape)}")
        return made.reshape(like.shape) * scale


def read_changes(file: CheckpointFile, weights: Collection[str]) -> dict[str, Change]:
    """Read a LoRA file: module -> change.

    Args:
        file: with names of kohya's, peft's or diffusers' making.
        weights: names as in `weights_by_name`.

    Raises:
        CheckpointError: something in it is not a LoRA's, or for a module that is not there.
    """
    found: dict[str, Change] = {}
    strange: list[str] = []
    for key in file.keys():
        part = next((part for part in PARTS if key.endswith(f".{part}")), "")
        name = _canonical(key[: -len(part) - 1]) if part else ""
        if name not in weights:
            strange.append(key)
            continue
        found.setdefault(name, Change()).tensors[PARTS[part]] = file.get(key)
    incomplete = [name for name, change in found.items() if not {"up", "down"} <= change.tensors.keys()]
    if strange or incomplete or not found:
        raise CheckpointError(
            f"{file.path.name} is not a LoRA for this model.",
            got=f"{len(strange) or len(incomplete)} tensors that fit nowhere, such as {(strange or incomplete)[:2]}",
            fix="LoRAs for Stable Diffusion 2 by kohya's trainer, peft or diffusers are read, LoHa, LoKr and DoRA not.",
        )
    return found


def weights_by_name(networks: Networks) -> dict[str, torch.Tensor]:
    """Return the weights that a LoRA may change, by component and module, such as `unet:mid_block_resnets_0_conv1`."""
    found: dict[str, torch.Tensor] = {}
    for component, network in (("unet", networks.unet), ("text_encoder", networks.text_encoder)):
        for name, module in network.named_modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                found[f"{component}:{name.removeprefix('text_model.').replace('.', '_')}"] = module.weight
    return found


def _canonical(name: str) -> str:
    """Bring a module's name in a LoRA file into the form of `weights_by_name`."""
    name = re.sub(r"\.processor\.(to_[qkv])_lora$", r".\1", name)
    name = re.sub(r"\.processor\.to_out_lora$", ".to_out.0", name).replace(".", "_")
    for component in ("text_encoder", "unet"):
        for prefix in PREFIXES[component]:
            if name.startswith(prefix):
                return f"{component}:{name[len(prefix) :]}"
    return name


@contextlib.contextmanager
def with_loras(networks: Networks, loras: Sequence[LoraFile]) -> Iterator[None]:
    """Change the networks' weights for the block, and put them back to the bit after it.

    Args:
        networks: changed in place.
        loras: applied one after the other.

    Raises:
        CheckpointError: a file cannot be read, or does not fit the model.
    """
    if not loras:
        yield
        return
    weights = weights_by_name(networks)
    changes = [(one, read_changes(open_checkpoint(one.path), weights)) for one in loras]
    kept: dict[str, torch.Tensor] = {}
    networks.settle()
    try:
        for one, of_modules in changes:
            for name, change in of_modules.items():
                factor = one.lora.unet if name.startswith("unet:") else one.lora.text
                if factor != 0:
                    weight = weights[name].data
                    if name not in kept:
                        kept[name] = weight.to("cpu", copy=True)
                    _add(weight, change, factor, f"{one.path.name}: {name}")
        yield
    finally:
        networks.settle()
        for name, weight in kept.items():
            weights[name].data.copy_(weight)


def _add(weight: torch.Tensor, change: Change, factor: float, where: str) -> None:
    try:
        delta = change.delta(weight)
    except (ValueError, RuntimeError) as problem:
        raise CheckpointError(
            "A LoRA does not fit this model.",
            got=f"{where[:120]}: {problem}"[:240],
            fix="Use one that was trained on Stable Diffusion 2.",
        ) from problem
    weight.copy_(weight.float() + delta * factor)
