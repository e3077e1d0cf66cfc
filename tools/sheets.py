"""Combine screenshots in both themes into one small picture for the guides."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

THEMES = ("light", "dark")
COLOURS = 256
GAP = 12


def save(picture: Image.Image, file: Path) -> None:
    """Write a PNG with a palette: a third of the size, and good enough for a guide."""
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file.name}: {picture.width} x {picture.height}, {file.stat().st_size // 1024} kB")


def beside(pictures: list[Image.Image], file: Path) -> None:
    """Put pictures next to each other, aligned at the top."""
    width = sum(one.width for one in pictures) + GAP * (len(pictures) - 1)
    sheet = Image.new("RGB", (width, max(one.height for one in pictures)), "white")
    left = 0
    for one in pictures:
        sheet.paste(one, (left, 0))
        left += one.width + GAP
    save(sheet, file)


class Gallery:
    """Collector of pictures by state, one per theme, that writes a sheet for each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shots: dict[str, list[Image.Image]] = {}

    def take(self, state: str, part: Any) -> None:
        """Add a picture of a state: a screenshot of a Playwright page or locator."""
        self._shots.setdefault(state, []).append(Image.open(io.BytesIO(part.screenshot())).convert("RGB"))

    def write(self) -> None:
        """Write all sheets."""
        for state, pictures in self._shots.items():
            beside(pictures, self._folder / f"{state}.png")
