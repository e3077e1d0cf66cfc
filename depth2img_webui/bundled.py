"""The bundled model as a checkpoint of the WebUI's dropdown."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from modules import sd_models, shared

from depth2img import CheckpointError, embedded

NAME: Final = "depth2img-tiny"


def folder() -> Path:
    """Where the WebUI looks for checkpoints first: `--ckpt-dir`, else `models/Stable-diffusion`."""
    return Path(shared.cmd_opts.ckpt_dir or sd_models.model_path)


def installed() -> bool:
    """Whether the WebUI knows the bundled model."""
    return (folder() / f"{NAME}.safetensors").exists()


def install() -> Path:
    """Write the bundled model and its YAML where the WebUI looks, and refresh its list.

    Raises:
        CheckpointError: the folder cannot be written, or the bundled file is missing or damaged.
    """
    target = folder() / f"{NAME}.safetensors"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise CheckpointError(
            "The folder for checkpoints cannot be made.", got=str(problem), fix="Check its permissions."
        ) from problem
    embedded.install(target)
    sd_models.list_models()
    return target
