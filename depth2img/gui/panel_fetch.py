"""The panel's part that downloads a published checkpoint or depth estimator; independent of the WebUI."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import gradio as gr

from . import versions
from .panel import note

if TYPE_CHECKING:
    from ..checkpoints.download.mirrors import RemoteFile

ABOUT: Final = "Nothing is downloaded until you press the button. An interrupted download is resumed."


@dataclasses.dataclass(frozen=True)
class Fetching:
    """The components.

    Attributes:
        file: the published checkpoint or estimator.
        fetch: the button that starts the download.
        stop: the button that stops it; hidden unless a download is running.
        poll: hidden button that asks for the progress.
        offer: HTML: contents, size, source and licence of the download.
        progress: HTML: the progress, or the outcome.
    """

    file: Any
    fetch: Any
    stop: Any
    poll: Any
    offer: Any
    progress: Any

    @property
    def parts(self) -> tuple[Any, ...]:
        """All components; none of them is an option."""
        return self.file, self.fetch, self.stop, self.poll


def build(
    elem_id: Callable[[str], str],
    files: Sequence[str],
    offer: str,
    *,
    label: str = "Published checkpoint",
    button: str = "Download and select",
) -> Fetching:
    """Make the part inside the current Gradio context.

    Args:
        elem_id: short name -> element id, unique on the page.
        files: names of the published files, the recommended one first.
        offer: HTML for the first of them.
        label: of the list.
        button: title of the button that starts the download.
    """
    with gr.Row(elem_classes=["depth2img-row", "depth2img-checkpoint"]):
        file = gr.Dropdown(
            list(files),
            value=next(iter(files), None),
            label=label,
            info=ABOUT,
            elem_id=elem_id("published"),
            scale=1,
        )
        fetch = gr.Button(button, size="sm", scale=0, min_width=200, elem_id=elem_id("fetch"))
        stop = gr.Button(
            "Stop", size="sm", scale=0, min_width=80, variant="stop", visible=False, elem_id=elem_id("stop")
        )
    progress = gr.HTML("", elem_id=elem_id("fetching"), elem_classes=["depth2img-report"])
    shown = gr.HTML(offer, elem_id=elem_id("offer"), elem_classes=["depth2img-report"])
    poll = gr.Button("Ask how far it is", visible=versions.HIDDEN, elem_id=elem_id("poll"))
    return Fetching(file, fetch, stop, poll, shown, progress)


def offer_html(entry: RemoteFile, folder: str) -> str:
    """Render a download as a table: contents, size, source and target; its name is chosen above."""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(label)}</th><td>{html.escape(value)}</td></tr>'
        for label, value in (*entry.rows()[1:], ("To", folder))
    )
    return f'<table class="depth2img-table">{rows}</table>'


def progress_html(done: int, total: int, text: str) -> str:
    """Render a progress bar with bytes done and in total, and the latest event."""
    bar = f'<progress class="depth2img-progress" max="{max(total, 1)}" value="{done}" aria-label="Download"></progress>'
    figures = f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB" if total else "Starting"
    said = html.escape(" · ".join(part for part in (figures, text) if part))
    return f'<div data-fetch="running">{bar}<p class="depth2img-note depth2img-info">{said}</p></div>'


def outcome_html(text: str, *, good: bool, title: str = "") -> str:
    """Render the outcome.

    Args:
        text: plain text.
        good: true if the checkpoint is there.
        title: the host's name of it, for the page to select it.
    """
    line = note(text, "good" if good else "bad")
    return f'<div data-fetch="{"done" if good else "failed"}" data-title="{html.escape(title)}">{line}</div>'
