"""`depth2img checkpoint fetch`: getting a published checkpoint, after showing what and from where."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..flags import PATH, json_flag, progress, report

INTERRUPTED = 130


@click.command(
    epilog="""\b
Examples:
  depth2img checkpoint fetch --list
  depth2img checkpoint fetch -o stable-diffusion-webui/models/Stable-diffusion
  depth2img checkpoint fetch 512-depth-ema.safetensors --mirrors own-mirrors.yaml --yes

The first of the list is fetched unless FILE names another. Interrupted at any moment, the same command goes on from
what is there."""
)
@click.argument("file", required=False)
@click.option(
    "-o", "--output", type=PATH, default=Path("."), show_default=True, help="Folder to put it into; it must exist."
)
@click.option("--list", "show_list", is_flag=True, help="Show what can be fetched, and fetch nothing.")
@click.option(
    "--mirrors",
    type=PATH,
    multiple=True,
    envvar="DEPTH2IMG_MIRRORS",
    help="A table of mirrors of your own, or a folder with the files; tried first. May be given several times.",
)
@click.option("--replace", is_flag=True, help="Replace another file of that name, once the new one is whole.")
@click.option("--unverified", is_flag=True, help="Take a file whose SHA-256 is not known.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_flag
def fetch(
    file: str | None,
    output: Path,
    show_list: bool,
    mirrors: tuple[Path, ...],
    replace: bool,
    unverified: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Get a published depth checkpoint: resumed where it was interrupted, checked, whole or not at all."""
    from ..checkpoints import mirrors as tables
    from ..checkpoints.fetch import fetch as get

    entries = tables.table(mirrors)
    if show_list:
        lines = [line for entry in entries.values() for line in entry.lines()]
        report({"files": [entry.to_json() for entry in entries.values()]}, lines, as_json=as_json)
        return
    entry = tables.find(file, entries)
    if not as_json:
        click.echo("\n".join([*entry.lines(), f"  to       {output}"]), err=True)
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise click.UsageError("Nobody is there to be asked; say --yes.")
        if not click.confirm("Fetch it?", err=True):
            click.echo("Nothing was fetched.", err=True)
            return

    def tell_line(text: str) -> None:
        click.echo(f"\r\033[K{text}" if sys.stderr.isatty() else text, err=True)

    try:
        with progress("Fetching", quiet=as_json, sizes=True) as tell:
            got = get(
                entry,
                output,
                replace=replace,
                unverified=unverified,
                progress=tell,
                notice=None if as_json else tell_line,
            )
    except KeyboardInterrupt:
        click.echo("\nInterrupted; what is there is kept, and the same command goes on from it.", err=True)
        raise SystemExit(INTERRUPTED) from None
    report(got.to_json(), got.lines(), as_json=as_json)
