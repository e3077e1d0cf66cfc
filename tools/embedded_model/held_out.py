"""The scenes that quality is measured on: none of them is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from tools.embedded_model.captions import plain_caption
from tools.embedded_model.dataset import render_looks
from tools.embedded_model.looks import STYLES, Look, recolour, sample_look
from tools.embedded_model.palette import COLOUR_NAMES, LIGHT_NAMES
from tools.embedded_model.scenes import HELD_OUT_SEEDS, Scene, sample_scene

ROWS_OF_PAIRS: Final = 64
OTHER_LIGHT: Final = 64
SPARE: Final = 1.4
"""Scenes sampled for each that is wanted: those that hide an item are left out."""


@dataclass(frozen=True)
class HeldOut:
    """N scenes with a plain look each, rendered; what `dataset.render_looks` gives is in `seen`.

    `captions` and `looks` have the same keys: "own", "new" (every colour another one), "light", "style".
    """

    scenes: list[Scene]
    looks: dict[str, list[Look]]
    captions: dict[str, list[str]]
    seen: dict[str, Tensor]

    def relative_depth(self) -> Tensor:
        """(N, S, S), 0..1."""
        depth = self.seen["inverse_depth"].float()
        return depth / depth.amax(dim=(1, 2), keepdim=True)


@dataclass(frozen=True)
class Case:
    """One row of the table.

    It has pictures uint8 (N, S, S, 3) of the first N scenes, the looks that they should show, and the scores that make
    no sense for it.
    """

    name: str
    scenes: HeldOut
    pictures: Tensor
    looks: Sequence[Look]
    without: frozenset[str] = field(default=frozenset())


def _kept(
    scenes: list[Scene], looks: list[Look], count: int, side: int, device: torch.device
) -> tuple[list[Scene], list[Look], dict[str, Tensor]]:
    seen = render_looks(scenes, looks, side, device, seed=1)
    good = seen.pop("showing").nonzero()[:count, 0]
    chosen = good.tolist()
    return [scenes[n] for n in chosen], [looks[n] for n in chosen], {key: value[good] for key, value in seen.items()}


def held_out(count: int, side: int, device: torch.device) -> HeldOut:
    """Render the first `count` scenes of the held-out seeds that show all their items."""
    scenes, own = [], []
    for seed in HELD_OUT_SEEDS[: round(count * SPARE) + 4]:
        rng = np.random.default_rng(seed)
        scenes.append(sample_scene(rng))
        own.append(sample_look(rng, scenes[-1], style="plain"))
    scenes, own, seen = _kept(scenes, own, count, side, device)
    rng = np.random.default_rng(7)
    new = [recolour(rng, scene, look) for scene, look in zip(scenes, own, strict=True)]
    lights = [
        replace(look, light=LIGHT_NAMES[(LIGHT_NAMES.index(look.light) + 1 + n % 3) % 4]) for n, look in enumerate(new)
    ]
    styles = [replace(look, style=STYLES[1 + n % (len(STYLES) - 1)], light="day") for n, look in enumerate(new)]
    looks = {"own": own, "new": new, "light": lights, "style": styles}
    captions = {
        name: [plain_caption(s, look) for s, look in zip(scenes, its, strict=True)] for name, its in looks.items()
    }
    return HeldOut(scenes, looks, captions, seen)


def wrestlers_caption(scene: Scene, look: Look) -> str:
    """Two wrestlers, whatever the scene's figures do."""
    one, two = (COLOUR_NAMES[its.colours[0]] for its in look.items)
    place = plain_caption(replace(scene, items=()), replace(look, items=())).strip()
    return f"two wrestlers, one in {one} and one in {two}, {place}"


def dancers(count: int, side: int, device: torch.device) -> HeldOut:
    """Pairs of dancers without skirts; the new captions make wrestlers of them."""
    scenes, own = [], []
    for seed in range(HELD_OUT_SEEDS.stop, HELD_OUT_SEEDS.stop + round(count * SPARE * 2.5) + 8):
        rng = np.random.default_rng(seed)
        scene = sample_scene(rng, "dancing")
        if any(item.skirt for item in scene.items):
            continue
        look = sample_look(rng, scene, style="plain")
        items = tuple(replace(its, outfit="dancer", material="matte") for its in look.items)
        scenes.append(scene)
        own.append(replace(look, items=items))
    scenes, own, seen = _kept(scenes, own, count, side, device)
    rng = np.random.default_rng(8)
    new = []
    for scene, look in zip(scenes, own, strict=True):
        other = recolour(rng, scene, look)
        new.append(replace(other, items=tuple(replace(its, outfit="wrestler") for its in other.items)))
    captions = {"own": [plain_caption(s, look) for s, look in zip(scenes, own, strict=True)],
                "new": [wrestlers_caption(s, look) for s, look in zip(scenes, new, strict=True)]}  # fmt: skip
    return HeldOut(scenes, {"own": own, "new": new}, captions, seen)
