"""Fetch a published checkpoint or depth estimator from the panel: one at a time, in a thread, begun by a click.

The page names nothing but a file of the table. Whoever runs the WebUI extends the table by `DEPTH2IMG_MIRRORS`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import gradio as gr
from modules import sd_models

from depth2img import CheckpointError, Depth2ImgError
from depth2img.gui import panel_fetch, versions
from depth2img.io.atomic import refusing

from .. import estimators
from ..hosts import compat
from ..hosts.compat import log
from . import checkpoints

if TYPE_CHECKING:
    from depth2img.checkpoints.download.mirrors import Kind, RemoteFile

OWN_TABLES: Final = "DEPTH2IMG_MIRRORS"
"""Environment variable with further tables or folders, as for the command line."""

Shown = tuple[str, Any, Any]
"""Progress as HTML, and the updates of the buttons that start and stop the download."""


class Outcome(NamedTuple):
    """Outcome for a file that is there.

    Attributes:
        text: for the user.
        good: whether it can be used.
        title: the host's name of a checkpoint, for the page to select it.
    """

    text: str
    good: bool = True
    title: str = ""


@dataclasses.dataclass(frozen=True)
class Goods:
    """Files that one of the panel's two parts downloads.

    Attributes:
        kind: of the table's entries.
        folder: asked for the folder that a file goes into.
        use: makes a file usable that has just come.
        words: of the panel's part, see `panel_fetch.build`.
        prefix: of the short names of its components.
    """

    kind: Kind
    folder: Callable[[], Path]
    use: Callable[[Path], Outcome]
    words: Mapping[str, str]
    prefix: str = ""


class Download:
    """A download and what follows, in a thread.

    Attributes:
        done, total: bytes; total is 0 before the first.
        text: the latest of what else happened.
        outcome: HTML, once it has ended.
    """

    def __init__(self, entry: RemoteFile, goods: Goods) -> None:
        self.goods = goods
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
        from depth2img.checkpoints.download.fetch import fetch

        folder = self.goods.folder()
        with refusing(f"The folder {folder} cannot be created.", CheckpointError):
            folder.mkdir(exist_ok=True)
        got = fetch(self.entry, folder, progress=self._tell, notice=self._say, stop=self.stopped.is_set)
        outcome = self.goods.use(got.path)
        return panel_fetch.outcome_html(outcome.text, good=outcome.good, title=outcome.title)

    def _tell(self, done: int, total: int) -> None:
        self.done, self.total, self.text = done, total, ""

    def _say(self, text: str) -> None:
        log.info("%s", text)
        self.text = text


def _set_up(path: Path) -> Outcome:
    """Give a checkpoint its YAML, and bring the host's list up to date."""
    from depth2img.checkpoints import carry_out, plan_setup

    folders = checkpoints.folders()
    plan = plan_setup(path, folders)
    if plan.yaml == "replace":  # asked for under "Checkpoint file", where the plan is shown first
        text = f"{path.name} is here, but its YAML is wrong: choose it under 'Checkpoint file' and inspect it."
        return Outcome(text, good=False)
    carry_out(plan, folders)
    sd_models.list_models()
    compat.last_error.clear()
    infos = sd_models.checkpoints_list.values()
    title = next((info.title for info in infos if Path(info.filename).absolute() == path.absolute()), "")
    return Outcome(f"{path.name} is here, checked and set up.", title=title)


def _listed(path: Path) -> Outcome:
    return Outcome(f"{path.stem} is here and checked: choose it under 'Estimator'.")


CHECKPOINTS: Final = Goods(
    "checkpoint",
    lambda: checkpoints.folders()[0],
    _set_up,
    {"label": "Published checkpoint", "button": "Download and select"},
)
ESTIMATORS: Final = Goods(
    "estimator",
    lambda: estimators.FOLDER,
    _listed,
    {"label": "Published estimator", "button": "Download estimator"},
    prefix="estimator_",
)

_lock = threading.Lock()
_download: Download | None = None


def entries(goods: Goods = CHECKPOINTS) -> dict[str, RemoteFile]:
    """Return the table, with the additions of the WebUI's owner.

    Raises:
        CheckpointError: a table of theirs cannot be used.
    """
    from depth2img.checkpoints.download import mirrors

    own = os.environ.get(OWN_TABLES, "")
    return mirrors.table([Path(path) for path in own.split(os.pathsep) if path], kind=goods.kind)


