"""The panel: Gradio components made from the option table, independent of the WebUI.

The WebUI adapter and `depth2img app` put the same panel on their pages and connect its buttons. The stage (preview,
hover view, comparison, histogram) is built in the browser by javascript/depth2img-stage.mjs, which is configured by
`data-config`.
"""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import gradio as gr

from ..depth.hints import AS_DISTANCES
from ..errors import NoDepthError
from ..options import CHECKPOINT, OPTIONS, uses_own_map
from ..sharing.page import template
from . import versions, view
from .components import component

SECTIONS: Final = ("source", "adjust", "control", "result")
"""The panel's parts; `Option.section` names the one that shows an option."""

DECIDING: Final = ("source", "under_mask", "range")
"""The options that decide which others are visible; see `visible`."""

DEPENDS: Final = tuple(name for name, option in OPTIONS.items() if option.stage == "map")
"""The options that the estimated map depends on, before it is adjusted."""

HELP: Final[Mapping[str, str]] = {
    "estimate": "Shows the depth map of the picture as it enters the sampler, before generating.",
    "recall": "Shows the map that the latest job used, with its picture; 'Compare' overlays the result.",
    "reuse": "Uses the shown map as 'My own depth map' in the next jobs.",
}
"""Tooltips of the buttons."""


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """The rest of the page, as far as the panel needs to know it; CSS selectors and element ids.

    Attributes:
        watch: elements that a preview depends on: after a change in one of them, the preview is marked stale.
        width, height: ids of the size sliders; empty if there are none.
        picture: id of the picture component; empty if there is none.
        result: the latest result's `img`.
        side: the model's own side in pixels.
        colours: the initial colour map.
        estimators: names offered for the estimator; others can be typed in.
        absent: options that are of no use on the page; they are hidden and keep their defaults.
        values: option name -> its first value, if that is not the default of the table.
    """

    watch: Sequence[str] = ()
    width: str = ""
    height: str = ""
    picture: str = ""
    result: str = ""
    side: int = 512
    colours: str = "grey"
    estimators: Sequence[str] = (CHECKPOINT,)
    absent: Collection[str] = ()
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Panel:
    """The components of one panel.

    Attributes:
        controls: option name -> component, in the order of `OPTIONS`, without the toggle.
        estimate: the button "Estimate depth".
        interrupt: hidden button, pressed by the stage.
        recall: the button "Depth of the last job".
        follow: hidden button, pressed by the page when another result is shown: its map, if it has one.
        reuse: the button "Use this depth again".
        shown: hidden text, which carries the id of the shown preview, or the place of the shown result in its gallery.
        data: hidden HTML with the data for the stage, see `view.to_html`.
        message: HTML under the stage: a description of the map, or what went wrong.
        status: HTML that names the checkpoint in use.
        refresh: hidden button that updates the status.
        install: button that installs the bundled model; hidden unless the status offers it.
        below: components that the page added below, see `build`.
    """

    controls: dict[str, Any]
    estimate: Any
    interrupt: Any
    recall: Any
    follow: Any
    reuse: Any
    shown: Any
    data: Any
    message: Any
    status: Any
    refresh: Any
    install: Any
    below: Any = None

    @property
    def buttons(self) -> tuple[Any, ...]:
        """All components that are not options."""
        pressed = self.estimate, self.interrupt, self.recall, self.follow, self.reuse
        return *pressed, self.shown, self.refresh, self.install


