#!/usr/bin/env python3
"""Render the sample picture that `depth2img demo` works on, with its exact depth and a mask.

    python -m tools.sample_scene --work FOLDER

The scene is neither in the training set nor among the evaluated ones. FOLDER keeps the rendered training set, whose
mean depth is what all scenes have in common; it is the folder of the training, or is filled here in some minutes.
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
from tools.embedded_model import scenes
from tools.embedded_model.captions import plain_caption
from tools.embedded_model.dataset import load_or_render
from tools.embedded_model.palette import COLOUR_NAMES
from tools.embedded_model.plan import PLAN

SEED = 9_000_306
SOLID = 1
"""The solid, from the left, that is masked."""
DIFFERENCE = 10
"""Levels of 255 by which a pixel differs with and without the solid, to be masked: the solid and its shadow."""
GROWTH = 3
"""Pixels by which the mask reaches beyond them."""


def look(solids: tuple[str, ...], floor: str, sky: str, light: str) -> scenes.Look:
    """A look by its names."""
    index = COLOUR_NAMES.index
    return scenes.Look(tuple(map(index, solids)), index(floor), index(sky), light)


OWN = look(("red", "blue"), "green", "cyan", "day")
OTHER = look(("yellow", "white"), "blue", "red", "day")
NIGHT = look(("red", "blue"), "green", "cyan", "night")
REPAINTED = look(("red", "yellow"), "green", "cyan", "day")


def relative(buffers: scenes.Buffers) -> npt.NDArray[np.float32]:
    """Exact inverse depth relative to the nearest point, which is what the bundled estimator is trained to see."""
    values = scenes.inverse_depth(buffers)
    return np.asarray(values / values.max(), np.float32)


def write_depth(values: npt.NDArray[np.float32], path: Path) -> dict[str, float]:
    """Write a map as 16-bit PNG; return the values of its black and white."""
    depth = DepthMap(values)
    depth.save(path)
    far, near = depth.range
    return {"far": far, "near": near}


def main() -> None:
    """Write everything to the package's sample folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of the rendered sets")
    work: Path = parser.parse_args().work
    geometry, buffers, _ = scenes.sample_visible(SEED)
    alone = scenes.Geometry(
        geometry.height, geometry.pitch, geometry.tan_half_view, geometry.sun, geometry.solids[:SOLID]
    )
    removed = scenes.Look(OWN.solids[:SOLID], OWN.floor, OWN.sky, OWN.light)
    without = scenes.trace(alone)
    picture = scenes.shade(buffers, OWN)
    SAMPLE.mkdir(exist_ok=True)
    Image.fromarray(picture).save(SAMPLE / "scene.png", optimize=True)
    differs = np.abs(picture.astype(int) - scenes.shade(without, removed)).max(axis=2) > DIFFERENCE
    grown = cv2.dilate(
        differs.astype(np.uint8) * 255, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * GROWTH + 1,) * 2)
    )
    Image.fromarray(np.asarray(grown)).save(SAMPLE / "mask.png", optimize=True)
    training = load_or_render(work / "training.pkl", scenes.TRAINING_SEEDS[: PLAN.geometries], PLAN.looks)
    mean = training.relative_depth().mean(axis=0)
    notes = {
        "seed": SEED,
        "depth": write_depth(relative(buffers), SAMPLE / "depth.png"),
        "removed": write_depth(relative(without), SAMPLE / "removed.png"),
        "mean": write_depth(mean, SAMPLE / "mean.png"),
        "prompts": {
            "own": plain_caption(geometry, OWN),
            "other": plain_caption(geometry, OTHER),
            "light": plain_caption(geometry, NIGHT),
            "repainted": plain_caption(geometry, REPAINTED),
            "removed": plain_caption(alone, removed),
        },
    }
    (SAMPLE / "scene.json").write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
