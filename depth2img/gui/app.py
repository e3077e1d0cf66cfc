"""The panel as a page of its own: img2img and inpainting with depth.

The page is served on 127.0.0.1 only; nothing is shared, and Gradio's telemetry is off.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import gradio as gr
import numpy as np

from ..depth.hints import noteworthy
from ..depth.sources import read_sources
from ..diffusion.results import save_result
from ..diffusion.results import view as view_of
from ..diffusion.settings import SETTINGS, Settings, in_section
from ..errors import Cancelled, Depth2ImgError, NoDepthError, OptionError
from ..io.images import Picture, read_picture
from ..io.uploads import uploaded
from ..options import ADJUSTMENTS, OPTIONS, WEBUI_ONLY, DepthOptions
from ..sharing.page import ASSETS
from . import panel, versions, view
from .components import component

if TYPE_CHECKING:
    from ..diffusion.engine import Engine
    from ..diffusion.job import Generated

HOST: Final = "127.0.0.1"
TITLE: Final = "Depth to image"
PICTURE_HEIGHT: Final = 420
"""Height of picture and results, in CSS pixels."""
FOLDED: Final = {"Sampling": "sampling", "Frame": "frame", "Inpainting": "mask", "Hires": "hires"}
"""Title of an accordion -> the section of the settings in it."""

STARTS: Final = {"denoising_strength": 0.9}
"""Settings that the page starts with; at the table's 0.75 much of the source's colours is left, whatever depth does."""

SURROUNDINGS: Final = panel.Surroundings(
    watch=["#app-picture", *(f"#app-{name}" for name in in_section("frame", "mask"))],
    width="app-width",
    height="app-height",
    picture="app-picture",
    result="#app-result .preview > img, #app-result img",
    absent=WEBUI_ONLY,
)
STYLE: Final = "footer { display: none !important; } .gradio-container { max-width: 120em !important; }"


class Backend:
    """The logic behind the page, apart from its components.

    Args:
        engine: a depth model; it runs one job at a time.
        folder: where results are saved; None to show them only.
    """

    def __init__(self, engine: Engine, folder: Path | None) -> None:
        self._engine = engine
        self._folder = folder
        self._lock = threading.Lock()
        self._stopped: set[str] = set()
        self._jobs = view.Previews()
        self.previews = view.Previews()

    def estimate(self, drawn: Any, settings: Mapping[str, Any], depth: Sequence[Any]) -> tuple[str, str]:
        """Return data and message for the panel; a problem becomes a message too."""
        begun = time.perf_counter()
        try:
            options = DepthOptions.from_args([True, *map(uploaded, depth[1:])])
            with self._lock:
                shown = self._view(drawn, settings, options)
        except Depth2ImgError as error:
            return view.to_html(None, sentence=str(error)), panel.note(str(error), "bad")
        text = view.describe(shown.depth, seconds=time.perf_counter() - begun)
        return self.previews.show(shown), panel.note(" ".join(filter(None, [text, shown.remark])))

    def _view(self, drawn: Any, settings: Mapping[str, Any], options: DepthOptions) -> view.View:
        """Make the view of the map in the frame, before it is adjusted, and of the picture there."""
        picture, mask = picture_and_mask(drawn)
        plain = dataclasses.replace(options, **{name: OPTIONS[name].default for name in ADJUSTMENTS})
        frame = self._engine.frame(picture, Settings(**settings), mask=mask)
        placed = self._engine.preview(picture, Settings(**settings), plain, mask=mask)
        if placed is None:
            raise NoDepthError("Depth is off.", fix=f"Switch '{OPTIONS['enabled'].label}' on.")
        own = read_sources(options).own
        given = own is not None and options.source == "map"
        remark = frame.placement.remark(own, "depth map") if own is not None and given else ""
        return view.View(
            placed.depth if placed.whole is None else placed.whole,
            frame.picture,
            frame.whole if frame.box is not None else None,
            frame.placement,
            own=given,
            cut=placed.whole is not None,
            span=placed.span,
            remark=" ".join(filter(None, [remark, *noteworthy(own, options)])),
        )

    def job(self, session: str, place: int = 0) -> view.View | None:
        """Return the map of a session's latest job; `place` is that of the shown result, of which the first is it."""
        shown = self._jobs.get(session)
        return None if shown is None else dataclasses.replace(shown, result=place == 0)

    def interrupt(self, session: str) -> None:
        """Stop the job of a session after the current step."""
        self._stopped.add(session)

    def status(self) -> str:
        """Return the line about the model."""
        networks = self._engine.networks
        text = f"Ready: {networks.name}, on {networks.device}."
        return panel.note(text, "good", state="ready", side=networks.side)

    def generate(
        self, drawn: Any, settings: Mapping[str, Any], depth: Sequence[Any], on_step: Any = None, session: str = ""
    ) -> tuple[list[Any], str]:
        """Generate, and return pictures and message for the page.

        Args:
            drawn: the value of the picture component.
            settings: values of the settings by name.
            depth: values of the depth options, in their order.
            on_step: called with the steps done and the total.
            session: the session that the job belongs to, for `interrupt` and `recall`.

        Raises:
            gr.Error: an input cannot be used.
        """
        begun = time.perf_counter()
        self._stopped.discard(session)

        def step(done: int, total: int) -> None:
            if on_step is not None:
                on_step(done, total)
            if session in self._stopped:
                raise Cancelled

        try:
            picture, mask = picture_and_mask(drawn)
            options = DepthOptions.from_args([uploaded(value) for value in depth])
            if options.save_map and self._folder is None:
                raise OptionError("save_map", "There is no folder to save into.", fix="Start the app with --output.")
            masks = None if mask is None else [mask]
            with self._lock:
                [result] = self._engine.generate([picture], Settings(**settings), options, masks=masks, on_step=step)
                if options.enabled:
                    self._jobs.put(session, self._view(drawn, settings, options))
            note = self._save(result, options) if self._folder is not None else ""
        except Cancelled:
            return [], panel.note("Interrupted.")
        except Depth2ImgError as error:
            raise gr.Error(str(error)) from error
        pictures: list[Any] = [result.picture]
        if options.append_map and result.depth is not None:
            pictures.append(view_of(result.depth, result.sampled))
        score = "" if result.fidelity is None else f" Depth fidelity {result.fidelity:.3f}."
        return pictures, panel.note(f"Seed {result.seed}, {time.perf_counter() - begun:.1f} s.{score}{note}", "good")

    def _save(self, result: Generated, options: DepthOptions) -> str:
        folder = self._folder
        if folder is None:
            return ""
        number = 1 + max((int(p.stem) for p in folder.glob("*.png") if p.stem.isdecimal()), default=0)
        path = folder / f"{number:05}.png"
        save_result(result, path, dataclasses.replace(options, append_map=False))  # that one is shown
        return f" Saved as {path.name}."


