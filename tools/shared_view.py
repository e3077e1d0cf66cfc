#!/usr/bin/env python3
"""Write the guides' example of a shared hover view: the sample scene at 512 x 512 with its exact depth.

    python -m tools.shared_view [FILE]

FILE is docs/pictures/hover.html if none is given.
"""

from __future__ import annotations

import sys
from pathlib import Path

from depth2img import DepthMap
from depth2img.sharing.page import page
from tools.sample_scene import OWN, SEED
from tools.shipped_scenes import scenes

FILE = Path(__file__).parents[1] / "docs" / "pictures" / "hover.html"
SIDE = 512


def example() -> str:
    """Make the page."""
    geometry, _, _ = scenes.sample_visible(SEED)
    buffers = scenes.trace(geometry, SIDE * scenes.OVERSAMPLING)
    depth = DepthMap(scenes.relative_depth(buffers))
    return page(scenes.shade(buffers, OWN), depth, title=scenes.caption(geometry, OWN), movement=1.5)


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else FILE).write_text(example(), encoding="utf8")
