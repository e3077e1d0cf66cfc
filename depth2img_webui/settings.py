"""Settings > Depth to image."""

from __future__ import annotations

from typing import Any

import gradio as gr
from modules import sd_models, shared, shared_items

SECTION = ("depth2img", "Depth to image")
CHECKPOINT = "depth2img_checkpoint"
NONE = "None"


def add() -> None:
    """Add the options; called by the host's `on_ui_settings`."""
    shared.opts.add_option(
        CHECKPOINT,
        shared.OptionInfo(
            NONE,
            "Switch automatically to this depth checkpoint when a depth map or another picture is given "
            "and the loaded checkpoint has no depth model",
            gr.Dropdown,
            lambda: {"choices": [NONE, *sd_models.checkpoint_tiles()]},
            refresh=shared_items.refresh_checkpoints,
            section=SECTION,
        ),
    )


def depth_checkpoint() -> str | None:
    """The checkpoint to switch to, None if the user chose none."""
    value: Any = getattr(shared.opts, CHECKPOINT, NONE)
    return None if value in (None, "", NONE) else str(value)
