"""Fetch a published checkpoint from the panel: one download at a time, in a thread of its own, begun by a click.

The page names nothing but a file of the table. Whoever runs the WebUI extends the table by `DEPTH2IMG_MIRRORS`.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import gradio as gr
from modules import sd_models

from depth2img import CheckpointError, Depth2ImgError
from depth2img.gui import panel_fetch, versions
from depth2img.io.atomic import refusing

from ..hosts import compat
from ..hosts.compat import log
from . import checkpoints

if TYPE_CHECKING:
    from depth2img.checkpoints.download.mirrors import RemoteFile

OWN_TABLES: Final = "DEPTH2IMG_MIRRORS"
"""Environment variable with further tables or folders, as for the command line."""

Shown = tuple[str, Any, Any]
"""Progress as HTML, and the updates of the buttons "Download and select" and "Stop"."""


class Download:
    """A download and what follows, in a thread.

    Attributes:
        done, total: bytes; total is 0 before the first.
        text: the latest of what else happened.
        outcome: HTML, once it has ended.
    """

    def __init__(self, entry: RemoteFile) -> None:
        self.entry, self.done, self.total, self.text, self.outcome = entry, 0, 0, "", ""
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, name="depth2img fetch", daemon=True)

    def _run(self) -> None:
        try:
            self.outcome = self._fetch()
        except Depth2ImgError as error:
            log.warning("%s", error)
            self.outcome = panel_fetch.outcome_html(str(error), good=False)
        except Exception:  # nobody waits for this thread: without an outcome the page would ask forever
            log.exception("%s was not fetched.", self.entry.file)
            self.outcome = panel_fetch.outcome_html("It failed; the WebUI's console says why.", good=False)

    def _fetch(self) -> str:
        from depth2img.checkpoints import carry_out, plan_setup
        from depth2img.checkpoints.download.fetch import fetch

        folders = checkpoints.folders()
        with refusing(f"The folder {folders[0]} cannot be created.", CheckpointError):
            folders[0].mkdir(exist_ok=True)
        got = fetch(self.entry, folders[0], progress=self._tell, notice=self._say, stop=self.stopped.is_set)
        plan = plan_setup(got.path, folders)
        if plan.yaml == "replace":  # asked for under "Checkpoint file", where the plan is shown first
            text = f"{got.path.name} is here, but its YAML is wrong: choose it under 'Checkpoint file' and inspect it."
            return panel_fetch.outcome_html(text, good=False)
        carry_out(plan, folders)
        sd_models.list_models()
        compat.last_error.clear()
        infos = sd_models.checkpoints_list.values()
        title = next((info.title for info in infos if Path(info.filename).absolute() == got.path.absolute()), "")
        return panel_fetch.outcome_html(f"{got.path.name} is here, checked and set up.", good=True, title=title)

    def _tell(self, done: int, total: int) -> None:
        self.done, self.total, self.text = done, total, ""

    def _say(self, text: str) -> None:
        log.info("%s", text)
        self.text = text


_lock = threading.Lock()
_download: Download | None = None


def entries() -> dict[str, RemoteFile]:
    """Return the table, with the additions of the WebUI's owner.

    Raises:
        CheckpointError: a table of theirs cannot be used.
    """
    from depth2img.checkpoints.download import mirrors

    own = os.environ.get(OWN_TABLES, "")
    return mirrors.table([Path(path) for path in own.split(os.pathsep) if path])


def build(elem_id: Any) -> panel_fetch.Fetching:
    """Make the components, for the table as it is now."""
    from depth2img.checkpoints.download import mirrors

    try:
        known = entries()
    except CheckpointError as error:
        log.warning("%s", error)
        known = mirrors.table()
    first = next(iter(known.values()))
    return panel_fetch.build(elem_id, list(known), panel_fetch.offer_html(first, str(checkpoints.folders()[0])))


def offer(file: Any) -> str:
    """Render what the page shows of a file before it is fetched."""
    from depth2img.checkpoints.download import mirrors

    try:
        return panel_fetch.offer_html(mirrors.find(str(file), entries()), str(checkpoints.folders()[0]))
    except CheckpointError as error:
        return panel_fetch.outcome_html(str(error), good=False)


def start(file: Any) -> Shown:
    """Begin to fetch a file of the table, unless one is being fetched."""
    from depth2img.checkpoints.download import mirrors

    global _download
    with _lock:
        if _download is None or not _download.thread.is_alive():
            try:
                _download = Download(mirrors.find(str(file), entries()))
            except CheckpointError as error:
                return panel_fetch.outcome_html(str(error), good=False), gr.update(), gr.update()
            _download.thread.start()
    return poll()


def poll() -> Shown:
    """Show the progress, or the outcome."""
    current = _download
    if current is None:
        return "", *_buttons(running=False)
    if current.outcome:
        return current.outcome, *_buttons(running=False)
    return panel_fetch.progress_html(current.done, current.total, current.text), *_buttons(running=True)


def stop() -> Shown:
    """Stop the download; what is there is kept for the next time."""
    if _download is not None:
        _download.stopped.set()
        _download.text = "Stopping"
    return poll()


def _buttons(*, running: bool) -> tuple[Any, Any]:
    return gr.update(interactive=not running), gr.update(visible=running)


def connect(part: panel_fetch.Fetching) -> None:
    """Wire the components. The page polls every second, and selects the checkpoint when it is there."""
    shown = [part.progress, part.fetch, part.stop]
    part.file.change(fn=offer, inputs=[part.file], outputs=[part.offer], show_progress="hidden", queue=False)
    part.fetch.click(fn=start, inputs=[part.file], outputs=shown, show_progress="hidden", queue=False).then(
        fn=None, **versions.script(_watching(part)), inputs=[], outputs=[]
    )
    part.poll.click(fn=poll, inputs=[], outputs=shown, show_progress="hidden", queue=False)
    part.stop.click(fn=stop, inputs=[], outputs=shown, show_progress="hidden", queue=False)


def _watching(part: panel_fetch.Fetching) -> str:
    shown, poll = (json.dumps(f"#{component.elem_id}") for component in (part.progress, part.poll))
    return f"""() => {{
        const holder = gradioApp().querySelector({shown});
        clearInterval(holder.depth2imgTimer);
        holder.depth2imgTimer = setInterval(() => {{
            const {{ fetch, title }} = holder.querySelector('[data-fetch]')?.dataset ?? {{}};
            if (fetch === 'running') return gradioApp().querySelector({poll}).click();
            clearInterval(holder.depth2imgTimer);
            if (fetch !== 'done') return;
            ({checkpoints.REFRESH})();
            if (title) setTimeout(() => selectCheckpoint(title), 1000);
        }}, 1000);
    }}"""
