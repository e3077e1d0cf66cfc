"""The evaluation's picture: one scene a column, one case a row; below it dancers and the wrestlers made of them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tools.embedded_model.held_out import Case

COLUMNS: Final = 8
TILE: Final = 192
LABEL: Final = 96
CAPTION: Final = 78


def _depth_tile(depth: Tensor) -> Image.Image:
    grey = ((depth.float().cpu().numpy() + 1) * 127.5).clip(0, 255).astype(np.uint8)
    return Image.fromarray(grey).resize((TILE, TILE), Image.Resampling.NEAREST).convert("RGB")


def _block(sheet: Image.Image, top: int, cases: Sequence[Case], depth: Tensor, texts: Sequence[Sequence[str]]) -> int:
    """Draw rows from `top` on: first case, depth, other cases, captions; return where they end."""
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    names = [cases[0].name, "depth conditioning", *(case.name for case in cases[1:])]
    for row, name in enumerate(names):
        draw.multiline_text((4, top + row * TILE + 60), textwrap.fill(name, 15), fill="black", font=font)
    for column in range(min(COLUMNS, len(depth))):
        left = LABEL + column * TILE
        tiles = [Image.fromarray(case.pictures[column].cpu().numpy()).resize((TILE, TILE), Image.Resampling.LANCZOS)
                 if column < len(case.pictures) else Image.new("RGB", (TILE, TILE)) for case in cases]  # fmt: skip
        tiles.insert(1, _depth_tile(depth[column, 0]))
        for row, tile in enumerate(tiles):
            sheet.paste(tile, (left, top + row * TILE))
        for line, captions in enumerate(texts):
            place = (left + 3, top + len(tiles) * TILE + line * CAPTION + 2)
            draw.multiline_text(place, textwrap.fill(captions[column], 33), fill="black", font=font, spacing=1)
    return top + len(names) * TILE + len(texts) * CAPTION


def save_sheet(cases: Sequence[Case], depth: Tensor, pair_depth: Tensor, path: Path) -> None:
    """Draw the first scenes: inputs, depth conditioning (latent resolution, white = near), outputs, captions."""
    alone = [case for case in cases[:-2] if "another scene" not in case.name]
    pairs = list(cases[-2:])
    captions = alone[0].scenes.captions
    first = [captions["new"], captions["style"]]
    second = [pairs[0].scenes.captions["new"]]
    height = (len(alone) + 1 + len(pairs) + 1) * TILE + (len(first) + len(second)) * CAPTION
    sheet = Image.new("RGB", (LABEL + min(COLUMNS, len(depth)) * TILE, height), "white")
    end = _block(sheet, 0, alone, depth, first)
    _block(sheet, end, pairs, pair_depth, second)
    beside = path.with_suffix(".part.png")
    sheet.save(beside, optimize=True)
    beside.replace(path)
