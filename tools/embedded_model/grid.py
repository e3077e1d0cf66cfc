"""The evaluation's picture: one scene per column, one case per row."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tools.embedded_model.captions import plain_caption
from tools.embedded_model.dataset import Rendered

if TYPE_CHECKING:
    from tools.embedded_model.evaluate import Case

COLUMNS = 10
TILE, LABEL, CAPTION = 128, 96, 66


def save_grid(cases: Sequence[Case], depth: Tensor, held_out: Rendered, path: Path) -> None:
    """Draw the first scenes: input, depth conditioning (latent resolution, white = near), outputs, captions."""
    shown = [case for case in cases if "another" not in case.name]
    columns = min(COLUMNS, len(depth))
    rows = len(shown) + 1
    sheet = Image.new("RGB", (LABEL + columns * TILE, rows * TILE + CAPTION * 2), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    names = [shown[0].name, "depth conditioning", *(case.name for case in shown[1:])]
    for row, name in enumerate(names):
        draw.multiline_text((4, row * TILE + 40), textwrap.fill(name, 15), fill="black", font=font)
    for column in range(columns):
        left = LABEL + column * TILE
        grey = ((depth[column, 0].numpy() + 1) * 127.5).clip(0, 255).astype(np.uint8)
        tiles = [Image.fromarray(case.pictures[column].numpy()) for case in shown]
        tiles.insert(1, Image.fromarray(grey).resize((TILE, TILE), Image.Resampling.NEAREST).convert("RGB"))
        for row, tile in enumerate(tiles):
            sheet.paste(tile, (left, row * TILE))
        for line, case in enumerate((shown[-2], shown[-1])):
            text = textwrap.fill(plain_caption(held_out.geometries[column], case.looks[column]), 22)
            draw.multiline_text((left + 3, rows * TILE + line * CAPTION + 2), text, fill="black", font=font, spacing=1)
    beside = path.with_suffix(".part.png")
    sheet.save(beside)
    beside.replace(path)