def picture_and_mask(drawn: Any) -> tuple[Picture, Picture | None]:
    """Split the value of the picture component into the picture and the painted mask, None if nothing is painted.

    Args:
        drawn: see `versions.strokes`.

    Returns:
        The picture, uint8 (H, W, 3), and the mask, uint8 (H, W), 255 = repaint.

    Raises:
        OptionError: there is no picture.
    """
    image, painted = versions.strokes(drawn)
    if image is None:
        raise OptionError("picture", "There is no picture yet.", fix="Drop one on the page first.")
    picture = read_picture(image)
    if painted is None:
        return picture, None
    mask = np.asarray(read_picture(painted, background=(0, 0, 0)).max(axis=2))
    if not mask.any():
        return picture, None
    white: Picture = np.where(mask > 127, 255, 0).astype(np.uint8)
    return picture, white


def build(engine: Engine, folder: Path | None = None) -> gr.Blocks:
    """Make the page.

    Args:
        engine: a depth model.
        folder: where results are saved; None to show them only.
    """
    backend = Backend(engine, folder)
    defaults = (
        {name: setting.default for name, setting in SETTINGS.items()}
        | {"cfg_scale": engine.networks.cfg_scale}
        | STARTS
    )
    settings: dict[str, Any] = {}

    def add(section: str) -> None:
        for name in in_section(section):
            settings[name] = component(SETTINGS[name], f"app-{name}", value=defaults[name])

    with gr.Blocks(title=TITLE, analytics_enabled=False, **look()[0]) as blocks:
        with gr.Row():
            with gr.Column(scale=5, min_width=280):
                drawn = versions.sketch(
                    label="Picture; paint over what is to be repainted",
                    height=PICTURE_HEIGHT,
                    elem_id="app-picture",
                )
                add("prompt")
                with gr.Row():
                    add("steps")
                for title, section in FOLDED.items():
                    with gr.Accordion(title, open=False):
                        add(section)
            with gr.Column(scale=5, min_width=280):
                with gr.Row():
                    button = gr.Button("Generate", variant="primary", elem_id="app-generate")
                    stop = gr.Button("Interrupt", elem_id="app-interrupt")
                gallery = gr.Gallery(label="Result", columns=2, height=PICTURE_HEIGHT, elem_id="app-result")
                message = gr.HTML("", elem_id="app-message")
        option = OPTIONS["enabled"]
        enabled = gr.Checkbox(value=option.default, label=option.label, elem_id=_id(option.name))
        around = dataclasses.replace(SURROUNDINGS, side=engine.networks.side, estimators=engine.pool.names())
        built = panel.build(tab="img2img", elem_id=_id, page=around)
        values = [drawn, *settings.values(), enabled, *built.controls.values()]
        buttons = {"generate": button, "stop": stop}
        _connect(blocks, backend, built, settings=settings, values=values, buttons=buttons, outputs=[gallery, message])
    return blocks


