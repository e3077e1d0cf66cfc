"""`depth2img estimator list | fetch`: depth estimators that are published, and those that are there."""

from __future__ import annotations

from pathlib import Path

import click

from .fetch import download, download_flags, mirrors_flag
from .flags import PATH, json_flag, report
from .webui import models_flags


@click.group(
    epilog="""\b
Examples:
  depth2img estimator list
  depth2img estimator fetch Depth-Anything-V2-Small --webui stable-diffusion-webui
  depth2img estimate photo.jpg --estimator models/Depth-Anything-V2-Small.safetensors"""
)
def estimator() -> None:
    """Get other depth estimators than the checkpoint's own, such as Depth Anything V2."""


@estimator.command(
    "list",
    epilog="""\b
Examples:
  depth2img estimator list --webui stable-diffusion-webui
  depth2img estimator list --folder models --json""",
)
@models_flags
@click.option("--folder", type=PATH, help="A folder of depth estimators, instead of a WebUI's.")
@mirrors_flag
@json_flag
def list_estimators(
    webui: Path | None,
    data_dir: Path | None,
    models_dir: Path | None,
    folder: Path | None,
    mirrors: tuple[Path, ...],
    as_json: bool,
) -> None:
    """List the published estimators with size, source and licence, and those that are installed.

    Without a WebUI or a folder the published ones alone are listed.
    """
    from ..checkpoints.download import mirrors as tables
    from ..estimators import files

    entries = tables.table(mirrors, kind="estimator")
    known = folder or (_folder(webui, data_dir, models_dir) if webui or data_dir or models_dir else None)
    there = files.found_in(known)
    lines = ["\n".join(entry.lines()) + "\n" for entry in entries.values()]
    if known is not None:
        lines.append(f"In {known}: {', '.join(sorted(there)) or 'none'}.")
    values = {"files": [entry.to_json() for entry in entries.values()], "installed": sorted(there)}
    report(values, lines, as_json=as_json)


@estimator.command(
    epilog="""\b
Examples:
  depth2img estimator fetch --webui stable-diffusion-webui
  depth2img estimator fetch Depth-Anything-V2-Large -o models --yes

The first of `depth2img estimator list` is fetched unless NAME names another. After an interruption, the same command
resumes the download."""
)
@click.argument("name", required=False)
@models_flags
@download_flags
@json_flag
def fetch(
    name: str | None,
    webui: Path | None,
    data_dir: Path | None,
    models_dir: Path | None,
    output: Path | None,
    mirrors: tuple[Path, ...],
    replace: bool,
    unverified: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Download a published depth estimator into the WebUI's models/depth2img, or into a folder.

    Mind the licence, which is shown first: some are not for commercial use. Downloads are resumed, verified by SHA-256
    where it is known, and appear complete or not at all.
    """
    from ..checkpoints.download import mirrors as tables

    entry = tables.find(name, tables.table(mirrors, kind="estimator"))
    if output is not None and (webui or data_dir or models_dir):
        raise click.UsageError("Say either where the WebUI is, or --output.")
    folder = output or _folder(webui, data_dir, models_dir)
    got = download(entry, folder, make=output is None, replace=replace, unverified=unverified, yes=yes, quiet=as_json)
    if got is not None:
        said = f"Choose {got.path.stem} as the estimator." if output is None else f"Use it by --estimator {got.path}."
        report({**got.to_json(), "estimator": got.path.stem}, [*got.lines(), said], as_json=as_json)


def _folder(webui: Path | None, data_dir: Path | None, models_dir: Path | None) -> Path:
    """Return the folder in which a WebUI looks for estimators."""
    from ..checkpoints import webui_folders
    from ..estimators.files import FOLDER

    return webui_folders(webui, data_dir=data_dir, models_dir=models_dir)[-1].parent / FOLDER
