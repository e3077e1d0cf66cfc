"""The section "Depth checkpoint" of the panel, on the WebUI's own list and folders.

The names that the page sends are anybody's: only files of the host's list, and checkpoints below its folders of models,
are looked at.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import gradio as gr
from modules import paths, sd_models, shared

from depth2img import CheckpointError
from depth2img.errors import command
from depth2img.gui import panel, panel_checkpoint, versions

from ..hosts import compat

if TYPE_CHECKING:
    from depth2img.checkpoints import SetupPlan

SUFFIXES: Final = (".safetensors", ".ckpt")
"""Suffixes that the host lists as checkpoints."""

LONGEST: Final = 1000
"""Longest path that the page may name, in characters."""

REFRESH: Final = "() => { gradioApp().querySelector('#refresh_sd_model_checkpoint')?.click(); }"
"""Presses the host's own button beside its list of checkpoints, which brings the page's list up to date."""

Shown = tuple[str, str, Any, str]
"""Report and plan as HTML, the update of the button, and the plan's sentences."""


def folders() -> tuple[Path, ...]:
    """Return the folders in which the host looks for checkpoints; new ones go into the first."""
    own = getattr(shared.cmd_opts, "ckpt_dir", None)
    return (*([Path(os.path.abspath(own))] if own else []), Path(sd_models.model_path))


def names() -> list[str]:
    """Return the host's names of its checkpoints."""
    return [info.name for info in sd_models.checkpoints_list.values()]


def find(name: Any) -> tuple[Path, str | None]:
    """Find the file that the page means, and its SHA-256 if the host knows it.

    Args:
        name: one of `names()`, or a path, absolute or below one of the host's folders of models.

    Raises:
        CheckpointError: it is not one of the host's checkpoints and lies elsewhere.
    """
    from depth2img.checkpoints.setup import within

    name = name.strip() if isinstance(name, str) else ""
    if not name:
        raise CheckpointError("No checkpoint is chosen.", fix="Choose one from the list, or give a path.")
    for info in sd_models.checkpoints_list.values():
        if name in (info.name, info.title):
            return Path(os.path.abspath(info.filename)), info.sha256
    allowed = [*folders(), Path(paths.models_path)]
    if len(name) <= LONGEST and name.isprintable() and name.lower().endswith(SUFFIXES):
        candidates = [Path(os.path.abspath(folder / name)) for folder in allowed]
        inside = [path for path in candidates if within(path, allowed)]
        if inside:
            return next((path for path in inside if path.is_file()), inside[0]), None
    raise CheckpointError(
        "Only checkpoints in the WebUI's folders of models can be named here.",
        got=f"'{name[:100]}'",
        fix=f"Put the file into {folders()[0]}; {command('checkpoint', 'setup', 'FILE')} does it.",
    )


def look(name: Any) -> Shown:
    """Report on a checkpoint, and say what setting it up would do. The file is opened once."""
    from depth2img.checkpoints import inspect, open_checkpoint, plan_setup

    try:
        path, sha256 = find(name)
        file = open_checkpoint(path, sha256=sha256)
        report = panel_checkpoint.report_html(inspect(file))
    except CheckpointError as error:
        return panel.note(str(error), "bad"), "", panel_checkpoint.button(None), ""
    try:
        return report, *_planned(plan_setup(file, folders()))
    except CheckpointError as error:
        return report, panel.note(str(error), "bad"), panel_checkpoint.button(None), ""


def _planned(plan: SetupPlan) -> tuple[str, Any, str]:
    return panel_checkpoint.plan_html(plan), panel_checkpoint.button(plan), "\n".join(plan.lines())


def set_up(name: Any, planned: str) -> Shown:
    """Carry out the plan that is shown; where it would be another one by now, show that instead.

    Args:
        name: see `find`.
        planned: the sentences that the user has seen.
    """
    from depth2img.checkpoints import carry_out, inspect, open_checkpoint, plan_setup

    try:
        path, sha256 = find(name)
        plan = plan_setup(path, folders())
        if "\n".join(plan.lines()) != planned or plan.done:
            return look(name)
        report = carry_out(plan, folders())
    except CheckpointError as error:
        return gr.update(), panel.note(str(error), "bad"), panel_checkpoint.button(None), ""
    sd_models.list_models()
    compat.last_error.clear()
    text = f"Done: choose {plan.target.name} in the list of checkpoints."
    if plan.backup is not None:
        text += f" The old YAML is kept as {plan.backup.name}."
    shown = panel_checkpoint.report_html(inspect(open_checkpoint(report.path, sha256=sha256)))
    return shown, panel.note(text, "good"), panel_checkpoint.button(None), ""


def connect(section: panel_checkpoint.Section) -> None:
    """Wire the section's buttons."""
    outputs = [section.report, section.plan, section.setup, section.planned]
    section.chosen.change(
        fn=lambda: ("", "", panel_checkpoint.button(None), ""),
        inputs=[],
        outputs=outputs,
        show_progress="hidden",
        queue=False,
    )
    section.inspect.click(fn=look, inputs=[section.chosen], outputs=outputs)
    section.setup.click(fn=set_up, inputs=[section.chosen, section.planned], outputs=outputs).then(
        fn=lambda: gr.update(choices=names()), inputs=[], outputs=[section.chosen], show_progress="hidden"
    ).then(fn=None, **versions.script(REFRESH), inputs=[], outputs=[])
