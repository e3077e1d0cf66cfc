"""Show which checkpoint is in use, and install the bundled model if there is no depth checkpoint."""

from __future__ import annotations

from typing import Any, Final

import gradio as gr
from modules import sd_models

from depth2img import Depth2ImgError, embedded
from depth2img.gui import panel

from .. import estimators
from ..hosts import HOST, NO_HOST, compat, host
from ..hosts.headers import is_depth_file
from . import checkpoints

BUNDLED: Final = embedded.WEIGHTS.name
"""Name of the bundled model in the folder of checkpoints."""

MISSING: Final = (
    "No depth checkpoint is installed. Put one such as 512-depth-ema.safetensors into the folder of checkpoints "
    "and refresh the list, or download one under 'Depth checkpoint'."
)


def status() -> tuple[str, str]:
    """Return (state, sentence); state is `ready`, `wrong`, `missing`, `failed` or `host`. Nothing is loaded."""
    if HOST is None:
        return "host", NO_HOST
    if compat.last_error:
        return "failed", compat.last_error["message"]
    model = HOST.known()
    if model is not None and HOST.is_depth(model):
        return "ready", f"Ready: {compat.checkpoint_name(model)}."
    if sd_models.checkpoints_list and not any(
        is_depth_file(info.filename) for info in sd_models.checkpoints_list.values()
    ):
        return "missing", MISSING
    if model is None:
        return "wrong", "No checkpoint is loaded yet."
    return "wrong", f"Needs a depth checkpoint; {compat.checkpoint_name(model)} is not one."


def status_html() -> str:
    """Return the status line of the panel, as HTML."""
    state, sentence = status()
    # Latent pixels; the autoencoder of every Stable Diffusion 2 model makes one of 8 x 8 pixels.
    latent_side = getattr(host().known(), "image_size", None) if state == "ready" else None
    side = None if latent_side is None else 8 * int(latent_side)
    return panel.note(sentence, "good" if state == "ready" else "bad", state=state, side=side)


def show() -> tuple[str, Any, Any]:
    """Update the status line, the button for the bundled model and the list of estimators."""
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