def look() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of `gr.Blocks` and of its `launch` that give the page its look."""
    style = STYLE + (ASSETS / "style.css").read_text(encoding="utf8")
    # The default theme fetches its fonts from a server of theirs.
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return versions.with_look(style, theme)


def _id(name: str) -> str:
    return f"app-depth-{name}"


def _connect(
    blocks: gr.Blocks,
    backend: Backend,
    built: panel.Panel,
    *,
    settings: Mapping[str, Any],
    values: Sequence[Any],
    buttons: Mapping[str, Any],
    outputs: Sequence[Any],
) -> None:
    def split(given: Sequence[Any]) -> tuple[Any, dict[str, Any], Sequence[Any]]:
        chosen = dict(zip(settings, given[1:], strict=False))
        for name in ("width", "height"):
            chosen[name] = chosen[name] or None
        return given[0], chosen, given[1 + len(settings) :]

    # Gradio fills in the first by its default.
    def on_generate(
        progress: Any = gr.Progress(),  # noqa: B008
        owner: str = "",
        *given: Any,
    ) -> tuple[list[Any], str]:
        return backend.generate(*split(given), on_step=lambda done, total: progress((done, total)), session=owner)

    session = gr.Textbox(visible=versions.HIDDEN)
    blocks.load(fn=lambda: uuid.uuid4().hex, outputs=[session], queue=False)
    shown = [built.data, built.message]
    buttons["generate"].click(fn=on_generate, inputs=[session, *values], outputs=outputs)
    buttons["stop"].click(fn=backend.interrupt, inputs=[session], queue=False)
    asked = built.estimate.click(
        fn=lambda *given: backend.estimate(*split(given)), inputs=values, outputs=shown, show_progress="hidden"
    )
    built.interrupt.click(fn=None, cancels=[asked])
    panel.connect_recall(built, "img2img", backend.previews, backend.job, session)
    panel.connect_reuse(built, "img2img", backend.previews)
    built.refresh.click(fn=backend.status, outputs=[built.status], show_progress="hidden", queue=False)
    address = json.dumps(versions.file_address(ASSETS / "javascript" / "depth2img.mjs"))
    blocks.load(fn=None, **versions.script(f"async () => {{ (await import(encodeURI({address}))).start(); }}"))


def serve(engine: Engine, *, port: int, folder: Path | None, open_browser: bool) -> None:
    """Serve the page until interrupted.

    Raises:
        OptionError: the port is taken, or the folder does not exist.
    """
    if folder is not None and not folder.is_dir():
        raise OptionError("output", f"There is no folder {folder}.", fix="Create it first.")
    try:
        versions.serve(
            build(engine, folder),
            server_name=HOST,
            server_port=port,
            share=False,
            inbrowser=open_browser,
            quiet=True,
            allowed_paths=[str(ASSETS / "javascript")],
            **look()[1],
        )
    except OSError as problem:
        raise OptionError(
            "port", f"The page cannot be served on port {port}.", got=str(problem)[:80], fix="Choose another --port."
        ) from problem
