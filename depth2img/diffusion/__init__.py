"""The standalone engine on diffusers: depth-to-image and depth inpainting without a WebUI."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from .settings import Settings

if TYPE_CHECKING:
    from .engine import Engine
    from .job import Generated, Job
    from .loader import find, load, load_estimator

__all__ = ["Engine", "Generated", "Job", "Settings", "find", "load", "load_estimator"]

_LAZY: Final = {
    "Engine": "engine",
    "Generated": "job",
    "Job": "job",
    "find": "loader",
    "load": "loader",
    "load_estimator": "loader",
}
"""Name -> its module, which brings in torch and is imported when the name is first used."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
