"""Stable Diffusion 2 depth-to-image: depth maps, conditioning and generation, with or without the WebUI.

picture -> depth map -> adjusted map -> conditioning -> sampler

`Engine` generates and needs the extra `diffusers`; everything else works without it. torch is imported with the first
name that needs it, diffusers with the first model.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from .depth.adjustments import adjust
from .depth.conditioning import conditioning, neutral
from .depth.depth_map import DepthMap
from .depth.reading import read_depth_map
from .diffusion.settings import Settings
from .errors import (
    CheckpointError,
    Depth2ImgError,
    DepthMapError,
    EstimatorError,
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

if TYPE_CHECKING:
    from .diffusion.engine import Engine
    from .diffusion.job import Generated, Job

__version__ = "0.1.0"

__all__ = [
    "OPTIONS",
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

_LAZY: Final = {"Engine": "diffusion.engine", "Generated": "diffusion.job", "Job": "diffusion.job"}
"""Public name -> its module, which brings in torch and is imported when the name is first used."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
