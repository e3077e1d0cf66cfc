"""Which depth map of a folder belongs to which picture: by the stem of the file name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from .errors import DepthMapError
from .files import refusing

KINDS: Final = frozenset((".png", ".tif", ".tiff", ".npy", ".exr", ".jpg", ".jpeg", ".webp", ".bmp"))
"""Suffixes of files that may be depth maps; others in the folder are left alone."""

ENDING: Final = "-depth"
"""What `depth2img estimate` and "Save map beside picture" put behind the picture's stem."""

SHOWN: Final = 10
"""How many names a sentence lists."""


@dataclasses.dataclass(frozen=True)
class Pairing:
    """Pictures and their maps.

    Attributes:
        maps: name of the picture -> file of its map.
        missing: names of the pictures without a map.
        unused: file names of the maps without a picture.
    """

    maps: Mapping[str, Path]
    missing: Sequence[str]
    unused: Sequence[str]

    def check(self) -> None:
        """Raises:
        DepthMapError: a picture has no map; the message names the pictures, and the maps that are left over.
        """
        if not self.missing:
            return
        count = len(self.missing) + len(self.maps)
        left = f" Maps without a picture: {listed(self.unused)}." if self.unused else ""
        raise DepthMapError(
            f"{len(self.missing)} of {count} pictures have no depth map in the folder: {listed(self.missing)}.{left}",
            fix=f"Name each map like its picture, as in photo.png or photo{ENDING}.png for photo.jpg.",
        )

    def notice(self) -> str:
        """A sentence about the maps that are left over; empty if there are none."""
        return f"Depth maps without a picture: {listed(self.unused)}." if self.unused else ""


def pair(pictures: Sequence[str], folder: Path) -> Pairing:
    """Pairs pictures with the maps of a folder.

    A map is named like its picture, or like it with `ENDING`; where both are there (the folder also holds the
    pictures), the one with the ending is the map. The folder is not searched below.

    Args:
        pictures: stems of the pictures' file names.
        folder: where the maps are; only names are read.

    Raises:
        DepthMapError: there is no such folder, it cannot be read, or a picture has several maps.
    """
    fix = "Check the depth map directory."
    if not folder.is_dir():
        raise DepthMapError("There is no such folder of depth maps.", got=str(folder)[:200], fix=fix)
    with refusing("The folder of depth maps cannot be read.", DepthMapError, fix=fix):
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in KINDS and path.is_file())
    by_stem: dict[str, list[Path]] = {}
    for path in files:
        by_stem.setdefault(path.stem, []).append(path)
    maps: dict[str, Path] = {}
    for picture in dict.fromkeys(pictures):
        found = by_stem.get(picture + ENDING) or by_stem.get(picture, [])
        if len(found) > 1:
            names = listed([path.name for path in found])
            raise DepthMapError(f"The picture {picture} has several depth maps: {names}.", fix="Leave only one.")
        if found:
            maps[picture] = found[0]
    known = {stem for picture in maps for stem in (picture, picture + ENDING)}
    return Pairing(
        maps,
        [picture for picture in dict.fromkeys(pictures) if picture not in maps],
        [path.name for path in files if path.stem not in known],
    )


def listed(names: Sequence[str]) -> str:
    """Names as part of a sentence, not more than `SHOWN`."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
