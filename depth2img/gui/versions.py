"""What differs between the Gradio versions that the panel meets: 3.41 and 4.40 in hosts, the current 6 in the app.

Everything else of Gradio that the panel uses is the same in all of them.
"""

from __future__ import annotations

from typing import Any, Final

import gradio as gr

MAJOR: Final = int(gr.__version__.partition(".")[0])

HIDDEN: Final[Any] = "hidden" if MAJOR >= 6 else False
"""`visible` of a component that nobody sees but the page's scripts need; since Gradio 6, False leaves it out."""

UPLOAD: Final = "filepath" if MAJOR >= 4 else "file"
"""`type` of a `gr.File` whose value is a file on the server; `io.uploads.uploaded` takes either kind."""


def script(code: str) -> dict[str, str]:
    """Return the keyword arguments of an event listener that run JavaScript in the page before `fn`.

    Args:
        code: a JavaScript function; what it returns becomes the inputs.
    """
    return {"js" if MAJOR >= 4 else "_js": code}


def file_address(path: object) -> str:
    """Return the address at which Gradio serves a file of the server that it is allowed to serve."""
    return f"{'/gradio_api' if MAJOR >= 5 else ''}/file={path}"
