"""What each control does, in numbers, on the engine and one model.

    python benchmarks/bench_control.py [--model tiny] [--seeds 3] [PICTURE ...]

Prints tables: structure kept (correlation of the result's estimated depth with the picture's, see `scores.structure`)
against strength, against the end step and inside and outside of a region; correlation of the result's tones with the
picture's with and without "Ignore source colours"; error of depth in the box of "Only masked" against the whole
picture's depth; flicker of the conditioning over a pan with own and shared ranges. Writes
benchmarks/results/control.json. Without pictures it takes the sample of the bundled model.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from depth2img import DepthMap, DepthOptions, read_picture
from depth2img.demo import load_sample
from depth2img.diffusion import Engine, Settings
from depth2img.images import Picture
from depth2img.scores import structure

ROOT = Path(__file__).resolve().parents[1]
PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)
PANS = 8

Table = dict[str, float]


class Bench:
    """One model, some pictures, some seeds; every figure is a mean over pictures and seeds."""

    def __init__(
        self,
        engine: Engine,
        pictures: Sequence[Picture],
        *,
        prompt: str,
        seeds: int,
        steps: int,
        mean: DepthMap | None = None,
    ) -> None:
        self.engine, self.pictures, self.seeds, self.mean = engine, pictures, seeds, mean
        self.settings = Settings(prompt=prompt, steps=steps, denoising_strength=1.0)

    def tables(self) -> dict[str, Table]:
        """All tables, by title."""
        return {
            "structure against strength": {f"{part:g}": self.kept(DepthOptions(strength=part)) for part in PARTS},
            "structure against end": {f"{part:g}": self.kept(DepthOptions(end=part)) for part in PARTS},
            "structure against start": {f"{part:g}": self.kept(DepthOptions(start=part)) for part in PARTS},
            "structure against depth guidance": {f"{g:g}": self.kept(DepthOptions(guidance=g)) for g in (1, 2, 3, 5)},
            "structure with a region on the left": self.region(),
            "tone correlation with the picture": self.tones(),
            "error of depth in the box of only masked": self.only_masked(),
            "flicker of the conditioning over a pan": self.flicker(),
        }

    def kept(self, options: DepthOptions, part: slice = np.s_[:]) -> float:
        """Mean structure of the results, over the given columns."""

        def score(picture: Picture, result: Any) -> float:
            one, other = (self.engine.estimate(each) for each in (result.frame, result.picture))
            other = other.resized(one.width, one.height)
            mean = None if self.mean is None else self.mean.resized(one.width, one.height)
            return structure(*(None if depth is None else _columns(depth, part) for depth in (one, other, mean)))

        return self._mean(options, score)

    def region(self) -> Table:
        """Inside and outside of a mask over the left half."""
        found = {"inside": 0.0, "outside": 0.0}
        mask = np.zeros((64, 64), np.uint8)
        mask[:, :32] = 255
        width = self.engine.estimate(self.pictures[0]).width
        for name, part in (("inside", np.s_[: width // 2]), ("outside", np.s_[width // 2 :])):
            found[name] = self.kept(DepthOptions(region=mask), part)
        return found

    def tones(self) -> Table:
        """Correlation of blurred brightness, depth off: what is left can only be leaked tone."""

        def score(picture: Picture, result: Any) -> float:
            tones = [
                cv2.GaussianBlur(each.mean(axis=2), (0, 0), each.shape[1] / 16)
                for each in (result.frame, result.picture)
            ]
            return float(np.corrcoef(tones[0].ravel(), tones[1].ravel())[0, 1])

        other = self.pictures[-1] if len(self.pictures) > 1 else self.pictures[0][:, ::-1]
        depth = DepthOptions(source="reference", reference=np.ascontiguousarray(other))
        return {
            "with neutral depth, as in the host": self._mean(DepthOptions(strength=0.0), score),
            "with neutral depth, ignoring colours": self._mean(DepthOptions(strength=0.0, ignore_colours=True), score),
            "with another picture's depth, as in the host": self._mean(depth, score),
            "with another picture's depth, ignoring colours": self._mean(
                DepthOptions(source="reference", reference=depth.reference, ignore_colours=True), score
            ),
        }

    def only_masked(self) -> Table:
        """Mean absolute difference from the whole picture's conditioning, cut and resized, by what depth is estimated
        on."""
        errors: dict[str, list[float]] = {"original": [], "entering": []}
        for picture in self.pictures:
            height, width = picture.shape[:2]
            mask = np.zeros((height, width), np.uint8)
            mask[height // 3 : height * 2 // 3, width // 3 : width * 2 // 3] = 255
            whole = self.engine.estimate(picture).resized(width, height)
            for name, found in errors.items():
                made = self.engine.generate(
                    [picture],
                    self._settings(0, inpaint_area="only masked", steps=1),
                    DepthOptions(estimate_on=name),
                    masks=[mask],
                )[0]
                frame = self.engine.frame(picture, self._settings(0, inpaint_area="only masked"), mask=mask)
                assert frame.box is not None
                left, top, right, bottom = frame.box
                size = made.conditioning.shape[-1], made.conditioning.shape[-2]
                wanted = 2 * whole.normalised()[top:bottom, left:right] - 1
                wanted = cv2.resize(wanted, size, interpolation=cv2.INTER_AREA)
                found.append(float(np.abs(wanted - made.conditioning[0, 0].numpy()).mean()))
        return {name: statistics.fmean(found) for name, found in errors.items()}

    def flicker(self) -> Table:
        """Mean change of what stays in view from one frame to the next, on depth that itself does not change."""
        found: Table = {}
        for name in ("own", "shared"):
            changes = []
            for picture in self.pictures:
                depth = self.engine.estimate(picture).resized(256, 256).values
                wide = np.concatenate([depth, depth[:, ::-1]], axis=1)
                views = [wide[:, start : start + 192] for start in range(0, 16 * PANS, 16)]
                seen = self._conditionings(views, name)
                changes += [float(np.abs(a[:, 2:] - b[:, :-2]).mean()) for a, b in itertools.pairwise(seen)]
            found[name] = statistics.fmean(changes)
        return found

    @staticmethod
    def _conditionings(views: Sequence[np.ndarray], name: str) -> list[np.ndarray]:
        from depth2img import conditioning
        from depth2img.adjust import joint_span

        maps = [DepthMap(values=np.ascontiguousarray(view)) for view in views]
        span = joint_span(maps) if name == "shared" else None
        tensor = conditioning(maps, height=32, width=24, spans=[span] * len(maps))
        return [each[0].numpy() for each in tensor]

    def _settings(self, seed: int, **changes: Any) -> Settings:
        values = {"prompt": self.settings.prompt, "steps": self.settings.steps, "denoising_strength": 1.0}
        return Settings(**{**values, "seed": seed, **changes})

    def _mean(self, options: DepthOptions, score: Callable[[Picture, Any], float]) -> float:
        scores = []
        for seed in range(self.seeds):
            results = self.engine.generate(list(self.pictures), self._settings(1000 * seed), options)
            scores += [score(picture, result) for picture, result in zip(self.pictures, results, strict=True)]
        return statistics.fmean(scores)


def _columns(depth: DepthMap, part: slice) -> DepthMap:
    return DepthMap(values=depth.values[:, part])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="What each control does, in numbers.")
    parser.add_argument("pictures", nargs="*", type=Path)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--prompt", default=None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    sample = load_sample()
    pictures = [read_picture(path) for path in given.pictures] or [sample.picture]
    prompt = sample.prompts["other"] if given.prompt is None else given.prompt
    mean = None if given.pictures else sample.mean
    engine = Engine.open(given.model)
    tables = Bench(engine, pictures, prompt=prompt, seeds=given.seeds, steps=given.steps, mean=mean).tables()
    for title, table in tables.items():
        print(title)
        for name, value in table.items():
            print(f"  {name:<48} {value:8.3f}")
    folder = ROOT / "benchmarks" / "results"
    folder.mkdir(exist_ok=True)
    (folder / "control.json").write_text(json.dumps(tables, indent=1))


if __name__ == "__main__":
    main()