def build(elem_id: Any, goods: Goods) -> panel_fetch.Fetching:
    """Make the components, for the table as it is now. Of estimators, those that can be checked are offered."""
    from depth2img.checkpoints.download import mirrors

    try:
        known = entries(goods)
    except CheckpointError as error:
        log.warning("%s", error)
        known = mirrors.table(kind=goods.kind)
    names = [name for name, entry in known.items() if entry.sha256 is not None or goods.kind == "checkpoint"]
    shown = panel_fetch.offer_html(known[names[0]], str(goods.folder()))
    return panel_fetch.build(lambda name: elem_id(goods.prefix + name), names, shown, **goods.words)


def offer(file: Any, goods: Goods = CHECKPOINTS) -> str:
    """Render what the page shows of a file before it is fetched."""
    from depth2img.checkpoints.download import mirrors

    try:
        return panel_fetch.offer_html(mirrors.find(str(file), entries(goods)), str(goods.folder()))
    except CheckpointError as error:
        return panel_fetch.outcome_html(str(error), good=False)


def start(file: Any, goods: Goods = CHECKPOINTS) -> Shown:
    """Begin to fetch a file of the table, unless one is being fetched."""
    from depth2img.checkpoints.download import mirrors

    global _download
    with _lock:
        if _download is None or not _download.thread.is_alive():
            try:
                _download = Download(mirrors.find(str(file), entries(goods)), goods)
            except CheckpointError as error:
                return panel_fetch.outcome_html(str(error), good=False), gr.update(), gr.update()
            _download.thread.start()
        elif _download.goods is not goods:
            text = f"{_download.entry.file} is being downloaded; wait until it is there, or stop it."
            return panel_fetch.outcome_html(text, good=False), gr.update(), gr.update()
    return poll(goods)


def poll(goods: Goods = CHECKPOINTS) -> Shown:
    """Show the progress, or the outcome."""
    current = _download
    if current is None or current.goods is not goods:
        return "", *_buttons(running=False)
    if current.outcome:
        return current.outcome, *_buttons(running=False)
    return panel_fetch.progress_html(current.done, current.total, current.text), *_buttons(running=True)


def stop(goods: Goods = CHECKPOINTS) -> Shown:
    """Stop the download; what is there is kept for the next time."""
    if _download is not None and _download.goods is goods:
        _download.stopped.set()
        _download.text = "Stopping"
    return poll(goods)


def _buttons(*, running: bool) -> tuple[Any, Any]:
    return gr.update(interactive=not running), gr.update(visible=running)


def connect(part: panel_fetch.Fetching, goods: Goods, done: str) -> None:
    """Wire the components. The page polls every second, and selects a checkpoint when it is there.

    Args:
        part: the components.
        goods: what they download.
        done: JavaScript function to call once it is there.
    """
    shown = [part.progress, part.fetch, part.stop]
    quiet = {"show_progress": "hidden", "queue": False}
    part.file.change(fn=lambda file: offer(file, goods), inputs=[part.file], outputs=[part.offer], **quiet)
    part.fetch.click(fn=lambda file: start(file, goods), inputs=[part.file], outputs=shown, **quiet).then(
        fn=None, **versions.script(_watching(part, done)), inputs=[], outputs=[]
    )
    part.poll.click(fn=lambda: poll(goods), inputs=[], outputs=shown, **quiet)
    part.stop.click(fn=lambda: stop(goods), inputs=[], outputs=shown, **quiet)


def _watching(part: panel_fetch.Fetching, done: str) -> str:
    shown, poll = (json.dumps(f"#{component.elem_id}") for component in (part.progress, part.poll))
    return f"""() => {{
        const holder = gradioApp().querySelector({shown});
        clearInterval(holder.depth2imgTimer);
        holder.depth2imgTimer = setInterval(() => {{
            const {{ fetch, title }} = holder.querySelector('[data-fetch]')?.dataset ?? {{}};
            if (fetch === 'running') return gradioApp().querySelector({poll}).click();
            clearInterval(holder.depth2imgTimer);
            if (fetch !== 'done') return;
            ({done})();
            if (title) setTimeout(() => selectCheckpoint(title), 1000);
        }}, 1000);
    }}"""
