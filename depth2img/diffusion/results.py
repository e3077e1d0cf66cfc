"""A result as files: the picture, and the depth map beside it where that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from PIL import Image

from ..io.pairing import MAPS
from ..io.saving import save_picture

if TYPE_CHECKING:
    from ..depth.depth_map import DepthMap
    from ..io.images import Picture
    from ..options import DepthOptions
    from .engine import Generated

MAP_ENDING: Final = f"{MAPS.ending}.png"
VIEW_ENDING: Final = f"{MAPS.ending}-view.png"
"""Behind the picture's stem: its map with 16 bits, and the map to look at."""


def view(depth: DepthMap, like: Picture, colour_map: str = "grey") -> Image.Image:
    """A picture of a map, of another picture's size."""
    return depth.resized(like.shape[1], like.shape[0]).to_image(colour_map)


def result_paths(path: Path, options: DepthOptions) -> list[Path]:
    """The files that `save_result` writes for these options: the picture, its map to look at, its map with 16 bits."""
    paths = [path]
    if options.append_map and options.enabled:
        paths.append(path.with_name(path.stem + VIEW_ENDING))
    if options.save_map and options.enabled:
        paths.append(path.with_name(path.stem + MAP_ENDING))
    return paths


def save_result(result: Generated, path: Path, options: DepthOptions) -> list[Path]:
    """Write a result; each file appears whole or not at all.

    Args:
        result: what the engine gave.
        path: of the picture; its suffix says of which kind.
        options: `append_map` and `save_map` are read.

    Returns:
        The files, as `result_paths` names them.

    Raises:
        Depth2ImgError: the folder cannot be written.
    """
    paths = result_paths(path, options)
    save_picture(result.picture, path, infotext=result.infotext)
    for extra in paths[1:]:
        if result.depth is None:
            continue
        if extra.name.endswith(VIEW_ENDING):
            save_picture(view(result.depth, result.sampled), extra)
        else:
            result.depth.resized(result.sampled.shape[1], result.sampled.shape[0]).save(extra)
    return paths
