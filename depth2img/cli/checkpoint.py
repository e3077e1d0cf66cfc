"""`depth2img checkpoint …`: getting, checking, setting up, converting and merging depth checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..io.atomic import write_file
from .fetch import fetch
from .flags import PATH, json_flag, progress, report
from .webui import set_up, webui_flags

if TYPE_CHECKING:
    from ..checkpoints import Ledger, Merged
    from ..checkpoints.setup import How


@click.group(
    epilog="""\b
Examples:
  depth2img checkpoint fetch --webui stable-diffusion-webui
  depth2img checkpoint inspect 512-depth-ema.safetensors
  depth2img checkpoint setup 512-depth-ema.safetensors --webui stable-diffusion-webui
  depth2img checkpoint convert 512-depth-ema.ckpt stable-diffusion-2-depth"""
)
def checkpoint() -> None:
    """Get, check, set up, convert and merge depth checkpoints."""


@checkpoint.command(
    epilog="""\b
Examples:
  depth2img checkpoint inspect 512-depth-ema.safetensors
  depth2img checkpoint inspect 512-depth-ema.ckpt --hash --json

Exit code 0: a depth checkpoint that works; 1: something else, or something is wrong with it; 2: it cannot be read."""
)
@click.argument("file", type=PATH)
@click.option("--hash", "whole", is_flag=True, help="Read the whole file: SHA-256, checksums.")
@json_flag
@click.pass_context
def inspect(context: click.Context, file: Path, whole: bool, as_json: bool) -> None:
    """Say what a checkpoint is and what is wrong with it: version, depth, MiDaS, precision, text encoder, YAML.

    FILE is read from its header alone, in a moment; nothing in it is run.
    """
    from ..checkpoints import inspect as look

    with progress("Reading", quiet=as_json) as tell:
        found = look(file, whole=whole, progress=tell)
    report(found.to_json(), found.lines(), as_json=as_json)
    context.exit(0 if found.usable else 1)


@checkpoint.command(
    epilog="""\b
Examples:
  depth2img checkpoint setup 512-depth-ema.safetensors --webui stable-diffusion-webui
  depth2img checkpoint setup 512-depth-ema.ckpt --ckpt-dir /models/checkpoints --how move --yes"""
)
@click.argument("file", type=PATH)
@webui_flags
@click.option(
    "--how",
    type=click.Choice(["auto", "link", "copy", "move"]),
    default="auto",
    show_default=True,
    help="How it gets there; auto links on the same disk, which takes no room, and copies from another.",
)
@click.option("-y", "--yes", is_flag=True, help="Replace a wrong YAML without asking; a copy of it is kept anyway.")
@json_flag
def setup(
    file: Path,
    webui: Path | None,
    data_dir: Path | None,
    models_dir: Path | None,
    ckpt_dir: Path | None,
    how: How,
    yes: bool,
    as_json: bool,
) -> None:
    """Put a depth checkpoint and its YAML where the WebUI looks; nothing is overwritten.

    A YAML that describes another model, such as v2-inference.yaml under a new name, is corrected. FILE stays where it
    is if that is one of the WebUI's folders.
    """
    from ..checkpoints import webui_folders

    folders = webui_folders(webui, data_dir=data_dir, models_dir=models_dir, ckpt_dir=ckpt_dir)
    values, line = set_up(file, folders, how=how, yes=yes, quiet=as_json)
    report(values, [line], as_json=as_json)


@checkpoint.command(
    epilog="""\b
