"""Make the pictures of docs/gallery.md: render its inputs, then run its commands.

    python -m tools.gallery [FOLDER]

FOLDER is docs/pictures/gallery if none is given.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from PIL import Image

from depth2img.cli import root as cli
from depth2img.cli.demo import SAMPLE
from tools import guides
from tools.sample_scene import look
from tools.shipped_scenes import scenes

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "gallery.md"

RENDERED = {
    "figure": (9_000_433, look(("white",), "blue", "white", "day")),
    "pose": (9_000_437, look(("yellow", "green"), "blue", "green", "day")),
    "crowd": (9_000_421, look(("white", "green"), "purple", "red", "day")),
}
"""Name of an input -> seed of its scene, among those held out from the training, and its look."""


def write_inputs(folder: Path) -> None:
    """Render the pictures and the mask that the commands use."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(SAMPLE / "scene.png", folder / "room.png")
    shutil.copyfile(SAMPLE / "mask.png", folder / "room-mask.png")
    for name, (seed, its_look) in RENDERED.items():
        _, buffers, _ = scenes.sample_visible(seed)
        Image.fromarray(scenes.shade(buffers, its_look)).save(folder / f"{name}.png", optimize=True)


def main() -> None:
    """Write the inputs and run every command of the gallery."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs" / "pictures" / "gallery")
    folder: Path = parser.parse_args().folder
    write_inputs(folder)
    os.chdir(folder)
    for words in guides.commands(GUIDE):
        print(" ".join(words))
        cli.app(words[1:], standalone_mode=False)


if __name__ == "__main__":
    main()
