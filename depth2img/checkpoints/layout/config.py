"""The configurations of a depth model's parts, as plain data.

They are those of diffusers and transformers. Files that come from elsewhere are read as numbers and names; nothing in
them is ever instantiated by name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from ...errors import CheckpointError, command
from ...io.atomic import refusing
from . import key_map, keys
from .key_map import Entry
from .keys import MIDAS_FILE, Component, Shape

Config = dict[str, Any]

MAX_LENGTH, MAX_NUMBER = 1024, 2**20
"""Longest list or text, and largest number, in a configuration."""

MAX_CONFIG: Final = 1024 * 1024
"""Longest YAML or JSON that is read, in characters."""

TINY_DEPTH: Final = "depth2img.embedded.depth_net.TinyDepthNet"
"""The only depth network besides MiDaS that a checkpoint may name."""

VIT_H: Final = "ViT-H-14"

EMBEDDED: Final = "depth2img-embedded"
"""Value of `kind` in the metadata of the embedded model's own file."""


@dataclass(frozen=True)
class ModelConfig:
    """The configurations of one model.

    Attributes:
        unet, vae, text_encoder, depth_estimator, scheduler: as in the JSON files of the diffusers layout; a depth
            network that is not MiDaS has `target` and `channels` instead.
        penultimate: true if the single file has one more text layer than is used.
    """

    unet: Config
    vae: Config
    text_encoder: Config
    depth_estimator: Config
    scheduler: Config
    penultimate: bool

    @property
    def is_midas(self) -> bool:
        """True if the depth network is MiDaS' DPT-hybrid."""
        return "target" not in self.depth_estimator

    def key_map(self, depth_names: Sequence[str] = ()) -> list[Entry]:
        """Return the whole key map.

        Args:
            depth_names: names of the depth network's tensors; needed where it is not MiDaS.
        """
        midas = self.is_midas
        depth = key_map.dpt_entries(self.depth_estimator) if midas else key_map.plain_depth_entries(depth_names)
        return [
            *key_map.unet_entries(self.unet),
            *key_map.vae_entries(self.vae),
            *key_map.text_entries(self.text_encoder),
            *depth,
        ]

    def required(self) -> dict[str, Shape]:
        """Return the shapes of all that is run, by the names in the single file; of the depth network only MiDaS'."""
        return {entry.ldm: entry.shape for entry in self.key_map() if entry.shape is not None}

    @property
    def arch(self) -> str:
        """The text encoder's name in OpenCLIP."""
        width, heads = int(self.text_encoder["hidden_size"]), int(self.text_encoder["num_attention_heads"])
        layers = int(self.text_encoder["num_hidden_layers"]) + self.penultimate
        if (width, heads, layers) == (1024, 16, 24):
            return VIT_H
        return f"depth2img-text-w{width}-h{heads}-l{layers}"

    def to_json(self) -> str:
        """Return all configurations as one text, for a file's metadata."""
        parts = {name: getattr(self, name) for name in (*FOLDERS, "scheduler")}
        return json.dumps({**parts, "penultimate": self.penultimate}, sort_keys=True)


FOLDERS: Final[tuple[Component, ...]] = ("unet", "vae", "text_encoder", "depth_estimator")
"""The parts with weights, by their folder names in the diffusers layout."""


def from_json(text: str) -> ModelConfig:
    """Read the model config in a file's metadata, as `ModelConfig.to_json` wrote it.

    Raises:
        CheckpointError: it is something else.
    """
    with reading("model config in the file's metadata"):
        return checked(ModelConfig(**json.loads(text)))


def checked(config: ModelConfig) -> ModelConfig:
    """Return a model config if it is one of a depth model that this package can hold.

    Raises:
        CheckpointError: the UNet does not take depth, is not built of transformers with linear projections, or the
            depth network is an unknown one.
    """
    for name in (*FOLDERS, "scheduler"):
        _plausible(name, getattr(config, name))
    unet, depth = config.unet, config.depth_estimator
    _bounded(config)
    if unet["in_channels"] != keys.DEPTH_CHANNELS:
        raise CheckpointError(
            "This is not a depth checkpoint.",
            got=f"a UNet with {unet['in_channels']} input channels",
            fix="A depth checkpoint's UNet has 5: four of the latent and one of depth.",
        )
    if not unet.get("use_linear_projection") or any(not _known_block(name) for name in unet["down_block_types"]):
        raise CheckpointError(
            "This UNet is not built like Stable Diffusion 2's.", fix="Use a checkpoint that descends from it."
        )
    if "target" in depth and depth["target"] != TINY_DEPTH:
        raise CheckpointError(
            "The depth network is unknown.", got=str(depth["target"])[:80], fix="Use a MiDaS checkpoint."
        )
    if "target" not in depth and not depth["is_hybrid"]:
        raise CheckpointError("The depth network is not MiDaS' DPT-hybrid.", fix="Use the folder's own pipeline.")
    return config


MAX_LEVELS: Final = 8
MAX_LAYERS: Final = 64
"""Most levels of a network, and most layers of a network or of a level; Stable Diffusion 2 has 4 levels, and 24 layers.
A configuration with more would take forever to follow."""