def build(
    *,
    tab: str,
    elem_id: Callable[[str], str],
    page: Surroundings | None = None,
    directories: bool = False,
    below: Callable[[], Any] | None = None,
) -> Panel:
    """Make the panel inside the current Gradio context.

    Args:
        tab: `img2img` or `txt2img`: decides what the empty preview says; unique on the page.
        elem_id: short name -> element id, unique on the page.
        page: the rest of the page.
        directories: whether there is a Batch tab, whose user may name folders on the server.
        below: makes further components below the controls; its result becomes `Panel.below`.
    """
    controls: dict[str, Any] = {}
    around = page or Surroundings()

    first = {name: around.values.get(name, option.default) for name, option in OPTIONS.items()}
    shown_first = visible(*(first[name] for name in DECIDING), directories=directories)

    def add(section: str) -> None:
        for name in in_section(section):
            controls[name] = component(
                OPTIONS[name],
                elem_id(name),
                value=first[name],
                visible=name not in around.absent and shown_first.get(name, True),
                names=around.estimators,
            )

    with gr.Column(elem_classes=["depth2img-panel"]):
        with gr.Row(elem_classes=["depth2img-row", "depth2img-top"]):
            status = gr.HTML("", elem_id=elem_id("status"), elem_classes=["depth2img-status"])
            install = gr.Button(
                "Install the bundled model", size="sm", visible=False, elem_id=elem_id("install"), scale=0
            )
        refresh = gr.Button("Refresh depth status", visible=versions.HIDDEN, elem_id=elem_id("refresh"))
        with gr.Row(elem_classes=["depth2img-row"]):
            with gr.Column(scale=6, min_width=260, elem_classes=["depth2img-column"]):
                gr.HTML(_stage(tab, elem_id, around), elem_classes=["depth2img-holder"])
                message = gr.HTML("", elem_id=elem_id("message"), elem_classes=["depth2img-message"])
                with gr.Row(elem_classes=["depth2img-row", "depth2img-buttons"]):
                    estimate = _button("Estimate depth", "estimate", elem_id, variant="primary")
                    recall = _button("Depth of the last job", "recall", elem_id)
                    reuse = _button("Use this depth again", "reuse", elem_id)
                interrupt = gr.Button("Interrupt", visible=versions.HIDDEN, elem_id=elem_id("interrupt"))
                follow = gr.Button("Depth of the result", visible=versions.HIDDEN, elem_id=elem_id("follow"))
            with gr.Column(scale=5, min_width=260, elem_classes=["depth2img-column"]):
                add("source")
                add("adjust")
        with gr.Row(elem_classes=["depth2img-row", "depth2img-grid"]):
            add("result")
        with (
            gr.Accordion("Control", open=False, elem_id=elem_id("control")),
            gr.Row(elem_classes=["depth2img-row", "depth2img-grid"]),
        ):
            add("control")
        added = below() if below is not None else None
        data = gr.HTML(view.to_html(None), elem_id=elem_id("data"), elem_classes=["depth2img-data"])
        shown = gr.Textbox(visible=versions.HIDDEN, elem_id=elem_id("shown"))
    controls = {name: controls[name] for name in OPTIONS if name in controls}
    names = list(visible("", "", "", directories=directories))
    choices = [controls[name] for name in DECIDING]
    for choice in choices:
        choice.change(
            fn=lambda *values: [gr.update(visible=v) for v in visible(*values, directories=directories).values()],
            inputs=choices,
            outputs=[controls[name] for name in names],
            show_progress="hidden",
            queue=False,
        )
    pressed = estimate, interrupt, recall, follow, reuse
    return Panel(controls, *pressed, shown, data, message, status, refresh, install, added)


def visible(source: str, under_mask: str, range: str, *, directories: bool = False) -> dict[str, bool]:
    """Decide which of the options that depend on other choices are shown.

    Args:
        source, under_mask, range: the values of `DECIDING`.
        directories: see `build`.
    """
    maps, fixed = uses_own_map(source, under_mask), range == "fixed"
    return {
        "reference": source == "reference",
        "depth_map": maps,
        "holds": maps,
        "map_channel": maps,
        "map_directory": maps and directories,
        "map_ending": maps and directories,
        "range_far": fixed,
        "range_near": fixed,
        "range_clip": range == "percentile",
    }


def connect_reuse(panel: Panel, tab: str, previews: view.Previews) -> None:
    """Wire "Use this depth again" to the previews that the page shows."""

    def reuse(shown: str) -> list[Any]:
        try:
            path = previews.as_file(shown)
        except NoDepthError as error:
            return [gr.update()] * 4 + [note(str(error), "bad")]
        return [
            gr.update(value="map"),
            gr.update(value=str(path), visible=True),
            # Whatever it was read from, the shown map holds nearness, in one channel.
            gr.update(value="nearness"),
            gr.update(value=""),
            note("The shown map is now 'My own depth map'."),
        ]

    panel.reuse.click(
        fn=reuse,
        **versions.script(f"() => [depth2imgShown('{tab}')]"),
        inputs=[panel.shown],
        outputs=[*(panel.controls[name] for name in ("source", "depth_map", "holds", "map_channel")), panel.message],
        show_progress="hidden",
    )


def recalled(previews: view.Previews, found: view.View | None) -> tuple[str, str]:
    """Return data and message for the map of the latest job; None if there is none."""
    if found is None:
        error = NoDepthError("There is no map of a job yet.", fix="Generate with depth first.")
        return view.to_html(None, sentence=str(error)), note(str(error), "bad")
    text = " ".join(filter(None, ["Of the latest job:", view.describe(found.depth), found.remark]))
    return previews.show(found), note(text)


