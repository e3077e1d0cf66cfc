"""Connect the panel's buttons with the host's components."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Final

from depth2img import OPTIONS, Depth2ImgError, NoDepthError
from depth2img.gui import panel, versions

from .. import estimators, settings
from ..jobs.host_frame import HostFrame
from . import checkpoints, fetching, status
from .canvas import SKETCH_ORIGINAL, STROKES, TABS, HostComponents
from .form import SETTINGS, Form, Framed, frame
from .preview import JOBS, PREVIEWS, failed, show

HOST_IDS: Final = {
    "img2img": (*TABS, *(name for name in SETTINGS if name != SKETCH_ORIGINAL)),
    "txt2img": ("txt2img_width", "txt2img_height"),
}
"""The host's components that "Estimate depth" needs, by tab."""

NO_PICTURES: Final = NoDepthError(
    "The picture fields of this WebUI's page are not known, so that there is nothing to estimate depth from.",
    fix="Generate; 'Depth of the last job' shows the map.",
)

# The open tabs have no components: the page fills in the first two values. Only the open tab's picture and strokes are
# sent, since pictures are sent as text with every event. The row of tabs above the size has no id before 1.10.0.
COLLECT: Final = f"""(tab, by, ...rest) => {{{{
    const open = get_tab_index('mode_img2img');
    const sent = rest.map((value, i) => i < {len(TABS)} + {{strokes}} && i % {len(TABS)} !== open ? null : value);
    const scaled = gradioApp().getElementById('img2img_tab_resize_by');
    return [open, Number(getComputedStyle(scaled).display !== 'none'), ...sent];
}}}}"""

PAGES: Final = {
    "img2img": panel.Surroundings(
        watch=[
            "#mode_img2img",
            "#resize_mode",
            "#img2img_column_size .tabs",
            "#img2img_mask_mode",
            "#img2img_mask_blur",
            "#img2img_inpainting_fill",
            "#img2img_inpaint_full_res",
            "#img2img_inpaint_full_res_padding",
        ],
        width="img2img_width",
        height="img2img_height",
        picture="img2img_image",
        result="#img2img_gallery .preview > img, #img2img_gallery img",
    ),
    "txt2img": panel.Surroundings(
        watch=["#txt2img_width", "#txt2img_height"],
        width="txt2img_width",
        height="txt2img_height",
        result="#txt2img_gallery .preview > img, #txt2img_gallery img",
    ),
}


def page(tab: str) -> panel.Surroundings:
    """Describe the page around the panel of a tab."""
    return dataclasses.replace(
        PAGES[tab],
        colours=settings.colour_map(),
        estimators=estimators.POOL.names(),
        values={name: settings.default(name) for name, option in OPTIONS.items() if option.kind != "image"},
    )


def connect(*, tab: str, built: panel.Panel, toggle: Any, host: HostComponents) -> None:
    """Connect the panel's buttons, once all components of the tab exist.

    Args:
        tab: `img2img` or `txt2img`.
        built: the panel.
        toggle: the header's switch, first of the script's arguments.
        host: the host's components by element id.
    """
    controls = [toggle, *built.controls.values()]
    outputs = [built.data, built.message]
    if tab == "txt2img":
        size = [host["txt2img_width"], host["txt2img_height"]]

        def on_txt2img(width: float, height: float, *args: Any) -> tuple[str, str]:
            if args[1] == "picture":
                return failed(
                    NoDepthError(
                        "There is nothing to estimate depth from.",
                        fix="Choose another picture or a depth map under 'Depth from'.",
                    )
                )
            return show(Framed(None, HostFrame((int(width), int(height)))), args)

        asked = built.estimate.click(fn=on_txt2img, inputs=[*size, *controls], outputs=outputs, show_progress="hidden")
    elif any(name not in host for name in HOST_IDS[tab]):
        asked = built.estimate.click(fn=lambda: failed(NO_PICTURES), inputs=[], outputs=outputs)
    else:
        pictures, strokes = host.named(*TABS), host.named(*STROKES)
        names = [elem_id for elem_id in SETTINGS if elem_id in host]  # one is not there beside canvases
        count = len(pictures) + len(strokes)
        end = count + len(names)

        def on_img2img(mode: float, scale_tab: float, *values: Any) -> tuple[str, str]:
            form = Form(
                **{SETTINGS[name]: value for name, value in zip(names, values[count:end], strict=True)},
                strokes=values[len(pictures) : count] if strokes else None,
            )
            try:
                framed = frame(int(mode), int(scale_tab), values[: len(pictures)], form)
            except Depth2ImgError as error:
                return failed(error)
            return show(framed, values[end:])

        numbers = [host["img2img_width"], host["img2img_height"]]
        inputs = [*numbers, *pictures, *strokes, *(host[name] for name in names), *controls]
        asked = built.estimate.click(
            fn=on_img2img,
            **versions.script(COLLECT.format(strokes=len(strokes))),
            inputs=inputs,
            outputs=outputs,
            show_progress="hidden",
        )
    built.interrupt.click(fn=None, inputs=[], outputs=[], cancels=[asked])
    info = host[f"generation_info_{tab}"]
    panel.connect_recall(built, tab, PREVIEWS, JOBS.get, info)
    panel.connect_reuse(built, tab, PREVIEWS)
    _connect_checkpoints(built)


def _connect_checkpoints(built: panel.Panel) -> None:
    """Connect the status line and the section "Depth checkpoint"."""
    line = [built.status, built.install]
    known = [*line, built.controls["estimator"]]
    built.refresh.click(fn=status.show, inputs=[], outputs=known, show_progress="hidden", queue=False)
    built.install.click(fn=status.install, inputs=[], outputs=line)
    checkpoints.connect(built.below)
    fetching.connect(built.below.fetching, fetching.CHECKPOINTS, checkpoints.REFRESH)
    press = f"() => gradioApp().querySelector({json.dumps(f'#{built.refresh.elem_id}')}).click()"
    fetching.connect(built.below.estimators, fetching.ESTIMATORS, press)
