"""The always-on script "Depth to image", in txt2img and img2img."""

from __future__ import annotations

from typing import Any

import gradio as gr
from modules import script_callbacks, scripts, shared, ui_components

from depth2img import Depth2ImgError
from depth2img.gui import panel, panel_checkpoint
from depth2img.options import OPTIONS

from . import api, estimators, infotext, settings, xyz
from .errors import stops_the_job
from .hosts import HOST, NO_HOST, compat, host
from .hosts.base import Jobs
from .jobs import batch_tab, denoise, hook, request, results, tiles
from .page import checkpoints, fetching, preview, wiring
from .page.canvas import HostComponents

TITLE = OPTIONS["enabled"].label

JOBS = Jobs(
    running=hook.running,
    has_request=lambda p: request.request_of(p) is not None,
    img2img_conditioning=hook.img2img_conditioning,
    txt2img_conditioning=hook.txt2img_conditioning,
    at_step=denoise.at_step,
)
"""Functions that the host's adapter calls."""


class DepthToImage(scripts.Script):
    """The host makes one instance per tab. It holds components of the page, nothing of a request."""

    def __init__(self) -> None:
        super().__init__()
        self._host = HostComponents()
        self._connect: Any = None

    def title(self) -> str:
        """Name the script in the page, and lower-cased in the API."""
        return TITLE

    def show(self, is_img2img: bool) -> object:
        """Show the script in both tabs, always on."""
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any]:
        """Make the panel; its values become the arguments of the other methods, in the order of `OPTIONS`."""
        if HOST is None:
            return self._explain()
        tab = "img2img" if is_img2img else "txt2img"
        option = OPTIONS["enabled"]
        directories = is_img2img and not shared.cmd_opts.hide_ui_dir_config
        with ui_components.InputAccordion(
            settings.default("enabled"), label=option.label, elem_id=self.elem_id("enabled")
        ) as toggle:
            built = panel.build(
                tab=tab,
                elem_id=self.elem_id,
                page=wiring.page(tab),
                directories=directories,
                below=lambda: panel_checkpoint.build(
                    self.elem_id,
                    checkpoints.names(),
                    lambda: fetching.build(self.elem_id, fetching.CHECKPOINTS),
                    lambda: fetching.build(self.elem_id, fetching.ESTIMATORS),
                ),
            )
        components = {"enabled": toggle, **built.controls}
        unsaved = (*built.buttons, *built.below.parts)
        for component in (*unsaved, *components.values()):
            component.do_not_save_to_config = component in unsaved
        self.infotext_fields = infotext.paste_fields(components)
        # The host calls ui() twice more for its API, outside the page: only the first panel is connected.
        if self._connect is None:
            self._connect = lambda: wiring.connect(tab=tab, built=built, toggle=toggle, host=self._host)
        return list(components.values())

    def _explain(self) -> list[Any]:
        """Make a sentence instead of the panel, without a toggle: nothing here could have an effect on this host."""
        with gr.Accordion(TITLE, open=False, elem_id=self.elem_id("enabled")):
            gr.HTML(panel.note(NO_HOST, "bad", state="host"), elem_id=self.elem_id("status"))
        return []

    def after_component(self, component: Any, **kwargs: Any) -> None:
        """Collect the host's components of this tab, and connect the panel when the last of them exists."""
        tab = "img2img" if self.is_img2img else "txt2img"
        if self._host.note(component) == f"generation_info_{tab}" and self._connect is not None:
            self._connect()

    def before_process(self, p: Any, *args: Any) -> None:
        """Switch to a depth checkpoint if the user wants that, before the host chooses the checkpoint."""
        try:
            with stops_the_job("before_process"):
                _switch(p, args)
        except Depth2ImgError as error:
            hook.fail_later(p, error)  # the host's job has not begun, and would go on

    @stops_the_job("process")
    def process(self, p: Any, *args: Any) -> None:
        """Begin the job: the host has chosen the checkpoint, and nothing is computed yet."""
        if HOST is not None:
            compat.last_error.clear()
            hook.begin(p, args)

    @stops_the_job("postprocess_image")
    def postprocess_image(self, p: Any, pp: Any, *args: Any) -> None:
        """Score a picture that is done, before its infotext is made."""
        results.score(p, pp.image)

    @stops_the_job("postprocess")
    def postprocess(self, p: Any, processed: Any, *args: Any) -> None:
        """Keep and save the maps when all pictures are done."""
        preview.keep(p, processed)
        results.add_maps(p, processed)


def _switch(p: Any, args: tuple[Any, ...]) -> None:
    """Make the job switch to the depth checkpoint of the settings, if it gives depth and none is selected."""
    chosen = settings.depth_checkpoint()
    if chosen is None or p.override_settings.get("sd_model_checkpoint"):
        return
    if request.wants_given_depth(hook.options_of(p, args)) and not host().selected_is_depth():
        p.override_settings["sd_model_checkpoint"] = chosen


def register() -> None:
    """Connect with the host, which executes the script file at its start and at each "Reload UI"."""
    if HOST is None:
        compat.log.warning("Depth to image: %s", NO_HOST)
        return
    tiles.apply()
    batch_tab.apply()
    script_callbacks.on_script_unloaded(unregister)
    script_callbacks.on_ui_settings(settings.add)
    HOST.apply(JOBS)
    script_callbacks.on_before_ui(xyz.add)
    script_callbacks.on_app_started(api.add)
    xyz.add()  # with --nowebui there is no page, and the X/Y/Z script is loaded before extensions


def unregister() -> None:
    """Give the host its functions back, before "Reload UI" executes the script file again."""
    host().undo()
    tiles.undo()
    estimators.POOL.unload()
    batch_tab.undo()
