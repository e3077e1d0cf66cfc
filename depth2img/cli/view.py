"""`depth2img view`: a picture that moves with the pointer, as one HTML file, a film or a stereo pair."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ..errors import OptionError
from ..io.pairing import PICTURE_KINDS
from ..options import ADJUSTMENTS, OPTIONS, DepthOptions
from ..sharing import FILMS, MOVEMENTS, STEREO
from . import flags
from .flags import device_flag, json_flag, model_flag, report

if TYPE_CHECKING:
    from ..depth.depth_map import DepthMap
    from ..io.images import Picture

SUFFIXES: Final = (".html", *FILMS, *PICTURE_KINDS)
"""Suffixes of what can be written."""

READ: Final = ("depth_map", "holds", "map_channel", "estimator", *ADJUSTMENTS)
"""The depth options that say what the depth is."""


@click.command(
    name="view",
    epilog="""\b
Examples:
  depth2img view photo.jpg --depth photo-depth.png -o view.html
  depth2img view photo.jpg -m 512-depth-ema.safetensors -o loop.mp4
  depth2img view photo.jpg --depth photo-depth.png -o loop.gif --movement 1.5
  depth2img view photo.jpg --depth photo-depth.png -o pair.png --stereo anaglyph""",
)
@click.argument("picture", type=flags.PATH)
@click.option(
    "-o",
    "--output",
    type=flags.PATH,
    help=f"File to write: {', '.join(SUFFIXES)}; or an existing folder.  [default: PICTURE-view.html]",
)
@click.option("--movement", type=click.FloatRange(*MOVEMENTS), default=1.0, show_default=True, help="How far.")
@click.option(
    "--focus", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="What stays still, 1 = near."
)
@click.option(
    "--stereo",
    "pair",
    type=click.Choice(list(STEREO)),
    default="side-by-side",
    show_default=True,
    help=f"Of a picture: {'; '.join(f'{name} is {what}' for name, what in STEREO.items())}.",
)
@click.option("--title", default="", help="Title of the page.  [default: the picture's name]")
@model_flag
@device_flag
@json_flag
@flags.depth_flags(*(name for name in OPTIONS if name not in READ))
def view_command(
    picture: Path,
    depth: DepthOptions,
    output: Path | None,
    movement: float,
    focus: float,
    pair: str,
    title: str,
    model: str,
    device: str,
    as_json: bool,
) -> None:
    """Share the hover view of PICTURE: one HTML file that needs nothing else, a film, or a stereo pair.

    Depth comes from --depth, or is estimated.
    """
    from ..io.atomic import write_file
    from ..io.images import read_picture
    from ..io.saving import save_picture
    from ..sharing import film, page, relief
    from ..sharing.stereo import stereo

    target = flags.output_path(output, picture, "-view.html", several=False)
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        raise OptionError(
            "output", f"A view is written as {', '.join(SUFFIXES)}.", got=f"'{target.name}'", fix="Change the suffix."
        )
    flags.check_targets([(picture, target)])
    seen = read_picture(picture)
    near = _depth(seen, flags.with_map_read(depth), model, device)
    if suffix == ".html":
        content = page.page(seen, near, title=title or picture.stem, movement=movement, focus=focus).encode()
        write_file(target, content, what="The page")
    elif suffix in FILMS:
        write_file(target, film.film(seen, near, suffix, movement=movement, focus=focus), what="The film")
    else:
        small = film.shrunk(seen, page.LONGEST_PICTURE)
        save_picture(stereo(relief.Relief.of(small, near, movement=movement, focus=focus), pair), target)
    size = target.stat().st_size
    line = f"{picture} -> {target} ({size / 1000:,.0f} kB)"
    report({"picture": str(picture), "file": str(target), "bytes": size}, [line], as_json=as_json)


def _depth(picture: Picture, options: DepthOptions, model: str, device: str) -> DepthMap:
    """Return the adjusted map of the whole picture: the one that was given, else an estimate."""
    from ..depth.adjustments import adjust
    from ..depth.depth_map import DepthMap
    from ..depth.placement import Placement, ResizeMode
    from ..io.images import to_float

    size = picture.shape[1], picture.shape[0]
    if isinstance(options.depth_map, DepthMap):
        raw = options.depth_map
        place = Placement(size, size, None, ResizeMode.CROP_AND_RESIZE)
        remark = place.remark(raw, "depth map")
        if remark:
            click.echo(remark, err=True)
        raw = place.fitted(raw)
    else:
        from ..diffusion import load_estimator

        raw = load_estimator(model, device=device, estimator=options.estimator).estimate(to_float(picture))
    return adjust(raw, options)