def _bounded(config: ModelConfig) -> None:
    depth = config.depth_estimator
    levels = [*(len(part["block_out_channels"]) for part in (config.unet, config.vae))]
    layers = [int(part["layers_per_block"]) for part in (config.unet, config.vae)]
    layers.append(int(config.text_encoder["num_hidden_layers"]))
    if config.is_midas:
        layers += [int(depth["num_hidden_layers"]), *((depth.get("backbone_config") or {}).get("depths") or [])]
    if max(levels) > MAX_LEVELS or max(layers) > MAX_LAYERS:
        raise CheckpointError(
            "The model config is not of a Stable Diffusion model.",
            got=f"networks of {max(levels)} levels and {max(layers)} layers",
            fix="Get the checkpoint again.",
        )


def _plausible(name: str, value: object) -> None:
    """Refuse lists, texts and numbers that no model has and that memory would not hold."""
    if isinstance(value, (dict, list, str)):
        huge = len(value) > MAX_LENGTH
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    else:
        huge, inner = isinstance(value, (int, float)) and not abs(value) <= MAX_NUMBER, ()  # NaN too
    if huge:
        raise CheckpointError(
            f"The configuration of the {name} holds a list, a text or a number that no model has.",
            fix="Get the checkpoint again.",
        )
    for part in inner:
        _plausible(name, part)


def _known_block(name: str) -> bool:
    return name in ("CrossAttnDownBlock2D", "DownBlock2D")


def reading(what: str) -> AbstractContextManager[None]:
    """Turn exceptions about the names, numbers and shapes of an untrusted file into a `CheckpointError`."""
    return refusing(
        f"The {what} cannot be used.", CheckpointError, on=(Exception,), fix="Get the file again, or remove it."
    )


# --- folder -----------------------------------------------------------------------------------------------------------


def take_midas(path: Path) -> str:
    """Return the remedy for a file or folder without a depth network."""
    stem = path.name if path.is_dir() else path.stem
    target = path.with_name(f"{stem}-midas.safetensors")
    how = command("checkpoint", "convert", path, target, "--midas", MIDAS_FILE)
    return f"{how} takes it from MiDaS' own file; any depth checkpoint that has it will do too."


def put_into_whole(path: Path) -> str:
    """Return the remedy for a file or folder with a trained UNet alone."""
    stem = path.name if path.is_dir() else path.stem
    target = path.with_name(f"{stem}-whole.safetensors")
    how = command("checkpoint", "convert", path, target, "--base", "512-depth-ema.safetensors")
    return f"{how} puts it into a whole depth checkpoint, the one that it was trained from."


def from_folder(folder: Path, depth: Config | None = None) -> ModelConfig:
    """Read the model config of a folder in the diffusers layout.

    Args:
        folder: holds `model_index.json`.
        depth: configuration of a depth network that takes the place of the folder's own.

    Raises:
        CheckpointError: a JSON file is missing or unusable, or it is not a depth model.
    """
    if not (folder / "unet").is_dir():
        raise CheckpointError(
            f"The folder {folder.name} is not a model in the diffusers layout.",
            got="no 'unet' folder in it",
            fix="Give the folder that holds model_index.json.",
        )
    if depth is None and (folder / "model_index.json").is_file() and not (folder / "depth_estimator").is_dir():
        raise CheckpointError(
            f"The folder {folder.name} holds no depth network.",
            got="no 'depth_estimator' folder in it",
            fix=take_midas(folder),
        )
    with reading(f"configuration in {folder.name}"):
        configs = {name: read_json(folder / name / "config.json") for name in FOLDERS if name != "depth_estimator"}
        own = read_json(folder / "depth_estimator" / "config.json") if depth is None else depth
        return checked(
            ModelConfig(
                **configs,
                depth_estimator=own,
                scheduler=read_json(folder / "scheduler" / "scheduler_config.json"),
                penultimate=False,
            )
        )


def read_json(path: Path) -> Config:
    """Read a JSON object from a file of bounded size.

    Raises:
        CheckpointError: the file is missing, too large or not a JSON object.
    """
    with reading(f"file {path.parent.name}/{path.name}"):
        value = json.loads(read_text(path))
    if not isinstance(value, dict):
        raise CheckpointError(f"{path.parent.name}/{path.name} does not hold a JSON object.", fix="Get the file again.")
    return cast(Config, value)


def read_text(path: Path, limit: int = MAX_CONFIG) -> str:
    """Read a text file of at most `limit` characters.

    Raises:
        CheckpointError: it cannot be read, is larger, or is not text in UTF-8.
    """
    what = f"{path.parent.name}/{path.name}"
    with refusing(f"{what} cannot be read.", CheckpointError, fix="Copy the whole folder."):
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{what} is not a plain file.", fix="Copy the whole folder.")
        try:
            with path.open(encoding="utf-8") as file:
                text = file.read(limit + 1)
        except UnicodeDecodeError as problem:
            raise CheckpointError(
                f"{what} is not text.", got=str(problem)[:100], fix="Get the file again."
            ) from problem
    if len(text) > limit:
        raise CheckpointError(f"{path.name} is too large for a configuration.", fix="Get the file again.")
    return text
