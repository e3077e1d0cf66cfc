"""The standalone engine: depth-to-image and depth inpainting on diffusers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from .settings import Settings as Settings

if TYPE_CHECKING:
    from .engine import Engine as Engine
    from .engine import Generated as Generated
    from .engine import Job as Job
    from .loader import find as find
    from .loader import load as load
    from .loader import load_estimator as load_estimator

LATER: Final = {
    "Engine": "engine",
    "Generated": "engine",
    "Job": "engine",
    "find": "loader",
    "load": "loader",
    "load_estimator": "loader",
}
"""What is imported, and torch with it, when it is first asked for: the command line needs the settings alone."""


def __getattr__(name: str) -> Any:
    if name not in LATER:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{LATER[name]}", __name__), name)