def connect_recall(
    panel: Panel, tab: str, previews: view.Previews, find: Callable[[Any, int], view.View | None], job: Any
) -> None:
    """Wire "Depth of the last job", and the page's own question for the map of the result that it shows.

    Args:
        panel: the panel.
        tab: as in `build`.
        previews: where what is shown is kept.
        find: the value of `job` and the result's place in the gallery -> its map, None if there is none.
        job: component that says which job is meant.
    """

    def recall(told: Any, chosen: str) -> tuple[str, str]:
        return recalled(previews, find(told, _place(chosen)))

    def follow(told: Any, chosen: str) -> tuple[Any, Any]:
        found = find(told, _place(chosen))
        return (gr.update(), gr.update()) if found is None else recalled(previews, found)

    for button, answer in ((panel.recall, recall), (panel.follow, follow)):
        button.click(
            fn=answer,
            **versions.script(f"(job) => [job, depth2imgChosen('{tab}')]"),
            inputs=[job, panel.shown],
            outputs=[panel.data, panel.message],
            show_progress="hidden",
        )


def _place(chosen: str) -> int:
    """Read a place in a gallery as the page sends it; 0 if it is none."""
    return int(chosen) if isinstance(chosen, str) and chosen.isdecimal() and len(chosen) < 6 else 0


def in_section(section: str) -> list[str]:
    """Return the options of a section in the order in which the panel shows them."""
    inside = [option for option in OPTIONS.values() if option.section == section]
    return [option.name for option in sorted(inside, key=lambda option: option.rank)]


AS_DISTANCES_BUTTON: Final = (
    ' <button type="button" class="depth2img-remedy" data-option="holds" '
    f'data-choice="{list(OPTIONS["holds"].choices).index("distance")}">Use as distances</button>'
)
"""The page (javascript/depth2img.mjs) clicks the choice of that number."""


def note(text: str, kind: str = "info", *, state: str = "", side: int | None = None) -> str:
    """Make a line of HTML for `Panel.message` or `Panel.status`; the text is escaped.

    Where the text says that a map may hold distances, a button beside it chooses that and estimates again.

    Args:
        text: plain text.
        kind: `info`, `good` or `bad`; becomes a CSS class.
        state: state that the page reads from the line, as `data-state`.
        side: the model's own side in pixels, as `data-side`.
    """
    remedy = AS_DISTANCES_BUTTON if AS_DISTANCES in text else ""
    kind, state, text = html.escape(kind), html.escape(state), html.escape(text)
    own_side = "" if side is None else f' data-side="{side:d}"'
    return f'<p class="depth2img-note depth2img-{kind}" data-state="{state}"{own_side}>{text}{remedy}</p>'


def _hint(tab: str) -> str:
    if tab == "img2img":
        return "Press 'Estimate depth' to see the depth map of the picture before generating."
    return "txt2img takes depth from another picture or from a depth map of your own: choose one under 'Depth from'."


def _stage(tab: str, elem_id: Callable[[str], str], page: Surroundings) -> str:
    texts = ("status", "message", "data", "shown")
    parts = (*texts, "estimate", "interrupt", "refresh", "recall", "follow", "reuse", "install")
    own = [f"#{elem_id(name)}" for name in DEPENDS]
    config = {
        "tab": tab,
        "ids": {name: elem_id(name) for name in OPTIONS},
        "parts": {name: elem_id(name) for name in parts},
        "tooltips": {**{option.name: option.help for option in OPTIONS.values()}, **HELP},
        "labels": {option.name: option.label for option in OPTIONS.values()},
        "hint": _hint(tab),
        "colour_maps": view.colour_tables(),
        "watch": [*page.watch, *own],
        "page": {"width": page.width, "height": page.height, "picture": page.picture},
        "sample": view.sample(),
        "share": template(),
        "result": page.result or "#depth2img-none",
        "side": page.side,
        "colours": page.colours,
    }
    return f'<div class="depth2img-stage" data-config="{html.escape(json.dumps(config))}"></div>'


def _button(title: str, name: str, elem_id: Callable[[str], str], variant: str = "secondary") -> Any:
    return gr.Button(title, size="sm", min_width=80, variant=variant, elem_id=elem_id(name))
