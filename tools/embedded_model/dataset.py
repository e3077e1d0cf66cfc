"""Rendered sets on disk: pictures, exact depth, regions, looks and captions."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from tools.embedded_model import scenes
from tools.embedded_model.scenes import Geometry, Look


@dataclass(frozen=True)
class Rendered:
    """N geometries with L looks each.

    `pictures` uint8 (N, L, S, S, 3); `inverse_depth` float16 (N, S, S) in 1/scene units, 0 = sky;
    `regions` uint8 (N, S, S): 0 sky, 1 floor, 2.. solids.
    """

    geometries: list[Geometry]
    looks: list[list[Look]]
    pictures: npt.NDArray[np.uint8]
    inverse_depth: npt.NDArray[np.float16]
    regions: npt.NDArray[np.uint8]

    def relative_depth(self) -> npt.NDArray[np.float32]:
        """Inverse depth (N, S, S) divided by its largest value in each scene, 0..1: a single picture does not show
        the scene's scale, so neither the estimator nor the scores are asked for it."""
        depth = self.inverse_depth.astype(np.float32)
        return depth / depth.max(axis=(1, 2), keepdims=True)

    def first_looks(self, count: int) -> Rendered:
        """The same scenes with their first `count` looks only."""
        looks = [its_looks[:count] for its_looks in self.looks]
        return Rendered(self.geometries, looks, self.pictures[:, :count], self.inverse_depth, self.regions)


def _render(
    task: tuple[int, int],
) -> tuple[Geometry, list[Look], list[npt.NDArray[np.uint8]], npt.NDArray[np.float16], npt.NDArray[np.uint8]]:
    seed, looks_wanted = task
    geometry, buffers, rng = scenes.sample_visible(seed)
    looks = [scenes.sample_look(rng, len(geometry.solids)) for _ in range(looks_wanted)]
    pictures = [scenes.shade(buffers, look) for look in looks]
    return geometry, looks, pictures, scenes.inverse_depth(buffers).astype(np.float16), scenes.regions(buffers)


def render(seeds: range, looks: int, *, workers: int = 1, name: str = "render") -> Rendered:
    """Render one geometry per seed."""
    with get_context("fork").Pool(workers) as pool:
        tasks = ((seed, looks) for seed in seeds)
        done = list(
            tqdm(pool.imap(_render, tasks, chunksize=16), total=len(seeds), desc=name, unit="scene", mininterval=10)
        )
    geometries, all_looks, pictures, depth, regions = (list(column) for column in zip(*done, strict=True))
    return Rendered(geometries, all_looks, np.array(pictures), np.array(depth), np.array(regions))


def load_or_render(path: Path, seeds: range, looks: int, *, workers: int = 1) -> Rendered:
    """The set kept at `path` (our own file, never one from elsewhere), rendered first if it is missing."""
    if not path.exists():
        rendered = render(seeds, looks, workers=workers, name=path.stem)
        beside = path.with_suffix(".part")
        with beside.open("wb") as file:
            pickle.dump(rendered, file, protocol=5)
        beside.replace(path)
    with path.open("rb") as file:
        loaded: Rendered = pickle.load(file)
    return loaded
