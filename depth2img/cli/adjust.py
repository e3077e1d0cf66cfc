"""`depth2img adjust`: a depth map of any kind, as the options read and adjust it, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..depth.colour_maps import COLOUR_MAPS
from ..options import MAP_OPTIONS, OPTIONS, DepthOptions
from . import flags
from .flags import json_flag, output_flag, report


@click.command(
    name="adjust",
    epilog="""\b
Examples:
  depth2img adjust room.exr -o room-depth.png --holds distance
  depth2img adjust realsense.png -o near.tiff --holds distance --near 0.8 --blur 0.5
  depth2img adjust passes/*.exr -o maps --holds distance --range shared""",
)
@click.argument("maps", nargs=-1, required=True, type=flags.PATH, metavar="MAP...")
@output_flag
@click.option("--colour-map", type=click.Choice(list(COLOUR_MAPS)), help="Also write the map in these colours.")
@json_flag
@flags.depth_flags(*(name for name in OPTIONS if name not in MAP_OPTIONS))
def adjust_command(
    maps: tuple[Path, ...], depth: DepthOptions, output: Path | None, colour_map: str | None, as_json: bool
) -> None:
    """Read depth maps of any kind and write them adjusted: 16-bit PNG (white = near), .tiff or .npy."""
    from ..depth.adjustments import finish, joint_span
    from ..depth.hints import hints
    from ..depth.reading import MapReader
    from ..diffusion.results import MAP_ENDING
    from ..io.saving import save_picture

    several = len(maps) > 1
    targets = [flags.output_path(output, source, MAP_ENDING, several=several) for source in maps]
    shown = [path.with_name(f"{path.stem}-{colour_map}.png") for path in targets if colour_map is not None]
    flags.check_targets([*zip(maps, targets, strict=True), *zip(maps, shown, strict=False)])
    read = [MapReader.of(depth)(source) for source in maps]
    flags.tell_hints([(str(source), hints(one, depth)) for source, one in zip(maps, read, strict=True)])
    span = joint_span(read) if depth.range == "shared" else None
    results: list[dict[str, Any]] = []
    for index, (source, raw, path) in enumerate(zip(maps, read, targets, strict=True)):
        found, kept = finish(raw, depth, span)
        found.save(path, kept)
        written = [path]
        if colour_map is not None:
            save_picture(found.to_image(colour_map, kept), shown[index])
            written.append(shown[index])
        far, near = raw.range
        results.append(
            {
                "map": str(source),
                "files": [*map(str, written)],
                "width": found.width,
                "height": found.height,
                "far": far,
                "near": near,
                "origin": raw.origin,
                "notices": [*hints(raw, depth).values()],
            }
        )
    lines = [f"{one['map']} -> {', '.join(one['files'])} ({one['width']} x {one['height']})" for one in results]
    report({"maps": results}, lines, as_json=as_json)
