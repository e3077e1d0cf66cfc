"""The comparison: plain img2img beside depth-to-image on one checkpoint, over the denoising strengths."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from .figure import Row, grid
from .options import DepthOptions
from .scores import structure

if TYPE_CHECKING:
    from .depth_map import DepthMap
    from .diffusion.engine import Engine, Generated
    from .diffusion.settings import Settings

STRENGTHS: Final = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Attributes:
        strengths: the columns.
        without, with_depth: the results with the toggle off and on.
        depth: the map of the picture, as estimated.
    """

    strengths: Sequence[float]
    without: Sequence[Generated]
    with_depth: Sequence[Generated]
    depth: DepthMap

    def scores(self, engine: Engine, true: DepthMap | None = None, mean: DepthMap | None = None) -> list[Score]:
        """How much structure each result keeps.

        Args:
            engine: its network estimates the results' depth.
            true: what they are compared with; by default the picture's own estimated map.
            mean: see `scores.structure`.
        """
        reference = self.depth if true is None else true

        def one(result: Generated) -> float:
            return structure(reference, engine.estimate(result.picture), mean)

        return [
            Score(strength, one(off), one(on))
            for strength, off, on in zip(self.strengths, self.without, self.with_depth, strict=True)
        ]

    def figure(self, prompt: str) -> Image.Image:
        """The labelled grid: the picture and its depth map, then one column per strength."""
        shown = self.with_depth[0].frame
        height, width = shown.shape[:2]
        view = np.asarray(self.depth.resized(width, height).to_image())
        rows = [
            Row("img2img", [shown, *(one.picture for one in self.without)]),
            Row("depth2img", [view, *(one.picture for one in self.with_depth)]),
        ]
        columns = ["picture, depth", *(f"{strength:.2g}" if strength < 1 else "1.0" for strength in self.strengths)]
        return grid(rows, columns, title=f"Denoising strength, left to right. Prompt: {prompt}", tile=min(width, 192))


@dataclass(frozen=True)
class Score:
    """Structure kept at one denoising strength, with the toggle off and on; see `scores.structure`."""

    denoising_strength: float
    img2img: float
    depth2img: float


def compare(
    engine: Engine,
    picture: object,
    settings: Settings,
    options: DepthOptions | None = None,
    *,
    strengths: Sequence[float] = STRENGTHS,
    on_step: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Generate one picture at every strength, with the same seed, without and with depth.

    Args:
        engine: a depth model.
        picture: anything that `images.read_picture` takes.
        settings: the job's; its denoising strength is replaced.
        options: the depth options of the second row.
        strengths: the columns.
        on_step: told the pictures done and the pictures in all.
    """
    options = DepthOptions() if options is None else options
    rows: dict[bool, list[Generated]] = {False: [], True: []}
    total = 2 * len(strengths)
    for strength in strengths:
        for enabled in rows:
            job = dataclasses.replace(settings, denoising_strength=strength)
            chosen = options if enabled else DepthOptions(enabled=False)
            rows[enabled] += engine.generate([picture], job, chosen)
            if on_step is not None:
                on_step(len(rows[False]) + len(rows[True]), total)
    depth = engine.estimate(rows[True][0].frame)
    return Comparison(strengths, rows[False], rows[True], depth)


def table(scores: Sequence[Score]) -> list[str]:
    """The scores as lines of text."""
    lines = ["strength  img2img  depth2img"]
    return lines + [f"{one.denoising_strength:8.2f}  {one.img2img:7.3f}  {one.depth2img:9.3f}" for one in scores]
