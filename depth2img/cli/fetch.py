"""`depth2img checkpoint fetch`: download a published checkpoint, after showing what it is and where it comes from."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..io.atomic import refusing
from .flags import INTERRUPTED, PATH, json_flag, progress, report
from .webui import set_up, webui_flags


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
@click.option("-o", "--output", type=PATH, help="An existing folder to put the file into, instead of a WebUI.")
@click.option("--list", "show_list", is_flag=True, help="List what can be fetched, and fetch nothing.")
@click.option(
    "--mirrors",
    type=PATH,
    multiple=True,
    envvar="DEPTH2IMG_MIRRORS",
    help="Your own table of mirrors, or a folder with the files; tried first. May be given several times.",
)
@click.option("--replace", is_flag=True, help="Replace another file of that name once the new one is complete.")
@click.option("--unverified", is_flag=True, help="Accept a file whose SHA-256 is not known.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
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
    from ..checkpoints.download.fetch import fetch as get

    entries = tables.table(mirrors)
    if show_list:
        lines = ["\n".join(entry.lines()) + "\n" for entry in entries.values()]
        return report({"files": [entry.to_json() for entry in entries.values()]}, lines, as_json=as_json)
    entry = tables.find(file, entries)
    if output is not None and (webui or data_dir or models_dir or ckpt_dir):
        raise click.UsageError("Say either where the WebUI is, or --output.")
    folders = (output,) if output else webui_folders(webui, data_dir=data_dir, models_dir=models_dir, ckpt_dir=ckpt_dir)
    if not as_json:
        click.echo("\n".join([*entry.lines(), f"{'To':<13} {folders[0]}"]), err=True)
    if not yes and not _confirmed(as_json):
        click.echo("Nothing was fetched.", err=True)
        return
    try:
        with progress("Fetching", quiet=as_json, sizes=True) as tell:
            if output is None:
                with refusing(f"The folder {folders[0]} cannot be created."):
                    folders[0].mkdir(exist_ok=True)
            notice = None if as_json else _print_notice
            got = get(entry, folders[0], replace=replace, unverified=unverified, progress=tell, notice=notice)
    except KeyboardInterrupt:
        click.echo("\nInterrupted; the partial download is kept, and the same command resumes it.", err=True)
        raise SystemExit(INTERRUPTED) from None
    values, lines = got.to_json(), got.lines()
    if output is None:
        values["setup"], line = set_up(got.path, folders, how="auto", yes=yes, quiet=as_json)
        lines.append(line)
    report(values, lines, as_json=as_json)


def _confirmed(as_json: bool) -> bool:
    if as_json or not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask for confirmation; add --yes.")
    return click.confirm("Fetch it?", err=True)


def _print_notice(text: str) -> None:
    click.echo(f"\r\033[K{text}" if sys.stderr.isatty() else text, err=True)
