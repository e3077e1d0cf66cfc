"""SD upscale: each tile gets its part of the whole picture's depth, so that no seams show.

The script hands tiles to the sampler as pictures of their own. `images.split_grid`, which cuts them, is wrapped to note
on each tile the picture and the box that it was cut from; nothing else about it changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

from modules import images, patches
from PIL import Image

KEY: Final = __name__
NOTE: Final = "_depth2img_tile"
SCRIPT: Final = "SD upscale"
"""Title of the host's script."""


@dataclasses.dataclass(frozen=True, eq=False)
class Tile:
    """The position of a tile in its picture.

    Attributes:
        whole: the picture that it was cut from.
        box: left, top, right, bottom in pixels of it.
    """

    whole: Image.Image
    box: tuple[int, int, int, int]


def apply() -> None:
    """Wrap the host's function; safe to call twice."""
    undo()
    original = images.split_grid

    def split_grid(image: Any, *args: Any, **kwargs: Any) -> Any:
        grid = original(image, *args, **kwargs)
        for top, height, row in grid.tiles:
            for left, width, tile in row:
                setattr(tile, NOTE, Tile(image, (left, top, left + width, top + height)))
        return grid

    patches.patch(KEY, images, "split_grid", split_grid)


def undo() -> None:
    """Remove the wrapper, if it is there."""
    if patches.original(KEY, images, "split_grid") is not None:
        patches.undo(KEY, images, "split_grid")


def tiles_of(pictures: Sequence[Image.Image]) -> tuple[Tile | None, ...]:
    """Find where each of SD upscale's pictures lies; None for a picture that is not a tile, or reaches outside."""
    return tuple(_inside(getattr(picture, NOTE, None)) for picture in pictures)


def _inside(tile: Tile | None) -> Tile | None:
    """Return the tile unless it reaches outside, as the host's does where the picture is smaller than a tile."""
    if tile is None or tile.box[2] > tile.whole.width or tile.box[3] > tile.whole.height or min(tile.box[:2]) < 0:
        return None
    return tile


def driving_script(p: Any) -> str | None:
    """Return the title of the script of the dropdown that runs a job: empty if it is unknown, None without a script."""
    args: Any = getattr(p, "script_args", None)
    number = args[0] if args else None
    if number in (None, 0):
        return None
    selectable = getattr(getattr(p, "scripts", None), "selectable_scripts", [])
    known = isinstance(number, int) and 1 <= number <= len(selectable)
    return str(selectable[number - 1].title()) if known else ""
