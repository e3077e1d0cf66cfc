"""`depth2img batch`: folders of pictures, here or on a cluster."""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ..io.pairing import PICTURE_KINDS, UNMATCHED
from ..options import DepthOptions
from .flags import (
    PATH,
    depth_flags,
    device_flag,
    dtype_flag,
    json_flag,
    library_flags,
    model_flag,
    progress,
    report,
    setting_flags,
)

if TYPE_CHECKING:
    from ..diffusion.library import Library

SOME_FAILED: Final = 1
EVERY: Final = 30.0
"""Seconds between lines of progress without a terminal."""
WINDOW: Final = 60.0
"""Seconds over which the rate is averaged."""


@click.command(
    epilog="""\b
Examples:
  depth2img batch renders results -p "an oil painting" -s 0.9
  depth2img batch renders results -p "a marble hall" --depth-folder passes
  depth2img batch jobs.csv results --batch-size 8 --score
  depth2img batch renders results -p "an oil painting" --ray

\b
Exit codes: 0 all items are finished, 1 some failed, 2 nothing was run, 130 interrupted.
The same command again continues where the last one stopped. More in docs/batch.md."""
)
@click.argument("source", metavar="IN", type=PATH)
@click.argument("output", metavar="OUT", type=PATH)
@click.option("--recursive", is_flag=True, help="Include pictures in subfolders.")
@click.option("--depth-folder", type=PATH, help="Depth maps named after the pictures, optionally followed by -depth.")
@click.option(
    "--depth-ending",
    default="",
    metavar="ENDING",
    help="What follows the picture's name in a map's name, such as _depth; or a pattern, with * for the picture's name "
    "(depth_*) or # for its number (Depth#).  [default: -depth]",
)
@click.option("--mask-folder", type=PATH, help="Masks named after the pictures, optionally followed by -mask.")
@click.option("--mask-ending", default="", metavar="ENDING", help="The same for masks.  [default: -mask]")
@click.option(
    "--unmatched",
    type=click.Choice(UNMATCHED),
    default=UNMATCHED[0],
    show_default=True,
    help="What to do if a picture has no map or mask there: run nothing, make it without one, or skip it.",
)
@click.option(
    "--allow", type=PATH, multiple=True, help="Another folder, besides its own, whose files the manifest may name."
)
@click.option("--same-seed", is_flag=True, help="Give every item the same seed, instead of one derived from its name.")
@click.option(
    "--format", "suffix", type=click.Choice([kind[1:] for kind in PICTURE_KINDS]), default="png", show_default=True
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 256),
    default=4,
    show_default=True,
    help="Items of one size that are made together.",
)
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads per model.  [default: all]")
@click.option("--dry-run", is_flag=True, help="Only report what would be done.")
@click.option(
    "--ray",
    is_flag=False,
    flag_value="local",
    metavar="[ADDRESS]",
    help="Run on Ray: on this machine, or on the cluster at ADDRESS ('auto' or host:port).",
)
@click.option("--workers", type=click.IntRange(1), help="Number of models on Ray.  [default: as many as fit]")
@click.option("--gpus-per-worker", type=click.FloatRange(0), help="On Ray; 0.5 puts two on one GPU.  [default: 1 or 0]")
@model_flag
@device_flag
@dtype_flag
@json_flag
@library_flags
@setting_flags()
@depth_flags()
def batch(
    source: Path,
    output: Path,
    settings: Any,
    depth: DepthOptions,
    recursive: bool,
    depth_folder: Path | None,
    depth_ending: str,
    mask_folder: Path | None,
    mask_ending: str,
    unmatched: str,
    allow: tuple[Path, ...],
    same_seed: bool,
    suffix: str,
    batch_size: int,
    threads: int | None,
    dry_run: bool,
    ray: str | None,
    workers: int | None,
    gpus_per_worker: float | None,
    model: str,
    device: str,
    dtype: str,
    library: Library,
    as_json: bool,
) -> None:
    """Generate from all pictures of a folder, or all rows of a manifest (.csv, .jsonl).

    A finished item is not made again unless its picture, its options or the model have changed. An item that fails does
    not stop the others. OUT/results.jsonl lists all of them.
    """
    import torch

    from .. import batch as batches
    from ..diffusion import find

    sources = batches.Sources(
        source, recursive, depth_folder, mask_folder, allow, unmatched, same_seed, depth_ending, mask_ending
    )
    found = batches.find_items(sources, settings, depth)
    find(model)  # before anything is read
    out = output.absolute()
    with progress("Reading", quiet=as_json) as tell:
        plan = batches.make_plan(
            found.items,
            out,
            suffix=f".{suffix}",
            batch_size=batch_size,
            model=model,
            dtype=dtype,
            library=library,
            tell=tell,
        )
    notes = [*found.notes, *(f"{one['name']}: {one['error']}" for one in [*plan.failed.values()][:20])]
    left = f"{plan.pending} of {len(plan.items)} items to make in {len(plan.groups)} batches"
    for note in (*notes, f"{left}, {len(plan.done)} already finished, {len(plan.failed)} unreadable."):
        click.echo(note, err=True)
    if dry_run:
        values = {"pending": plan.pending, "finished": len(plan.done), "unreadable": len(plan.failed)}
        report({**values, "notes": notes}, [work.item.name for group in plan.groups for work in group], as_json=as_json)
        return
    order = batches.Order(
        out,
        f".{suffix}",
        _here(model),
        device,
        dtype,
        batch_size,
        threads or torch.get_num_threads(),
        library.absolute(),
    )
    executor: Any = batches.here
    if ray is not None:
        executor = functools.partial(batches.on_ray, batches.Cluster(ray, workers, gpus_per_worker))
    with _watched(plan.pending, quiet=as_json) as watch, _terminated_as_interrupted():
        summary = batches.run(plan, order, executor, tell=watch)
    for notice in summary.notices:
        click.echo(notice, err=True)
    report(summary.to_json(), summary.lines(), as_json=as_json)
    if summary.failed:
        click.get_current_context().exit(SOME_FAILED)


def _here(model: str) -> str:
    """Make the path of a model on this machine absolute, for other processes."""
    return str(Path(model).absolute()) if Path(model).exists() else model


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Handle SIGTERM, with which schedulers end a job, like Ctrl+C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _watched(total: int, *, quiet: bool) -> Iterator[Any]:
    """Show a progress bar with rate and time left, or without a terminal a line every `EVERY` seconds."""
    from ..batch.runner import duration

    marks: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
    said = time.monotonic()

    def state(done: int, bad: int) -> str:
        now = time.monotonic()
        marks.append((now, done))
        while len(marks) > 2 and now - marks[1][0] > WINDOW:
            marks.popleft()
        rate = (done - marks[0][1]) / max(now - marks[0][0], 1e-6)
        left = f", {duration((total - done) / rate)} left" if rate and done < total else ""
        return f"{rate:.3g} a second{left}" + (f", {bad} failed" if bad else "")

    if quiet or not sys.stderr.isatty():

        def tell(done: int, _total: int, bad: int) -> None:
            nonlocal said
            line = f"{done} of {total}, {state(done, bad)}"
            if not quiet and time.monotonic() - said >= EVERY:
                said = time.monotonic()
                click.echo(line, err=True)

        yield tell
        return
    shown = click.progressbar(
        length=total,
        label="Generating",
        show_pos=True,
        show_eta=False,
        item_show_func=lambda text: text,
        file=sys.stderr,
    )
    with shown as bar:
        yield lambda done, _total, bad: bar.update(done - bar.pos, state(done, bad))
