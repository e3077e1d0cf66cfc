#!/usr/bin/env python3
"""Render the sample picture that `depth2img demo` works on, with its exact depth and a mask.

    python -m tools.sample_scene --judges FILE

Two dancers who are neither in the training set nor among the evaluated scenes. FILE is the `judges.safetensors` of the
training, which holds the mean depth of its scenes: what all scenes have in common.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from depth2img import DepthMap
from depth2img.cli.demo import SAMPLE
from tools.embedded_model.captions import plain_caption
from tools.embedded_model.dataset import render_looks
from tools.embedded_model.evaluate import Judges
from tools.embedded_model.looks import Look, sample_look
from tools.embedded_model.palette import COLOUR_NAMES
from tools.embedded_model.plan import Plan
from tools.embedded_model.scenes import Scene, sample_scene

SEED = 9_000_612
FIRST = 1
"""Figures, from the left, that are not masked."""
DIFFERENCE = 10
"""Levels of 255 by which a pixel differs with and without the masked figure: the figure and its shadow."""
GROWTH = 3
"""Pixels by which the mask extends beyond them."""


@dataclass(frozen=True)
class Drawn:
    """A picture uint8 (S, S, 3) and its inverse depth (S, S), 0..1 relative to the nearest point, which is what the
    bundled estimator is trained to see."""

    picture: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]


def scene(seed: int, together: str = "") -> tuple[Scene, Look]:
    """The scene of a seed, by day, and a plain look of it."""
    rng = np.random.default_rng(seed)
    geometry = sample_scene(rng, together)
    return geometry, sample_look(rng, geometry, light="day", style="plain")


def draw(geometry: Scene, look: Look) -> Drawn:
    """Render a scene."""
    made = render_looks([geometry], [look], Plan.side, torch.device("cpu"), seed=0)
    values = made["inverse_depth"][0].float().numpy()
    return Drawn(made["pictures"][0].numpy(), np.asarray(values / values.max(), np.float32))


def recoloured(look: Look, figures: tuple[str, ...], floor: str, back: str) -> Look:
    """The look with other colours, by their names."""
    index = COLOUR_NAMES.index
    items = tuple(
        replace(its, colours=(index(name), index(name))) for its, name in zip(look.items, figures, strict=True)
    )
    return replace(look, items=items, floor=index(floor), back=index(back), checkered=False)


def write_depth(values: npt.NDArray[np.float32], path: Path) -> dict[str, float]:
    """Write a map as 16-bit PNG; return the values of its black and white."""
    depth = DepthMap(values)
    depth.save(path)
    far, near = depth.range
    return {"far": far, "near": near}


def main() -> None:
    """Write everything to the package's sample folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judges", type=Path, required=True, help="judges.safetensors of the training")
    judges = Judges.load(parser.parse_args().judges, torch.device("cpu"))
    geometry, drawn_look = scene(SEED, "dancing")
    dancers = replace(
        drawn_look, items=tuple(replace(its, outfit="dancer", material="matte") for its in drawn_look.items)
    )
    own = recoloured(dancers, ("red", "blue"), "green", "cyan")
    other = recoloured(dancers, ("yellow", "white"), "blue", "red")
    repainted = recoloured(dancers, ("red", "yellow"), "green", "cyan")
    alone, removed = geometry.first(FIRST), replace(own, items=own.items[:FIRST])
    whole, without = draw(geometry, own), draw(alone, removed)
    SAMPLE.mkdir(exist_ok=True)
    Image.fromarray(whole.picture).save(SAMPLE / "scene.png", optimize=True)
    differs = np.abs(whole.picture.astype(int) - without.picture).max(axis=2) > DIFFERENCE
    shape = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * GROWTH + 1,) * 2)
    grown = cv2.dilate(differs.astype(np.uint8) * 255, shape)
    Image.fromarray(np.asarray(grown)).save(SAMPLE / "mask.png", optimize=True)
    notes = {
        "seed": SEED,
        "depth": write_depth(whole.depth, SAMPLE / "depth.png"),
        "removed": write_depth(without.depth, SAMPLE / "removed.png"),
        "mean": write_depth(judges.mean_depth.numpy(), SAMPLE / "mean.png"),
        "prompts": {
            "own": plain_caption(geometry, own),
            "other": plain_caption(geometry, other),
            "light": plain_caption(geometry, replace(own, light="night")),
            "repainted": plain_caption(geometry, repainted),
            "removed": plain_caption(alone, removed),
        },
    }
    (SAMPLE / "scene.json").write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
