"""Shared by the commands that install into a WebUI: its folders, and setting up a checkpoint there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import CheckpointError
from .flags import PATH, progress

if TYPE_CHECKING:
    from ..checkpoints.setup import How


def webui_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command with `--webui`, `--data-dir`, `--models-dir` and `--ckpt-dir`."""
    return _flags(command, "--ckpt-dir", "--models-dir", "--data-dir")


def models_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command with `--webui`, `--data-dir` and `--models-dir`."""
    return _flags(command, "--models-dir", "--data-dir")


def _flags(command: Callable[..., None], *names: str) -> Callable[..., None]:
    for name in names:
        command = click.option(name, type=PATH, help="The WebUI's own flag, if it is started with one.")(command)
    where = "The WebUI's folder.  [default: the one that this is an extension of]"
    return click.option("--webui", type=PATH, help=where)(command)


def set_up(file: Path, folders: Sequence[Path], *, how: How, yes: bool, quiet: bool) -> tuple[dict[str, Any], str]:
    """Show what setting up will do, ask before a YAML is replaced, and do it.

    Returns:
        The outcome as plain data, and a closing sentence.

    Raises:
        CheckpointError: it cannot be set up, or there is no terminal to ask.
    """
    from ..checkpoints import carry_out, plan_setup

    plan = plan_setup(file, folders, how=how)
    if not plan.done:
        click.echo("\n".join(plan.lines()), err=True)
    if plan.yaml == "replace" and not yes:
        if not sys.stdin.isatty():
            raise CheckpointError("A YAML would be replaced, and nobody can be asked.", fix="Add --yes.")
        click.confirm("Do it?", abort=True, err=True)
    if not plan.done:
        with progress("Copying", quiet=quiet) as tell:
            carry_out(plan, folders, progress=tell)
    backup = None if plan.backup is None else str(plan.backup)
    values = {"target": str(plan.target), "way": plan.way, "yaml": plan.yaml, "backup": backup}
    said = "Nothing to do: it is set up." if plan.done else "Done."
    return values, f"{said} Refresh the WebUI's list of checkpoints and choose {plan.target.stem}."
