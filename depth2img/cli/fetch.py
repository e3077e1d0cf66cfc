"""`depth2img checkpoint fetch`: download a published checkpoint, after showing what it is and where it comes from.

What the commands that download have in common is here, too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..io.atomic import refusing
from .flags import INTERRUPTED, PATH, json_flag, progress, report
from .webui import set_up, webui_flags

if TYPE_CHECKING:
    from ..checkpoints.download.fetch import Fetched
    from ..checkpoints.download.mirrors import RemoteFile


def mirrors_flag(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command with `--mirrors`."""
    return click.option(
        "--mirrors",
        type=PATH,
        multiple=True,
        envvar="DEPTH2IMG_MIRRORS",
        help="Your own table of mirrors, or a folder with the files; tried first. May be given several times.",
    )(command)


def download_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command with `--output`, `--mirrors`, `--replace`, `--unverified` and `--yes`."""
    for decorate in (
        click.option("-y", "--yes", is_flag=True, help="Do not ask."),
        click.option("--unverified", is_flag=True, help="Accept a file whose SHA-256 is not known."),
        click.option("--replace", is_flag=True, help="Replace another file of that name once the new one is complete."),
        mirrors_flag,
        click.option("-o", "--output", type=PATH, help="An existing folder to put the file into, instead of a WebUI."),
    ):
        command = decorate(command)
    return command


@click.command(
    epilog="""\b
Examples:
  depth2img checkpoint fetch --list
  depth2img checkpoint fetch --webui stable-diffusion-webui
  depth2img checkpoint fetch 512-depth-ema.safetensors -o downloads --mirrors own-mirrors.yaml --yes

The first of the list is fetched unless FILE names another. After an interruption, the same command resumes the
download."""
)
@click.argument("file", required=False)
@webui_flags
@click.option("--list", "show_list", is_flag=True, help="List what can be fetched, and fetch nothing.")
@download_flags
@json_flag
def fetch(
    file: str | None,
    webui: Path | None,
    data_dir: Path | None,
    models_dir: Path | None,
    ckpt_dir: Path | None,
    output: Path | None,
    show_list: bool,
    mirrors: tuple[Path, ...],
    replace: bool,
    unverified: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Download a published depth checkpoint into the WebUI, with its YAML, or into a folder.

    Downloads are resumed, verified by SHA-256, and appear complete or not at all.
    """
    from ..checkpoints import webui_folders
    from ..checkpoints.download import mirrors as tables

    entries = tables.table(mirrors)
    if show_list:
        lines = ["\n".join(entry.lines()) + "\n" for entry in entries.values()]
        return report({"files": [entry.to_json() for entry in entries.values()]}, lines, as_json=as_json)
    entry = tables.find(file, entries)
    if output is not None and (webui or data_dir or models_dir or ckpt_dir):
        raise click.UsageError("Say either where the WebUI is, or --output.")
    folders = (output,) if output else webui_folders(webui, data_dir=data_dir, models_dir=models_dir, ckpt_dir=ckpt_dir)
    got = download(
        entry, folders[0], make=output is None, replace=replace, unverified=unverified, yes=yes, quiet=as_json
    )
    if got is None:
        return
    values, lines = got.to_json(), got.lines()
    if output is None:
        values["setup"], line = set_up(got.path, folders, how="auto", yes=yes, quiet=as_json)
        lines.append(line)
    report(values, lines, as_json=as_json)


def download(
    entry: RemoteFile, folder: Path, *, make: bool, replace: bool, unverified: bool, yes: bool, quiet: bool
) -> Fetched | None:
    """Show what a file is, ask, and fetch it into a folder; None if the answer was no.

    Args:
        entry: the file.
        folder: where to.
        make: create the folder.
        replace, unverified: see `checkpoints.download.fetch.fetch`.
        yes: do not ask.
        quiet: print nothing.

    Raises:
        CheckpointError: it cannot be fetched.
    """
    from ..checkpoints.download.fetch import fetch as get

    if not quiet:
        click.echo("\n".join([*entry.lines(), f"{'To':<13} {folder}"]), err=True)
    if not yes and not _confirmed(quiet):
        click.echo("Nothing was fetched.", err=True)
        return None
    try:
        with progress("Fetching", quiet=quiet, sizes=True) as tell:
            if make:
                with refusing(f"The folder {folder} cannot be created."):
                    folder.mkdir(exist_ok=True)
            notice = None if quiet else _print_notice
            return get(entry, folder, replace=replace, unverified=unverified, progress=tell, notice=notice)
    except KeyboardInterrupt:
        click.echo("\nInterrupted; the partial download is kept, and the same command resumes it.", err=True)
        raise SystemExit(INTERRUPTED) from None


def _confirmed(as_json: bool) -> bool:
    if as_json or not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask for confirmation; add --yes.")
    return click.confirm("Fetch it?", err=True)


def _print_notice(text: str) -> None:
    click.echo(f"\r\033[K{text}" if sys.stderr.isatty() else text, err=True)
