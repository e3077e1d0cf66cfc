"""Which checkpoint is in use, in words; and the bundled model for whoever has none."""

from __future__ import annotations

import functools
import os
from typing import Any, Final

import gradio as gr
from modules import sd_models

from depth2img import Depth2ImgError, embedded
from depth2img.gui import panel

from .. import estimators
from ..hosts import compat, loader
from . import checkpoints

BUNDLED: Final = "depth2img-tiny.safetensors"
"""Name of the bundled model in the folder of checkpoints."""

MISSING: Final = (
    "No depth checkpoint is installed. Put one such as 512-depth-ema.safetensors into the folder of checkpoints "
    "and refresh the list, or download one under 'Depth checkpoint'."
)


def status() -> tuple[str, str]:
    """(state, sentence); state is `ready`, `wrong`, `missing`, `failed` or `host`. Loads nothing."""
    if not compat.has_depth_models():
        return "host", compat.FORGE_SENTENCE
    if loader.last_error:
        return "failed", loader.last_error["message"]
    model = compat.loaded_model()
    if compat.depth_network(model) is not None:
        return "ready", f"Ready: {compat.checkpoint_name(model)}."
    if sd_models.checkpoints_list and not any(_is_depth(info.filename) for info in sd_models.checkpoints_list.values()):
        return "missing", MISSING
    if model is None:
        return "wrong", "No checkpoint is loaded yet."
    return "wrong", f"Needs a depth checkpoint; {compat.checkpoint_name(model)} is none."


def status_html() -> str:
    """The same as a line for the panel."""
    state, sentence = status()
    # Latent pixels; the autoencoder of every Stable Diffusion 2 model makes one of 8 x 8 pixels.
    latent_side = getattr(compat.loaded_model(), "image_size", None) if state == "ready" else None
    side = None if latent_side is None else 8 * int(latent_side)
    return panel.note(sentence, "good" if state == "ready" else "bad", state=state, side=side)


def show() -> tuple[str, Any, Any]:
    """The line, whether the button for the bundled model is shown, and the estimators that there are now."""
    state, _ = status()
    visible = state == "missing" and embedded.WEIGHTS.is_file()
    return status_html(), gr.update(visible=visible), gr.update(choices=estimators.POOL.names())


def install() -> tuple[str, Any]:
    """Put the bundled model into the folder of checkpoints."""
    path = checkpoints.folders()[0] / BUNDLED
    try:
        embedded.install(path)
    except Depth2ImgError as error:
        return panel.note(str(error), "bad", state="missing"), gr.update()
    sd_models.list_models()
    text = f"{BUNDLED} is installed: refresh the list of checkpoints and choose it."
    return panel.note(text, state="wrong"), gr.update(visible=False)


def _is_depth(filename: str) -> bool:
    try:
        changed = os.stat(filename).st_mtime_ns
    except OSError:
        changed = 0
    return _describes_depth(filename, changed)


@functools.lru_cache(maxsize=4096)
def _describes_depth(filename: str, changed: int) -> bool:
    """Whether a file is a depth checkpoint, by its header; by its name where it has none that can be read."""
    if changed and filename.endswith(".safetensors"):
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(filename, framework="np") as tensors:
                shape = tensors.get_slice(loader.INPUT_CONVOLUTION).get_shape()
                return bool(shape[1] == loader.DEPTH_CHANNELS)
        except (SafetensorError, OSError, IndexError) as error:
            compat.log.debug("%s: %s", filename, error)
    return "depth" in os.path.basename(filename).lower()
