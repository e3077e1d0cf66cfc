"""Depth checkpoints: inspect, get, set up, convert and merge them. Each name is imported when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .conversion import Ledger as Ledger
    from .conversion import convert as convert
    from .conversion import convert_model as convert_model
    from .conversion import to_folder as to_folder
    from .conversion import to_single_file as to_single_file
    from .inspection.inspect import inspect as inspect
    from .inspection.report import Fault as Fault
    from .inspection.report import Report as Report
    from .layout.config import ModelConfig as ModelConfig
    from .layout.ldm_yaml import open_clip_config as open_clip_config
    from .merging import Merged as Merged
    from .merging import merge as merge
    from .model import Model as Model
    from .model import open_midas as open_midas
    from .model import open_model as open_model
    from .parts import with_parts as with_parts
    from .setup import SetupPlan as SetupPlan
    from .setup import carry_out as carry_out
    from .setup import plan_setup as plan_setup
    from .setup import webui_folders as webui_folders
    from .storage.opening import CheckpointFile as CheckpointFile
    from .storage.opening import open_checkpoint as open_checkpoint

_MODULES: Final = {
    "conversion": (
        "Ledger",
        "convert",
        "convert_model",
        "to_folder",
        "to_single_file",
    ),
    "inspection.inspect": ("inspect",),
    "inspection.report": (
        "Fault",
        "Report",
    ),
    "layout.config": ("ModelConfig",),
    "layout.ldm_yaml": ("open_clip_config",),
    "merging": (
        "Merged",
        "merge",
    ),
    "model": (
        "Model",
        "open_midas",
        "open_model",
    ),
    "parts": ("with_parts",),
    "setup": (
        "SetupPlan",
        "carry_out",
        "plan_setup",
        "webui_folders",
    ),
    "storage.opening": (
        "CheckpointFile",
        "open_checkpoint",
    ),
}
_LAZY: Final = {name: module for module, names in _MODULES.items() for name in names}
"""Name -> its module; many of them bring in torch."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
