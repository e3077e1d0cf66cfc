"""Differences between the Gradio versions that the panel meets: 3.41 and 4.40 in hosts, the current 6 in the app.

Everything else of Gradio that the panel uses is the same in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import gradio as gr

MAJOR: Final = int(gr.__version__.partition(".")[0])

HIDDEN: Final[Any] = "hidden" if MAJOR >= 6 else False
"""`visible` of a component that nobody sees but the page's scripts need; since Gradio 6, False leaves it out."""

UPLOAD: Final = "filepath" if MAJOR >= 4 else "file"
"""`type` of a `gr.File` whose value is a file on the server; `io.uploads.uploaded` takes either kind."""


def sketch(**given: Any) -> Any:
    """Make the component that shows a picture and lets the user paint over it in white, inside the current context.

    Its value is taken apart by `strokes`.

    Args:
        given: label, height and the like, which all versions know.
    """
    if MAJOR < 4:
        return gr.Image(tool="sketch", type="pil", brush_color="#ffffff", **given)
    white = gr.Brush(colors=["#ffffff"], default_color="#ffffff", color_mode="fixed")
    own: dict[str, Any] = {"sources": ["upload", "clipboard"], "transforms": [], "layers": False, "brush": white}
    # Losslessly, and with the strokes' transparency; by default pictures become WebP.
    return gr.ImageEditor(type="pil", image_mode="RGBA", format="png", **own, **given)


def strokes(value: Any) -> tuple[Any, Any]:
    """Take the value of `sketch` apart: the picture, and the strokes, white on black or white on nothing; or None.

    Args:
        value: `{"image": ..., "mask": ...}` of Gradio 3, `{"background": ..., "layers": [...]}` of later ones, a
            picture, or None.
    """
    if not isinstance(value, Mapping):
        return value, None
    if "image" in value:
        return value["image"], value.get("mask")
    return value.get("background"), next(iter(value.get("layers") or ()), None)


def with_look(css: str, theme: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the keyword arguments of `gr.Blocks` and of its `launch` that give a page its look."""
    look = {"css": css, "theme": theme}
    return ({}, look) if MAJOR >= 6 else (look, {})


def serve(page: Any, **given: Any) -> Any:
    """Launch a page whose jobs run one after the other, without links to its API.

    Args:
        page: `gr.Blocks`.
        given: keyword arguments of `launch` that all versions know.
    """
    if MAJOR < 4:
        return page.queue(concurrency_count=1).launch(show_api=False, **given)
    bare: dict[str, Any] = {"footer_links": []} if MAJOR >= 6 else {"show_api": False}
    return page.queue(default_concurrency_limit=1).launch(**bare, **given)


def script(code: str) -> dict[str, str]:
    """Return the keyword arguments of an event listener that run JavaScript in the page before `fn`.

    Args:
        code: a JavaScript function; what it returns becomes the inputs.
    """
    return {"js" if MAJOR >= 4 else "_js": code}


def file_address(path: object) -> str:
    """Return the address at which Gradio serves a file of the server that it is allowed to serve."""
    return f"{'/gradio_api' if MAJOR >= 5 else ''}/file={path}"
