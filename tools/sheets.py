"""Screenshots of one thing in both themes, as one small picture for the guides."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

THEMES = ("light", "dark")
COLOURS = 256
GAP = 12


def save(picture: Image.Image, file: Path) -> None:
    """As a PNG with a palette: a third of the size, and nothing that a guide needs is lost."""
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file.name}: {picture.width} x {picture.height}, {file.stat().st_size // 1024} kB")


def beside(pictures: list[Image.Image], file: Path) -> None:
    """Next to each other, aligned at the top."""
    width = sum(one.width for one in pictures) + GAP * (len(pictures) - 1)
    sheet = Image.new("RGB", (width, max(one.height for one in pictures)), "white")
    left = 0
    for one in pictures:
        sheet.paste(one, (left, 0))
        left += one.width + GAP
    save(sheet, file)


class Gallery:
    """Collects pictures by state, one per theme, and writes a sheet for each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shots: dict[str, list[Image.Image]] = {}

    def take(self, state: str, part: Any) -> None:
        """One more picture of a state: a Playwright page or locator as it looks now."""
        self._shots.setdefault(state, []).append(Image.open(io.BytesIO(part.screenshot())).convert("RGB"))

    def write(self) -> None:
        """All sheets."""
        for state, pictures in self._shots.items():
            beside(pictures, self._folder / f"{state}.png")