Examples:
  depth2img convert 512-depth-ema.ckpt stable-diffusion-2-depth
  depth2img convert stable-diffusion-2-depth 512-depth-ema.safetensors
  depth2img convert my-fine-tuning 512-depth-mine.safetensors --half --midas dpt_hybrid-midas-501f0c75.pt
  depth2img convert checkpoint-500 512-depth-mine.safetensors --base 512-depth-ema.safetensors
  depth2img convert tiny depth2img-tiny.safetensors"""
)
@click.argument("source")
@click.argument("target", type=PATH)
@click.option("--half", is_flag=True, help="Store the networks in float16: half the size.")
@click.option("--midas", type=PATH, help="Take MiDaS from this checkpoint, folder or dpt_hybrid-midas-501f0c75.pt.")
@click.option("--base", help="Put a trained UNet, alone in SOURCE, into this whole model.")
@click.option(
    "--ema", is_flag=True, help="Take the averaged weights (EMA); without it the plain ones, if there are any."
)
@click.option("--ledger", type=PATH, help="Also write what became of every tensor, as JSON.")
@json_flag
def convert(
    source: str,
    target: Path,
    half: bool,
    midas: Path | None,
    base: str | None,
    ema: bool,
    ledger: Path | None,
    as_json: bool,
) -> None:
    """Convert between a diffusers folder and a single file with its YAML, MiDaS included.

    SOURCE is 'tiny', a folder, or a .safetensors or .ckpt file; TARGET ends in .safetensors, or is a folder that does
    not exist yet. Every tensor is carried over bit for bit, both ways; with --half the networks' are rounded. What was
    written is read back and compared before it gets its name.
    """
    from ..checkpoints import convert_model, with_parts
    from ..diffusion import find

    with progress("Converting", quiet=as_json) as tell:
        model = find(source, midas, ema=ema) if base is None else with_parts(find(base, midas), Path(source), ema=ema)
        done = convert_model(model, target, tell, half=half)
    values = {"target": str(target), "bytes": done.bytes, "counts": done.counts()}
    report(values, [f"{source} -> {_written(done, target, ledger)}"], as_json=as_json)


def _written(done: Ledger | Merged, target: Path, ledger: Path | None) -> str:
    """Say what was written; the ledger goes to its file."""
    if ledger is not None:
        write_file(ledger, (json.dumps(done.to_json(), indent=1) + "\n").encode(), what="The ledger")
    counted = ", ".join(f"{count} {what}" for what, count in done.counts().items())
    return f"{target} ({done.bytes / 1e6:,.1f} MB): {counted}."


@checkpoint.command(
    epilog="""\b
Examples:
  depth2img checkpoint merge 512-depth-ema.safetensors my-style.safetensors depth-style.safetensors -M 0.4
  depth2img checkpoint merge 512-depth-ema.safetensors my-style.safetensors depth-style.safetensors \\
      --minus 512-base-ema.safetensors -M 1 --precision float16"""
)
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@click.argument("target", type=PATH)
@click.option("-M", "--multiplier", type=float, default=0.5, show_default=True, help="How much of B, 0 to 1.")
@click.option("--minus", type=PATH, help="C: add the difference of B and C to A instead of taking a mean.")
@click.option("--vae", type=click.Choice(["A", "B"]), default="A", show_default=True, help="Whose autoencoder to keep.")
@click.option(
    "--precision", type=click.Choice(["float16", "float32"]), help="Of the result.  [default: the wider of the models']"
)
@click.option("--ledger", type=PATH, help="Also write what became of every tensor, as JSON.")
@json_flag
def merge(
    a: Path,
    b: Path,
    target: Path,
    multiplier: float,
    minus: Path | None,
    vae: str,
    precision: str | None,
    ledger: Path | None,
    as_json: bool,
) -> None:
    """Merge a depth checkpoint with another Stable Diffusion 2 checkpoint into a depth checkpoint.

    Weighted sum: A * (1 - M) + B * M. With --minus C, add difference: A + (B - C) * M. A or B is a depth checkpoint;
    the input for depth and MiDaS are kept from it. The recipe goes into the metadata of TARGET, the YAML beside it.
    """
    from ..checkpoints import merge as run

    with progress("Merging", quiet=as_json) as tell:
        done = run(
            a,
            b,
            target,
            multiplier=multiplier,
            tertiary=minus,
            vae="A" if vae == "A" else "B",
            precision=precision,
            progress=tell,
        )
    values = {key: value for key, value in done.to_json().items() if key != "tensors"}
    lines = [f"{done.recipe['formula']} -> {_written(done, target, ledger)}"]
    report({"target": str(target), **values}, lines, as_json=as_json)


checkpoint.add_command(fetch)
