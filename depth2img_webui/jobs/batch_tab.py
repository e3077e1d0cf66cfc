"""Give each picture of img2img's Batch tab the depth map of its name.

The host runs one `p` over all files and tells scripts nothing about them. `modules.img2img.process_batch` is wrapped to
note the names, and the runner's `run`, which the host calls once per picture, to note whose turn it is.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, Final

from modules import img2img, patches, scripts, shared

from depth2img import DepthOptions, OptionError
from depth2img.io.pairing import MAPS, Kind, Pairing, find_partners, stem

from . import maps

KEY: Final = __name__
BATCH: Final = "_depth2img_batch"
"""Attribute of `p` that holds the `Batch` while the Batch tab works."""

TURN: Final = re.compile(r"(\d+) out of (\d+)")
"""The host's text in `state.job` that says which file it has come to."""

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
"""Suffixes of the pictures that the host takes from a folder."""


@dataclasses.dataclass
class Batch:
    """One run of the Batch tab.

    Attributes:
        names: of the pictures, as `pairing.pair` takes them, in the host's order.
        files: the pictures themselves, in this order.
        turn: index of the picture that is being worked on; None if the host does not say.
        pairings: by folder of maps and kind, which has their ending.
    """

    names: list[str]
    files: list[Path]
    turn: int | None = None
    pairings: dict[tuple[str, Kind], Pairing] = dataclasses.field(default_factory=dict)


def apply() -> None:
    """Wrap the host's function; safe to call twice."""
    undo()
    original = img2img.process_batch

    def process_batch(p: Any, pictures: Any, *args: Any, **kwargs: Any) -> Any:
        runner = scripts.scripts_img2img
        before = runner.__dict__.get("run")
        run = runner.run

        def next_picture(p: Any, *args: Any) -> Any:
            _next_picture(p)
            return run(p, *args)

        setattr(p, BATCH, _batch(pictures))
        runner.run = next_picture
        try:
            return original(p, pictures, *args, **kwargs)
        finally:
            p.__dict__.pop(BATCH, None)
            del runner.run
            if before is not None:
                runner.run = before

    patches.patch(KEY, img2img, "process_batch", process_batch)


def undo() -> None:
    """Remove the wrapper, if it is there."""
    if patches.original(KEY, img2img, "process_batch") is not None:
        patches.undo(KEY, img2img, "process_batch")


def _batch(pictures: Any) -> Batch:
    """List the pictures of a folder (str), which the host searches with all folders below it, or of uploads."""
    if not isinstance(pictures, str):
        files = [Path(getattr(file, "name", file)) for file in pictures]
        return Batch([file.stem for file in files], files)
    files = [Path(file) for file in shared.walk_files(pictures, allowed_extensions=SUFFIXES)]
    return Batch([stem(file.relative_to(pictures).as_posix()) for file in files], files)


def _next_picture(p: Any) -> None:
    batch: Batch = getattr(p, BATCH)
    said = TURN.fullmatch(str(shared.state.job))
    batch.turn = int(said[1]) - 1 if said and int(said[2]) == len(batch.names) else None
    p.__dict__.pop(maps.FIRST, None)  # Loopback begins with another picture


def with_map(p: Any, options: DepthOptions) -> DepthOptions:
    """Put the depth map of the picture whose turn it is into the options, where they name a folder of maps.

    The folder is one that the user of the page names, as the Batch tab's own input folder is; there is none where the
    host was started with --hide-ui-dir-config, and none for the API, whose requests carry their maps themselves.

    Raises:
        OptionError: a folder is named where there is no batch, or must not be named; or see `pairing.find_partners` and
            `Pairing.check`, raised at the first picture, before anything is made.
    """
    folder = options.map_directory
    if not (folder and options.enabled and options.needs_own_map):
        return options
    if getattr(p, "is_api", False) or shared.cmd_opts.hide_ui_dir_config:
        raise OptionError(
            "map_directory",
            "Depth option 'map_directory' is for the Batch tab of the page.",
            fix="Send each picture its own 'depth_map'.",
        )
    batch: Batch | None = getattr(p, BATCH, None)
    if batch is None:
        if options.depth_map is not None:
            return options
        raise OptionError(
            "map_directory", "The depth map directory is for the Batch tab.", fix="Upload a depth map for this picture."
        )
    if batch.turn is None:
        raise OptionError(
            "map_directory", "This WebUI does not tell which picture of the batch is being worked on.", fix="Leave it."
        )
    kind = MAPS.ended(options.map_ending)
    if (folder, kind) not in batch.pairings:
        batch.pairings[folder, kind] = find_partners(batch.names, Path(folder), kind, own=batch.files)
    pairing = batch.pairings[folder, kind]
    pairing.check()
    if pairing.unused:
        p.comment(pairing.left_over())
    return dataclasses.replace(options, depth_map=Path(folder, pairing.partners[batch.names[batch.turn]]))
