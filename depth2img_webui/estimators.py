"""The estimators of this WebUI: the checkpoint's own, those of other extensions, and models/depth2img."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from modules import devices, paths

from depth2img.estimators import files
from depth2img.estimators.pool import EstimatorPool
from depth2img.options import CHECKPOINT
from depth2img.table import Option

from . import settings

FOLDER: Final = Path(paths.models_path) / files.FOLDER
"""The folder of estimators."""

POOL: Final = EstimatorPool(FOLDER, device=lambda: devices.device)
"""Without paths, since names come from pages, requests and infotexts here."""


def pool() -> EstimatorPool:
    """Return the pool with the current settings; with --nowebui the host does not call back when they change."""
    POOL.downloads, POOL.idle = settings.allows_downloads(), settings.idle_seconds()
    return POOL


def suggestions(option: Option) -> list[str]:
    """List the values to suggest for a `text` option; empty if any text will do."""
    return POOL.names() if option.name == "estimator" else []


def check(option: Option, value: object) -> None:
    """Check that an estimator of that name exists; other options pass.

    Raises:
        OptionError: it does not.
    """
    if option.name == "estimator" and value != CHECKPOINT:
        pool().get(str(value))
