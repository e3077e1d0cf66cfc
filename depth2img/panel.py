"""The panel: Gradio components made from the options table. Knows nothing of the WebUI.

The WebUI adapter and `depth2img app` put the same panel on their pages and connect its buttons to what they have.
"""

from __future__ import annotations

import dataclasses
import html
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from .errors import DepthMapError
from .options import OPTIONS, SOURCE_OF_PAYLOAD, Option

PREVIEW_HEIGHT = 300
"""Height kept for the preview, in CSS pixels, so that nothing jumps when the map arrives."""


@dataclasses.dataclass(frozen=True)
class Panel:
    """The components of one panel.

    Attributes:
        controls: option name -> component, in the order of `OPTIONS`, without the toggle.
        estimate: the button "Estimate depth".
        preview: where the map is shown.
        message: HTML under the preview: what it is, or what is wrong.
        status: HTML that says which checkpoint is in use.
        refresh: hidden button that asks for the status anew.
    """

    controls: dict[str, Any]
    estimate: Any
    preview: Any
    message: Any
    status: Any
    refresh: Any


def build(*, tab: str, elem_id: Callable[[str], str]) -> Panel:
    """Make the panel inside the current Gradio context.

    Args:
        tab: `img2img` or `txt2img`: decides which source is offered first and what the empty preview says.
        elem_id: short name -> element id, unique on the page.
    """
    controls: dict[str, Any] = {}

    def add(*names: str) -> None:
        controls.update((name, _component(OPTIONS[name], elem_id)) for name in names)

    with gr.Column(elem_classes=["depth2img-panel"]):
        status = gr.HTML("", elem_id=elem_id("status"), elem_classes=["depth2img-status"])
        refresh = gr.Button("Refresh depth status", visible=False, elem_id=elem_id("refresh"))
        with gr.Row(elem_classes=["depth2img-row"]):
            with gr.Column(scale=1, min_width=240, elem_classes=["depth2img-column"]):
                preview = gr.Image(
                    label="Depth map (white = near)",
                    elem_id=elem_id("preview"),
                    elem_classes=["depth2img-preview"],
                    interactive=False,
                    type="pil",
                    height=PREVIEW_HEIGHT,
                )
                message = gr.HTML(_hint(tab), elem_id=elem_id("message"), elem_classes=["depth2img-message"])
                estimate = gr.Button("Estimate depth", elem_id=elem_id("estimate"))
            with gr.Column(scale=1, min_width=240, elem_classes=["depth2img-column"]):
                add("source", "reference", "depth_map", "near", "far", "gamma", "blur", "invert")
        with gr.Row(elem_classes=["depth2img-row"]):
            add("append_map", "save_map")
        with gr.Accordion("Control", open=False, elem_id=elem_id("control")):
            add(
                "strength",
                "start",
                "end",
                "region",
                "neutral",
                "guidance",
                "ignore_colours",
                "estimate_on",
                "under_mask",
                "hires",
                "keep_first",
                "range",
                "score",
            )
        gr.HTML(_tooltips(elem_id), visible=True, elem_classes=["depth2img-tooltips"])
    controls = {name: controls[name] for name in OPTIONS if name in controls}
    source = controls["source"]
    for choice in (source, controls["under_mask"]):
        choice.change(
            fn=lambda *values: [gr.update(visible=values[0] == "reference"), gr.update(visible="map" in values)],
            inputs=[source, controls["under_mask"]],
            outputs=[controls["reference"], controls["depth_map"]],
            show_progress="hidden",
            queue=False,
        )
    return Panel(controls, estimate, preview, message, status, refresh)


def note(text: str, kind: str = "info", *, state: str = "") -> str:
    """A line of HTML for `Panel.message` or `Panel.status`; the text is escaped.

    Args:
        text: plain text.
        kind: `info`, `good` or `bad`; becomes a CSS class.
        state: what the page reads from the line, as `data-state`.
    """
    kind, state, text = html.escape(kind), html.escape(state), html.escape(text)
    return f'<p class="depth2img-note depth2img-{kind}" data-state="{state}">{text}</p>'


def uploaded(value: Any) -> Any:
    """What an upload component hands over -> a payload for the options.

    A file of `gr.File` becomes its path, but only if it lies in a temporary folder: the page names the file, and a
    page may lie. Everything else is passed on.

    Raises:
        DepthMapError: the page named a file that was not uploaded.
    """
    name = getattr(value, "orig_name", None)
    if name is None or not hasattr(value, "name"):
        return value
    folders = [tempfile.gettempdir(), os.environ.get("GRADIO_TEMP_DIR", "")]
    inside = any(folder and Path(name).resolve().is_relative_to(Path(folder).resolve()) for folder in folders)
    # A file sent inside the event has a bare name; Gradio has written its content to a temporary folder itself. From
    # the current folder it would have copied what the page named.
    if not inside and (Path(name).name != name or Path(name).exists()):
        raise DepthMapError("The file was not uploaded through the page.", fix="Upload it again.")
    return Path(value.name)


def _hint(tab: str) -> str:
    if tab == "img2img":
        return note("Press 'Estimate depth' to see the depth map of the picture before generating.")
    return note(
        "txt2img takes depth from another picture or from a depth map of your own: choose one under 'Depth from'."
    )


def _tooltips(elem_id: Callable[[str], str]) -> str:
    """Element id -> help, for the page to show as tooltips; the components themselves stay small."""
    table = {elem_id(option.name): option.help for option in OPTIONS.values()}
    return f'<span hidden data-tooltips="{html.escape(json.dumps(table))}"></span>'


def _component(option: Option, elem_id: Callable[[str], str]) -> Any:
    shared: dict[str, Any] = {"label": option.label, "elem_id": elem_id(option.name)}
    if option.kind == "switch":
        return gr.Checkbox(value=option.default, **shared)
    if option.kind == "number":
        return gr.Slider(
            value=option.default,
            minimum=option.minimum,
            maximum=option.maximum,
            step=option.step,
            **shared,
        )
    if option.kind == "choice":
        choices = [(label, name) for name, label in option.choices.items()]
        return gr.Radio(choices=choices, value=option.default, **shared)
    if option.name == "reference":
        return gr.Image(type="pil", image_mode="RGBA", visible=False, height=PREVIEW_HEIGHT, **shared)
    visible = option.name not in SOURCE_OF_PAYLOAD
    return gr.File(type="file", file_types=[".png", ".tif", ".tiff", ".npy", "image"], visible=visible, **shared)
