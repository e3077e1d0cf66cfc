"""Labelled grids of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import PictureError
from ..io.images import Picture

MARGIN: Final = 8
BACKGROUND: Final = "white"
INK: Final = "black"


@dataclass(frozen=True)
class Row:
    """One row of a grid: a label on the left and the pictures, uint8 (H, W, 3); None leaves a cell empty."""

    label: str
    pictures: Sequence[Picture | None]


def grid(rows: Sequence[Row], columns: Sequence[str], *, title: str = "", tile: int = 128) -> Image.Image:
    """Draw a grid with a label above each column and to the left of each row.

    Args:
        rows: rows of equal length.
        columns: labels, as many as a row has pictures.
        title: one line above the grid, shortened if it does not fit.
        tile: width of a picture in the grid; heights follow the first picture's proportions.

    Raises:
        PictureError: there are no pictures, or the rows differ in length.
    """
    first = next((picture for row in rows for picture in row.pictures if picture is not None), None)
    if first is None or any(len(row.pictures) != len(columns) for row in rows):
        raise PictureError("A grid needs pictures, and one per column in every row.")
    height = max(1, round(tile * first.shape[0] / first.shape[1]))
    font = ImageFont.load_default(size=max(11, tile // 10))
    small = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    line = int(small.textbbox((0, 0), "Ag", font=font)[3]) + MARGIN
    left = max(int(small.textlength(part, font=font)) for row in rows for part in row.label.split("\n")) + 2 * MARGIN
    top = line * (2 if title else 1) + MARGIN
    width = left + len(columns) * (tile + MARGIN)
    sheet = Image.new("RGB", (width, top + len(rows) * (height + MARGIN)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((MARGIN, MARGIN // 2), _cut(draw, title, font, width - 2 * MARGIN), fill=INK, font=font)
    for number, label in enumerate(columns):
        middle = left + number * (tile + MARGIN) + tile // 2
        draw.text((middle, top - MARGIN), label, fill=INK, font=font, anchor="ms")
    for index, row in enumerate(rows):
        above = top + index * (height + MARGIN)
        draw.multiline_text((MARGIN, above + height // 2), row.label, fill=INK, font=font, anchor="lm")
        for number, picture in enumerate(row.pictures):
            if picture is not None:
                image = Image.fromarray(np.ascontiguousarray(picture)).resize((tile, height), Image.Resampling.LANCZOS)
                sheet.paste(image, (left + number * (tile + MARGIN), above))
    return sheet


def _cut(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "...", font=font) > width:
        text = text[:-1]
    return text + "..."
