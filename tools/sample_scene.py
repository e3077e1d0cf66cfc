#!/usr/bin/env python3
"""Render the sample picture that `depth2img demo` works on, with its exact depth and a mask.

    python -m tools.sample_scene [FOLDER]

FOLDER is that of the package if none is given. The scene is neither in the training set nor among the evaluated ones.
The mean depth of the training set, which is what all scenes have in common, takes some minutes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from depth2img import DepthMap
from depth2img.cli.demo import SAMPLE
from tools.embedded_model.palette import COLOUR_NAMES
from tools.shipped_scenes import scenes

SEED = 9_000_306
SOLID = 1
"""The solid, from the left, that is masked."""
DIFFERENCE = 10
"""Levels of 255 by which a pixel differs with and without the solid, to be masked: the solid and its shadow."""
GROWTH = 3
"""Pixels by which the mask extends beyond them."""


def look(solids: tuple[str, ...], floor: str, sky: str, light: str) -> scenes.Look:
    """Return a look by its names."""
    index = COLOUR_NAMES.index
    return scenes.Look(tuple(map(index, solids)), index(floor), index(sky), light)


OWN = look(("red", "blue"), "green", "cyan", "day")
OTHER = look(("yellow", "white"), "blue", "red", "day")
NIGHT = look(("red", "blue"), "green", "cyan", "night")
REPAINTED = look(("red", "yellow"), "green", "cyan", "day")


def write_depth(values: npt.NDArray[np.float32], path: Path) -> dict[str, float]:
    """Write a map as 16-bit PNG; return the values of its black and white."""
    depth = DepthMap(values)
    depth.save(path)
    far, near = depth.range
    return {"far": far, "near": near}


def write(folder: Path, trained: range = scenes.TRAINING_SEEDS) -> None:
    """Write everything to a folder; `trained` are the seeds whose mean depth is taken."""
    geometry, buffers, _ = scenes.sample_visible(SEED)
    alone = scenes.Geometry(
        geometry.height, geometry.pitch, geometry.tan_half_view, geometry.sun, geometry.solids[:SOLID]
    )
    removed = scenes.Look(OWN.solids[:SOLID], OWN.floor, OWN.sky, OWN.light)
    without = scenes.trace(alone)
    picture = scenes.shade(buffers, OWN)
    folder.mkdir(exist_ok=True)
    Image.fromarray(picture).save(folder / "scene.png", optimize=True)
    differs = np.abs(picture.astype(int) - scenes.shade(without, removed)).max(axis=2) > DIFFERENCE
    shape = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * GROWTH + 1,) * 2)
    grown = cv2.dilate(differs.astype(np.uint8) * 255, shape)
    Image.fromarray(np.asarray(grown)).save(folder / "mask.png", optimize=True)
    notes = {
        "seed": SEED,
        "depth": write_depth(scenes.relative_depth(buffers), folder / "depth.png"),
        "removed": write_depth(scenes.relative_depth(without), folder / "removed.png"),
        "mean": write_depth(scenes.mean_depth(trained), folder / "mean.png"),
        "prompts": {
            "own": scenes.caption(geometry, OWN),
            "other": scenes.caption(geometry, OTHER),
            "light": scenes.caption(geometry, NIGHT),
            "repainted": scenes.caption(geometry, REPAINTED),
            "removed": scenes.caption(alone, removed),
        },
    }
    (folder / "scene.json").write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Write everything to a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=SAMPLE)
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
