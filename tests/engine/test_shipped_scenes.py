"""The scenes of the shipped model: what is drawn anew is what is shipped, and the model keeps its depth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depth2img import DepthMap
from depth2img.cli.demo import SAMPLE, load_sample
from depth2img.depth.scores import structure
from depth2img.diffusion import Engine, Settings
from tools import gallery, sample_scene
from tools.shipped_scenes import scenes


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_the_sample_is_drawn_as_it_is_shipped(tmp_path: Path) -> None:
    sample_scene.write(tmp_path, scenes.TRAINING_SEEDS[:24])
    for name in ("scene", "mask"):
        assert np.array_equal(read(tmp_path / f"{name}.png"), read(SAMPLE / f"{name}.png"))
    for name in ("depth", "removed"):
        # Of 65535: the last bit of a rounding.
        assert np.abs(read(tmp_path / f"{name}.png") - read(SAMPLE / f"{name}.png")).max() <= 1
    made, shipped = (json.loads((folder / "scene.json").read_text()) for folder in (tmp_path, SAMPLE))
    assert made["prompts"] == shipped["prompts"]
    assert made["seed"] == shipped["seed"]
    mean = scenes.mean_depth(scenes.TRAINING_SEEDS[:24])
    # 24 scenes against 6000: a pixel's spread of 0.25 by the root of 24, at the worst of many pixels four times that.
    assert np.abs(mean - load_sample().mean.values).max() < 0.2
    assert mean.std() > 0.1


def test_the_gallery_s_inputs_are_drawn_as_they_are_shown(tmp_path: Path) -> None:
    gallery.write_inputs(tmp_path)
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["crowd.png", "figure.png", "pose.png", "room-mask.png", "room.png"]
    for name in made:
        assert np.array_equal(read(tmp_path / name), read(gallery.ROOT / "docs" / "pictures" / "gallery" / name))


@pytest.mark.parametrize("light", scenes.LIGHT_NAMES)
def test_the_shipped_model_keeps_their_depth(light: str) -> None:
    """One scene for each light; the mean over many is 0.91 (docs/model-card.md)."""
    geometry, buffers, rng = scenes.sample_visible(scenes.HELD_OUT_SEEDS[20 + scenes.LIGHT_NAMES.index(light)])
    look = scenes.sample_look(rng, len(geometry.solids), light)
    prompt = scenes.caption(geometry, scenes.recolour(rng, look))
    engine, settings = Engine.open(device="cpu"), Settings(prompt, seed=3, steps=12, denoising_strength=1.0)
    [made] = engine.generate([scenes.shade(buffers, look)], settings)
    depth = DepthMap(scenes.relative_depth(buffers))
    assert structure(depth, engine.estimate(made.picture), load_sample().mean) > 0.7
