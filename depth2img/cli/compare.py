"""Compare plain img2img with depth-to-image on one checkpoint, over denoising strengths."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from ..depth.scores import structure
from ..errors import OptionError
from ..options import DepthOptions
from .figure import Row, grid

if TYPE_CHECKING:
    from ..depth.depth_map import DepthMap
    from ..diffusion.engine import Engine
    from ..diffusion.job import Generated
    from ..diffusion.settings import Settings

STRENGTHS: Final = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Comparison:
    """The results of a comparison.

    Attributes:
        strengths: the columns.
        without, with_depth: the results with the toggle off and on.
        depth: the map that the second row was asked to keep.
        estimator: `DepthOptions.estimator`; what estimates the results' depth.
    """

    strengths: Sequence[float]
    without: Sequence[Generated]
    with_depth: Sequence[Generated]
    depth: DepthMap
    estimator: str

    def scores(self, engine: Engine, true: DepthMap | None = None, mean: DepthMap | None = None) -> list[Score]:
        """Score how much structure each result keeps.

        Args:
            engine: the one that made them.
            true: the map to compare results with; by default `depth`, so that the score of a result with depth is
                its fidelity (`Generated.fidelity`).
            mean: see `scores.structure`.

        Raises:
            OptionError, EstimatorError: see `Engine.estimate`.
        """
        reference = self.depth if true is None else true

        def one(result: Generated) -> float:
            return structure(reference, engine.estimate(result.sampled, self.estimator), mean)

        return [
            Score(strength, one(off), one(on))
            for strength, off, on in zip(self.strengths, self.without, self.with_depth, strict=True)
        ]

    def figure(self, prompt: str) -> Image.Image:
        """Draw the labelled grid: the picture and its depth map, then one column per strength."""
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
        engine: an engine with a depth model.
        picture: anything that `images.read_picture` takes.
        settings: the settings of every job; their denoising strength is replaced.
        options: the depth options; depth is switched off in the first row and on in the second.
        strengths: the columns, at least one.
        on_step: called with the pictures done and the total.

    Raises:
        Depth2ImgError: as in `Engine.generate`.
    """
    options = DepthOptions() if options is None else options
    rows: dict[bool, list[Generated]] = {False: [], True: []}
    total = 2 * len(strengths)
    for strength in strengths:
        for enabled in rows:
            job = dataclasses.replace(settings, denoising_strength=strength)
            rows[enabled] += engine.generate([picture], job, dataclasses.replace(options, enabled=enabled))
            if on_step is not None:
                on_step(len(rows[False]) + len(rows[True]), total)
    depth = next((one.depth for one in rows[True] if one.depth is not None), None)
    if depth is None:
        raise OptionError("strengths", "No denoising strength is given.", fix="Give at least one.")
    return Comparison(strengths, rows[False], rows[True], depth, options.estimator)


def table(scores: Sequence[Score]) -> list[str]:
    """Format scores as lines of text."""
    lines = ["strength  img2img  depth2img"]
    return lines + [f"{one.denoising_strength:8.2f}  {one.img2img:7.3f}  {one.depth2img:9.3f}" for one in scores]
