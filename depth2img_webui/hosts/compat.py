"""Access to the host, and tests for what a host can do."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
from collections.abc import Iterator
from typing import Any

import torch
from modules import devices, sd_hijack, sd_models

log = logging.getLogger("depth2img")

FORGE_SENTENCE = (
    "Forge has no depth model: its Stable Diffusion 2 depth code was removed. "
    "Use AUTOMATIC1111 1.6.0 to 1.10.1 with a depth checkpoint."
)


def has_depth_models() -> bool:
    """Tell whether this host can build depth models: False in Forge, which comes without Stability's `ldm`."""
    forge = importlib.util.find_spec("modules_forge") is not None and importlib.util.find_spec("backend") is not None
    return not forge and importlib.util.find_spec("ldm") is not None


def loaded_model() -> Any | None:
    """Return the checkpoint in memory, without starting to load one as `shared.sd_model` would."""
    return sd_models.model_data.sd_model


def depth_network(model: Any | None) -> torch.nn.Module | None:
    """Return the MiDaS network of a depth checkpoint; None for any other checkpoint.

    The host's own test is `isinstance(model, LatentDepth2ImageDiffusion)`; its low-memory code sets
    `depth_model = None` on other models.
    """
    return getattr(model, "depth_model", None)


def network_key(model: Any) -> str:
    """Name the weights of a depth checkpoint and how they are run; changes when the file or "Tiling" does."""
    filename = model.sd_checkpoint_info.filename
    try:
        changed = os.stat(filename).st_mtime_ns
    except OSError:
        changed = 0
    return f"{filename}|{changed}|tiling={sd_hijack.model_hijack.circular_enabled}"


def checkpoint_name(model: Any) -> str:
    """Return a checkpoint's name in the dropdown, without its hash."""
    return str(model.sd_checkpoint_info.name_for_extra)


def conditioning_dtype() -> torch.dtype:
    """Return the type that the UNet takes (`devices.dtype_unet`)."""
    return getattr(devices, "dtype_unet", torch.float32)


@contextlib.contextmanager
def plain_forward() -> Iterator[None]:
    """Undo `devices.manual_cast` for a while: it replaces `forward` of all Linear, Conv2d … layers on MPS and XPU.

    Inside the host's `autocast()` every network would run in half precision there, ours included.
    """
    swapped = [
        (kind, kind.forward) for kind in getattr(devices, "patch_module_list", []) if hasattr(kind, "org_forward")
    ]
    try:
        for kind, _ in swapped:
            kind.forward = kind.org_forward
        yield
    finally:
        for kind, forward in swapped:
            kind.forward = forward
