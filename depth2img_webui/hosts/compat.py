"""Access to the host, and tests for what a host can do."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from modules import devices, images, masking, sd_models, shared
from PIL import Image, ImageOps

from depth2img import NoDepthModelError
from depth2img.depth.placement import Box

log = logging.getLogger("depth2img")

last_error: dict[str, str] = {}
"""`message`: why the latest load of a checkpoint failed, for the panel; empty after a good one."""


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
    from modules import sd_hijack  # Forge's relatives have none

    filename = model.sd_checkpoint_info.filename
    try:
        changed = os.stat(filename).st_mtime_ns
    except OSError:
        changed = 0
    return f"{filename}|{changed}|tiling={sd_hijack.model_hijack.circular_enabled}"


def checkpoint_name(model: Any) -> str:
    """Return the name in the dropdown, without its hash, of a checkpoint in memory or of an entry of the list."""
    return str(getattr(model, "sd_checkpoint_info", model).name_for_extra)


def no_depth_model(model: Any | None) -> NoDepthModelError:
    """Make the error for a checkpoint without a depth network."""
    return NoDepthModelError(
        "Depth needs a depth checkpoint.",
        got=f"the checkpoint '{checkpoint_name(model)}'" if model is not None else "no checkpoint",
        fix="Select one such as 512-depth-ema, choose one under Settings > Depth to image to switch to, "
        "or untick 'Depth to image'.",
    )


def conditioning_dtype() -> torch.dtype:
    """Return the type in which the UNet computes (`devices.dtype_unet`); one of 8 bits is for its weights alone."""
    dtype: torch.dtype = getattr(devices, "dtype_unet", torch.float32)
    return dtype if torch.finfo(dtype).bits > 8 else torch.float32


def setting(name: str, missing: Any) -> Any:
    """Return a setting of the host, or `missing` where it came with a later version.

    A file of settings may hold it there all the same; the host does not read it.
    """
    return getattr(shared.opts, name) if name in shared.opts.data_labels else missing


def upright(image: Image.Image | None) -> Image.Image | None:
    """Turn a picture of the page as its EXIF says, as img2img does; `fix_image` came with 1.9.0."""
    if image is None:
        return None
    turned: Image.Image | None = getattr(images, "fix_image", ImageOps.exif_transpose)(image)
    return turned


def crop_box(mask: Image.Image, padding: int) -> Box | None:
    """Return the box that "Only masked" works on, before it is expanded; None for a blank mask.

    Of the host's two functions for it, this is the one that every version has; it takes a picture since 1.8.0 only.
    """
    if mask.getbbox() is None:
        return None
    left, top, right, bottom = masking.get_crop_region(np.array(mask), padding)
    return left, top, right, bottom


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
