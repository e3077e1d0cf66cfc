"""The estimators of this WebUI: the checkpoint's own, those of other extensions, and models/depth2img."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from modules import devices, paths

from depth2img.estimators.pool import EstimatorPool
from depth2img.options import CHECKPOINT
from depth2img.table import Option

from . import settings

FOLDER: Final = "depth2img"
"""Below the folder of models; each folder in it with a depth model of `transformers` is an estimator."""

POOL: Final = EstimatorPool(Path(paths.models_path) / FOLDER, device=lambda: devices.device)
"""Names come from pages, requests and infotexts here: no paths."""


def pool() -> EstimatorPool:
    """The pool, as the settings are now: with --nowebui the host tells nobody of a change."""
    POOL.downloads, POOL.idle = settings.allows_downloads(), settings.idle_seconds()
    return POOL


def suggestions(option: Option) -> list[str]:
    """What a `text` option may well be; empty where it is anything."""
    return POOL.names() if option.name == "estimator" else []


def check(option: Option, value: object) -> None:
    """Whether an estimator of that name is there; other options pass.

    Raises:
        OptionError: it is not.
    """
    if option.name == "estimator" and value != CHECKPOINT:
        pool().get(str(value))
