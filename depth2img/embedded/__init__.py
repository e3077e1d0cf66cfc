"""The small bundled model: its weights and the network they need beyond diffusers and transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ..checkpoints import CheckpointFile, Model
    from ..checkpoints.layout.config import ModelConfig

WEIGHTS: Final = Path(__file__).with_name("depth2img-tiny.safetensors")
"""File of the weights."""

TABLE: Final = "text_model.embeddings.token_embedding."


def install(path: Path) -> None:
    """Write the embedded model as one file in `ldm`'s layout, and its YAML beside it, as the WebUI needs it.

    Needs neither diffusers nor transformers.

    Args:
        path: ends in `.safetensors`; an older file of that name is replaced.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    from ..checkpoints import to_single_file

    to_single_file(open_embedded(), path)


def is_embedded(file: CheckpointFile) -> bool:
    """Tell whether a file has the form of the embedded model (further training of it, for example)."""
    from ..checkpoints.layout.config import EMBEDDED

    return file.metadata.get("kind") == EMBEDDED


def read_config(source: Path | CheckpointFile = WEIGHTS) -> ModelConfig:
    """Read the configurations of the embedded model; only the file's header is read.

    Args:
        source: see `open_embedded`.

    Raises:
        CheckpointError: the file is missing, damaged or in another format.
    """
    from ..checkpoints.layout.config import FOLDERS, ModelConfig, checked, reading
    from ..checkpoints.storage.opening import open_checkpoint
    from ..errors import CheckpointError

    file = open_checkpoint(source)
    if not is_embedded(file):
        raise CheckpointError(f"{file.path.name} is not the embedded model.", fix="Install the package again.")
    with reading(f"embedded model {file.path.name}"):
        configs: dict[str, dict[str, Any]] = {
            name: json.loads(file.metadata[f"{name}_config"]) for name in (*FOLDERS, "scheduler")
        }
        return checked(ModelConfig(**configs, penultimate=False))


def open_embedded(source: Path | CheckpointFile = WEIGHTS) -> Model:
    """Open the embedded model.

    The file stores the rows of the token table that were trained, `rows` (R + 1, width) and `row_ids` (R,); here row i
    goes to CLIP's id `row_ids[i]`, and the last row to every other of the 49,408.

    Args:
        source: a file in the format that `tools/embedded_model` exports, opened or not.

    Raises:
        CheckpointError: the file is missing, damaged or in another format.
    """
    from ..checkpoints.layout.config import FOLDERS, reading
    from ..checkpoints.model import Model
    from ..checkpoints.storage.opening import open_checkpoint
    from ..checkpoints.storage.tensors import InMemory

    tensors = open_checkpoint(source)
    config = read_config(tensors)
    with reading(f"embedded model {tensors.path.name}"):
        parts = {
            name: {key[len(name) + 1 :]: tensors.get(key) for key in tensors.keys() if key.startswith(name + ".")}
            for name in FOLDERS
        }
        text = parts["text_encoder"]
        rows, ids = text.pop(TABLE + "rows"), text.pop(TABLE + "row_ids").long()
        table = rows[-1].repeat(int(config.text_encoder["vocab_size"]), 1)
        table[ids] = rows[:-1]
        text[TABLE + "weight"] = table
    return Model(
        name="tiny",
        config=config,
        parts={name: InMemory(parts[name]) for name in ("unet", "vae", "text_encoder", "depth_estimator")},
        key_map=config.key_map(list(parts["depth_estimator"])),
        aside=InMemory({}),
    )
