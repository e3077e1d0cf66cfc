"""Stable Diffusion 2 depth-to-image: depth maps, conditioning and generation, with or without the WebUI.

picture -> depth map -> adjusted map -> conditioning -> sampler

`Engine` generates and needs the extra `diffusers`; everything else works without it. Nothing but the standard library
is imported until a name is used: NumPy and OpenCV with the first that needs them, diffusers with the first model.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .depth.adjustments import adjust
    from .depth.conditioning import conditioning, neutral
    from .depth.depth_map import DepthMap
    from .depth.reading import read_depth_map
    from .diffusion.engine import Engine
    from .diffusion.job import Generated, Job
    from .diffusion.settings import Settings
    from .errors import (
        Cancelled,
        CheckpointError,
        Depth2ImgError,
        DepthMapError,
        EstimatorError,
        LibraryError,
        NoDepthError,
        NoDepthModelError,
        OptionError,
        PictureError,
    )
    from .estimators.base import Estimator, register_estimator
    from .estimators.cache import DepthCache
    from .estimators.midas import MidasEstimator
    from .io.images import read_picture
    from .options import OPTIONS, DepthOptions

__version__ = "0.1.0"

__all__ = [
    "OPTIONS",
    "Cancelled",
    "CheckpointError",
    "Depth2ImgError",
    "DepthCache",
    "DepthMap",
    "DepthMapError",
    "DepthOptions",
    "Engine",
    "Estimator",
    "EstimatorError",
    "Generated",
    "Job",
    "LibraryError",
    "MidasEstimator",
    "NoDepthError",
    "NoDepthModelError",
    "OptionError",
    "PictureError",
    "Settings",
    "adjust",
    "conditioning",
    "neutral",
    "read_depth_map",
    "read_picture",
    "register_estimator",
]

_MODULES: Final = {
    "depth.adjustments": ("adjust",),
    "depth.conditioning": ("conditioning", "neutral"),
    "depth.depth_map": ("DepthMap",),
    "depth.reading": ("read_depth_map",),
    "diffusion.engine": ("Engine",),
    "diffusion.job": ("Generated", "Job"),
    "diffusion.settings": ("Settings",),
    "errors": (
        "Cancelled",
        "CheckpointError",
        "Depth2ImgError",
        "DepthMapError",
        "EstimatorError",
        "LibraryError",
        "NoDepthError",
        "NoDepthModelError",
        "OptionError",
        "PictureError",
    ),
    "estimators.base": ("Estimator", "register_estimator"),
    "estimators.cache": ("DepthCache",),
    "estimators.midas": ("MidasEstimator",),
    "io.images": ("read_picture",),
    "options": ("OPTIONS", "DepthOptions"),
}
_LAZY: Final = {name: module for module, names in _MODULES.items() for name in names}
"""Public name -> its module, which is imported when the name is first used."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
