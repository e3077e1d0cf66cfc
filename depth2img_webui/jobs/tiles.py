"""SD upscale: each tile gets its part of the whole picture's depth, so that no seams show.

The script hands tiles to the sampler as pictures of their own. `images.split_grid`, which cuts them, is wrapped to note
on each tile what it was cut from; nothing else about it changes.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from modules import images, patches
from PIL import Image

KEY: Final = __name__
NOTE: Final = "_depth2img_tile"
SCRIPT: Final = "SD upscale"


@dataclasses.dataclass(frozen=True, eq=False)
class Tile:
    """Where a tile lies.

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
    """Take the wrapper off, if it is there."""
    if patches.original(KEY, images, "split_grid") is not None:
        patches.undo(KEY, images, "split_grid")


def tile_of(p: Any, index: int) -> Tile | None:
    """The tile that a job works on; None unless SD upscale runs it."""
    pictures = getattr(p, "init_images", None)
    if not pictures or driving_script(p) != SCRIPT:
        return None
    tile: Tile | None = getattr(pictures[index % len(pictures)], NOTE, None)
    if tile is None or tile.box[2] > tile.whole.width or tile.box[3] > tile.whole.height or min(tile.box[:2]) < 0:
        return None  # a picture smaller than a tile: the host's tile reaches outside
    return tile


def driving_script(p: Any) -> str | None:
    """Title of the script of the dropdown that runs a job."""
    args: Any = getattr(p, "script_args", None)
    selectable = getattr(getattr(p, "scripts", None), "selectable_scripts", [])
    number = args[0] if args else 0
    if not isinstance(number, int) or not 1 <= number <= len(selectable):
        return None
    return str(selectable[number - 1].title())
