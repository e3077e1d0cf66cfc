"""Gradio components made from rows of an option table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import gradio as gr

from ..table import Option
from . import versions

UPLOAD_HEIGHT: Final = 200
"""Height of an uploaded picture in the panel, in CSS pixels."""

MAP_FILES: Final = (".png", ".tif", ".tiff", ".exr", ".npy", ".npz", ".pfm", ".heic", ".heif", ".avif", "image")
"""Files that may be uploaded as a map or a mask."""


def component(option: Option, elem_id: str, *, value: Any, visible: bool = True, names: Sequence[str] = ()) -> Any:
    """Make the component of one option inside the current Gradio context.

    Args:
        option: the row.
        elem_id: unique on the page.
        value: what it shows at first.
        visible: whether it is shown at first.
        names: suggestions for a text that is shown as a dropdown; others can be typed in.
    """
    shared: dict[str, Any] = {"label": option.label, "elem_id": elem_id, "visible": visible}
    if option.kind == "image" and option.look == "picture":
        return gr.Image(type="pil", image_mode="RGBA", height=UPLOAD_HEIGHT, **shared)
    if option.kind == "image":
        return gr.File(type=versions.UPLOAD, file_types=list(MAP_FILES), **shared)
    shared["value"] = value
    if option.kind == "switch":
        return gr.Checkbox(**shared)
    if option.kind == "choice":
        if option.look:  # Gradio 3.41's dropdown knows no labels apart from values; `Option.check` takes either
            shared["value"] = option.choices[value]
            return gr.Dropdown(choices=list(option.choices.values()), **shared)
        return gr.Radio(choices=[(label, name) for name, label in option.choices.items()], **shared)
    if option.kind == "text" and option.look:
        return gr.Dropdown(choices=list(names), allow_custom_value=True, **shared)
    if option.kind == "text":
        return gr.Textbox(**({"lines": 2} if option.multiline else {"max_lines": 1}), **shared)
    if option.step:
        return gr.Slider(minimum=option.minimum, maximum=option.maximum, step=option.step, **shared)
    return gr.Number(precision=0, **shared) if option.whole else gr.Number(**shared)
