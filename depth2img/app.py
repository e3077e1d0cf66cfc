"""The panel as a page of its own: img2img and inpainting with depth, on this machine only.

The page is served on 127.0.0.1; nothing is shared, and Gradio's telemetry is off.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import gradio as gr
import numpy as np

from . import panel
from .depth_map import DepthMap
from .diffusion.settings import CHOICES, RANGES, Settings
from .errors import Depth2ImgError, OptionError
from .files import save_picture
from .images import Picture, read_picture
from .options import OPTIONS, DepthOptions

if TYPE_CHECKING:
    from .diffusion.engine import Engine, Generated

HOST: Final = "127.0.0.1"
TITLE: Final = "Depth to image"
STEPS: Final[Mapping[str, float]] = {"denoising_strength": 0.01, "cfg_scale": 0.5}
"""Slider steps other than 1."""
SLIDERS: Final = ("denoising_strength", "cfg_scale", "steps", "mask_blur", "only_masked_padding")
MASK_SETTINGS: Final = ("mask_blur", "mask_invert", "masked_content", "inpaint_area", "only_masked_padding")
LABELS: Final[Mapping[str, str]] = {
    "negative_prompt": "Negative prompt",
    "cfg_scale": "CFG scale",
    "mask_invert": "Inpaint not masked",
    "only_masked_padding": "Only masked padding, pixels",
}


def label(name: str) -> str:
    """What a setting is called on the page."""
    return LABELS.get(name, name.replace("_", " ").capitalize())


class Page:
    """The page's logic, apart from its components.

    Args:
        engine: a depth model; one job at a time runs on it.
        folder: where results are saved, None to show them only.
    """

    def __init__(self, engine: Engine, folder: Path | None) -> None:
        self._engine = engine
        self._folder = folder
        self._lock = threading.Lock()

    def estimate(self, drawn: Any, settings: Mapping[str, Any], depth: Sequence[Any]) -> tuple[Any, str]:
        """Map and message for the panel; a problem is a message too."""
        begun = time.perf_counter()
        try:
            picture, _ = picture_and_mask(drawn)
            options = DepthOptions.from_args([True, *map(panel.uploaded, depth[1:])])
            with self._lock:
                found = self._engine.preview(picture, Settings(**settings), options)
        except Depth2ImgError as error:
            return None, panel.note(str(error), "bad")
        if found is None:
            return None, panel.note("Depth is off.")
        far, near = found.range
        seconds = time.perf_counter() - begun
        text = f"{found.origin}, {found.width} x {found.height}, values {far:.6g} to {near:.6g}, {seconds:.2f} s."
        return _shown(found, picture), panel.note(text)

    def generate(
        self, drawn: Any, settings: Mapping[str, Any], depth: Sequence[Any], on_step: Any = None
    ) -> tuple[list[Any], str]:
        """Pictures and message for the page.

        Raises:
            gr.Error: something that was given cannot be used.
        """
        begun = time.perf_counter()
        try:
            picture, mask = picture_and_mask(drawn)
            options = DepthOptions.from_args([panel.uploaded(value) for value in depth])
            if options.save_map and self._folder is None:
                raise OptionError("save_map", "There is no folder to save into.", fix="Start the app with --output.")
            masks = None if mask is None else [mask]
            with self._lock:
                [result] = self._engine.generate([picture], Settings(**settings), options, masks=masks, on_step=on_step)
            note = self._save(result, options) if self._folder is not None else ""
        except Depth2ImgError as error:
            raise gr.Error(str(error)) from error
        pictures: list[Any] = [result.picture]
        if options.append_map and result.depth is not None:
            pictures.append(_shown(result.depth, result.picture))
        return pictures, panel.note(f"Seed {result.seed}, {time.perf_counter() - begun:.1f} s.{note}", "good")

    def _save(self, result: Generated, options: DepthOptions) -> str:
        folder = self._folder
        if folder is None:
            return ""
        number = 1 + max((int(p.stem) for p in folder.glob("*.png") if p.stem.isdigit()), default=0)
        path = folder / f"{number:05}.png"
        save_picture(result.picture, path)
        if options.save_map and result.depth is not None:
            height, width = result.picture.shape[:2]
            result.depth.resized(width, height).save(path.with_name(f"{path.stem}-depth.png"))
        return f" Saved as {path.name}."


def _shown(depth: DepthMap, like: Picture) -> Any:
    return depth.resized(like.shape[1], like.shape[0]).to_image()


def picture_and_mask(drawn: Any) -> tuple[Picture, Picture | None]:
    """What the picture component holds: the picture, and what was painted on it, None if nothing was.

    Args:
        drawn: `{"image": ..., "mask": ...}` of a Gradio sketch, or None.

    Raises:
        OptionError: there is no picture.
    """
    image = drawn.get("image") if isinstance(drawn, Mapping) else drawn
    if image is None:
        raise OptionError("picture", "There is no picture yet.", fix="Drop one on the page first.")
    picture = read_picture(image)
    painted = drawn.get("mask") if isinstance(drawn, Mapping) else None
    if painted is None:
        return picture, None
    mask = np.asarray(read_picture(painted, background=(0, 0, 0)).max(axis=2))
    if not mask.any():
        return picture, None
    white: Picture = np.where(mask > 127, 255, 0).astype(np.uint8)
    return picture, white


def _setting(name: str, default: Any) -> Any:
    """The component of one setting."""
    if name in CHOICES:
        return gr.Dropdown(choices=list(CHOICES[name]), value=default, label=label(name))
    if name in SLIDERS:
        low, high = RANGES[name]
        return gr.Slider(minimum=low, maximum=high, step=STEPS.get(name, 1), value=default, label=label(name))
    if isinstance(default, bool):
        return gr.Checkbox(value=default, label=label(name))
    if name in RANGES:
        return gr.Number(value=default, precision=0, label=label(name))
    return gr.Textbox(value=default, lines=2, label=label(name))


def build(engine: Engine, folder: Path | None = None) -> gr.Blocks:
    """The page.

    Args:
        engine: a depth model.
        folder: where results are saved, None to show them only.
    """
    page = Page(engine, folder)
    fields = {field.name: field.default for field in dataclasses.fields(Settings)}
    fields["cfg_scale"] = engine.networks.cfg_scale
    settings: dict[str, Any] = {}

    def add(*names: str) -> None:
        settings.update((name, _setting(name, fields[name])) for name in names)

    with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        gr.Markdown(f"# {TITLE}\nModel: {engine.networks.name}, on {engine.networks.device}. Paint to inpaint.")
        with gr.Row():
            with gr.Column():
                drawn = gr.Image(
                    label="Picture", tool="sketch", type="pil", brush_color="#ffffff", elem_id="app-picture"
                )
                add("prompt", "negative_prompt", "denoising_strength", "steps", "cfg_scale", "sampler", "seed")
                with gr.Accordion("Frame", open=False):
                    add("width", "height", "resize_mode")
                with gr.Accordion("Inpainting", open=False):
                    add(*MASK_SETTINGS)
            with gr.Column():
                button = gr.Button("Generate", variant="primary", elem_id="app-generate")
                gallery = gr.Gallery(label="Result", columns=2, elem_id="app-result")
                message = gr.HTML("", elem_id="app-message")
                with gr.Accordion(OPTIONS["enabled"].label, open=True):
                    enabled = gr.Checkbox(value=True, label=OPTIONS["enabled"].label, info=OPTIONS["enabled"].help)
                    built = panel.build(tab="img2img", elem_id=lambda name: f"app-depth-{name}")
        values = [drawn, *settings.values(), enabled, *built.controls.values()]

        def split(given: Sequence[Any]) -> tuple[Any, dict[str, Any], Sequence[Any]]:
            chosen = dict(zip(settings, given[1:], strict=False))
            for name in ("width", "height"):
                chosen[name] = chosen[name] or None
            return given[0], chosen, given[1 + len(settings) :]

        def on_generate(*given: Any, progress: Any = gr.Progress()) -> tuple[list[Any], str]:  # noqa: B008
            return page.generate(*split(given), on_step=lambda done, total: progress((done, total)))

        button.click(fn=on_generate, inputs=values, outputs=[gallery, message])
        built.estimate.click(
            fn=lambda *given: page.estimate(*split(given)), inputs=values, outputs=[built.preview, built.message]
        )
    return blocks


def serve(engine: Engine, *, port: int, folder: Path | None, open_browser: bool) -> None:
    """Show the page until interrupted.

    Raises:
        OptionError: the port is taken or the folder is not there.
    """
    if folder is not None and not folder.is_dir():
        raise OptionError("output", f"There is no folder {folder}.", fix="Create it first.")
    try:
        build(engine, folder).queue(concurrency_count=1).launch(
            server_name=HOST, server_port=port, share=False, inbrowser=open_browser, show_api=False, quiet=True
        )
    except OSError as problem:
        raise OptionError(
            "port", f"The page cannot be served on port {port}.", got=str(problem)[:80], fix="Choose another --port."
        ) from problem
