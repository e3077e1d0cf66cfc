"""Save a result: the picture, and if requested the depth map next to it."""

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
    from .job import Generated

MAP_ENDING: Final = f"{MAPS.ending}.png"
VIEW_ENDING: Final = f"{MAPS.ending}-view.png"
"""Endings behind the picture's stem, of its 16-bit map and of the map as a picture."""


def view(depth: DepthMap, like: Picture, colour_map: str = "grey") -> Image.Image:
    """Draw a map as a picture of the size of another one."""
    return depth.resized(like.shape[1], like.shape[0]).to_image(colour_map)


def result_paths(path: Path, options: DepthOptions) -> list[Path]:
    """List the files that `save_result` writes for these options: picture, map as a picture, 16-bit map."""
    paths = [path]
    if options.append_map and options.enabled:
        paths.append(path.with_name(path.stem + VIEW_ENDING))
    if options.save_map and options.enabled:
        paths.append(path.with_name(path.stem + MAP_ENDING))
    return paths


def save_result(result: Generated, path: Path, options: DepthOptions) -> list[Path]:
    """Write a result; each file is written completely or not at all.

    Args:
        result: a result of the engine.
        path: path of the picture; its suffix decides the format.
        options: `append_map` and `save_map` decide which maps are written.

    Returns:
        The files, as listed by `result_paths`.

    Raises:
        Depth2ImgError: a file cannot be written.
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
