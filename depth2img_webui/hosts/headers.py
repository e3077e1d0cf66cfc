"""Tell a depth checkpoint by its file, without loading it."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Final

from depth2img import Depth2ImgError

from .compat import log

INPUT_CONVOLUTION: Final = "model.diffusion_model.input_blocks.0.0.weight"
DEPTH_CHANNELS: Final = 5
"""Channels of the UNet's input in a depth checkpoint: four of the latent, one of depth."""


def is_depth_file(filename: str) -> bool:
    """Tell whether a file is a depth checkpoint, from its header; from its name for pickles and damaged files."""
    return _read(filename, changed(filename))


def changed(filename: str) -> int:
    """Return when a file was changed, in nanoseconds; 0 where it cannot be asked."""
    try:
        return os.stat(filename).st_mtime_ns
    except OSError:
        return 0


@functools.lru_cache(maxsize=4096)
def _read(filename: str, changed: int) -> bool:
    from depth2img.checkpoints.storage.opening import open_checkpoint, sniff

    path = Path(filename)
    try:
        with path.open("rb") as file:
            form = sniff(path.name, file)
        if form == "safetensors":
            return bool(open_checkpoint(path).shape(INPUT_CONVOLUTION)[1] == DEPTH_CHANNELS)
    except (Depth2ImgError, OSError, LookupError) as error:
        log.debug("%s: %s", filename, error)
    return "depth" in path.name.lower()
