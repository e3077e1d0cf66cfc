"""Measure the effect of each control on pictures: the bundled model on scenes that it was not trained on.

    WEBUI_DIR=... WEBUI_PYTHON=... python benchmarks/bench_control.py [--scenes 6] [--seeds 1] [--engine [--model tiny]]

Runs in the real WebUI, or with --engine (and without WEBUI_DIR) in the standalone engine. Prints tables and writes them
to benchmarks/results/control.json:

- structure kept (see `scores.structure`; 1 = the scene's, 0 = any scene's) against strength, start, end and depth
  guidance, and inside and outside of a region;
- correlation of the result's tones with the picture's, with and without "Ignore source colours", against chance;
- error of depth in the box of "Only masked" against the whole picture's depth, ours and the host's own;
- flicker of the conditioning as the camera tilts, by range.

Every job has denoising strength 1 and a prompt that asks for other colours. Each figure is a mean over scenes and seeds
with its standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "webui_real")]

import record  # noqa: E402

from depth2img import DepthMap, DepthOptions, conditioning, embedded  # noqa: E402
from depth2img.depth.adjustments import sequence_span  # noqa: E402
from depth2img.depth.scores import structure  # noqa: E402
from depth2img.diffusion import Engine, Settings  # noqa: E402
from depth2img.io.images import Picture  # noqa: E402
from tools.shipped_scenes import scenes  # noqa: E402

SIDE: Final = 128
STEPS: Final = 12
FEW: Final = 4
"""Steps where only the conditioning is measured. The host's DDIM skips two, so that of 2 none would be left."""

CFG: Final = 4.0
PARTS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
MEAN_OF: Final = 48
"""Training scenes; their mean depth is the part that all scenes share."""

SHIFT, VIEW = 8, 64
"""The pan: pixels per frame, and the height of the visible part of the picture."""

Figure = tuple[float, float]
"""Mean and its standard error."""

Table = dict[str, Figure]


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """A rendered scene.

    Attributes:
        picture: uint8 (SIDE, SIDE, 3).
        prompt: the same solids in other colours.
        depth: exact inverse depth, 1 at the nearest point.
    """

    picture: Picture
    prompt: str
    depth: DepthMap


class Maker(Protocol):
    """Runs jobs: the WebUI or the engine."""

    def generate(
        self, pictures: Sequence[Picture], prompt: str, options: dict[str, Any], **fields: Any
    ) -> list[Picture]:
        """Make one result per picture; `fields` are `seed`, `steps`, `mask` and `only_masked`."""

    def conditionings(self) -> npt.NDArray[np.float32]:
        """Return the conditioning of the latest job's first call of the network: (B, h, w), conditional rows."""

    def native(self) -> contextlib.AbstractContextManager[None]:
        """Run jobs on the host without the extension."""


def held_out(count: int) -> tuple[list[Scene], DepthMap]:
    """Scenes that the model was not trained on, and the mean depth of some that it was."""
    found = []
    for seed in scenes.HELD_OUT_SEEDS[:count]:
        geometry, buffers, rng = scenes.sample_visible(seed)
        look = scenes.sample_look(rng, len(geometry.solids))
        prompt = scenes.caption(geometry, scenes.recolour(rng, look))
        found.append(Scene(scenes.shade(buffers, look), prompt, DepthMap(scenes.relative_depth(buffers))))
    return found, DepthMap(scenes.mean_depth(scenes.TRAINING_SEEDS[:MEAN_OF]))


class InEngine:
    """Jobs in the standalone engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self._seen = engine, np.zeros((0, 0, 0), np.float32)

    def generate(
        self, pictures: Sequence[Picture], prompt: str, options: dict[str, Any], **fields: Any
    ) -> list[Picture]:
        mask, only_masked = fields.pop("mask", None), fields.pop("only_masked", False)
        area = "only masked" if only_masked else "whole picture"
        settings = Settings(
            prompt=prompt,
            denoising_strength=1.0,
            cfg_scale=CFG,
            inpaint_area=area,
            only_masked_padding=8,
            mask_blur=2,
            **{"steps": STEPS, "width": SIDE, "height": SIDE, **fields},
        )
        masks = None if mask is None else [mask] * len(pictures)
        made = self.engine.generate(list(pictures), settings, DepthOptions.from_mapping(options), masks=masks)
        self._seen = np.concatenate([one.conditioning[0].numpy() for one in made])
        return [one.picture for one in made]

    def conditionings(self) -> npt.NDArray[np.float32]:
        return self._seen

    @contextlib.contextmanager
    def native(self) -> Iterator[None]:
        """Use the option "Entering", whose result is the host's own."""
        inner = self.generate
        self.generate = lambda *given, **fields: inner(*given[:2], {"estimate_on": "entering"}, **fields)  # type: ignore[method-assign]
        try:
            yield
        finally:
            del self.generate


class InWebUI:
    """Jobs in the real WebUI, through its API."""

    def __init__(self, host: Any) -> None:
        self.host = host

    def generate(
        self, pictures: Sequence[Picture], prompt: str, options: dict[str, Any], **fields: Any
    ) -> list[Picture]:
        from host import to_base64

        mask, only_masked = fields.pop("mask", None), fields.pop("only_masked", False)
        if mask is not None:
            fields |= {"mask": Image.fromarray(mask), "inpaint_full_res": only_masked, "inpainting_fill": 1}
            fields |= {"inpaint_full_res_padding": 8, "mask_blur": 2}
        depth = {
            name: to_base64(Image.fromarray(value)) if isinstance(value, np.ndarray) else value
            for name, value in options.items()
        }
        fields = {
            "steps": STEPS,
            "width": SIDE,
            "height": SIDE,
            "batch_size": len(pictures),
            "override_settings": {"return_grid": False},
            **fields,
        }
        self.host.run("probe.clear()")
        made = self.host.img2img(
            *map(Image.fromarray, pictures),
            prompt=prompt,
            depth=depth or None,
            cfg_scale=CFG,
            sampler_name="DDIM",
            **fields,
        )
        return [np.asarray(image.convert("RGB")) for image in made.images[-len(pictures) :]]

    def conditionings(self) -> npt.NDArray[np.float32]:
        shape, values, _ = self.host.conditionings()[0]
        rows = np.array(values, np.float32).reshape(shape)
        return rows[: len(rows) // 2, 0]

    def native(self) -> contextlib.AbstractContextManager[None]:
        return self.host.native()


class Bench:
    """Some scenes, some seeds, one maker; the engine's depth network scores for both."""

    def __init__(self, maker: Maker, scores: Engine, cases: Sequence[Scene], mean: DepthMap, seeds: int) -> None:
        self.maker, self.engine, self.cases, self.mean, self.seeds = maker, scores, cases, mean, seeds
        self._made: dict[str, list[Picture]] = {}

    def tables(self) -> Iterator[tuple[str, Table]]:
        """Measure all tables, with their titles."""
        for name in ("strength", "end", "start"):
            yield f"structure against {name}", {f"{part:g}": self.kept({name: part}) for part in PARTS}
        yield (
            "structure against depth guidance",
            {f"{part:g}": self.kept({"guidance": part}) for part in (1.0, 2.0, CFG)},
        )
        yield "structure with a region on the left half", self.region()
        yield "structure that scenes share by chance", {"another scene's picture": self.chance()}
        yield "correlation of tones with the picture, no depth", self.tones()
        yield "change of tones where the picture becomes its negative, no depth, levels of 255", self.negatives()
        yield "mean error of depth in the box of only masked, of 2", self.only_masked()
        yield "flicker of the conditioning over a tilt, estimated frame by frame, of 2", self.flicker()
        yield "flicker of the conditioning over a tilt, maps of a renderer, of 2", self.rendered_flicker()

    def results(self, options: dict[str, Any]) -> list[Picture]:
        """Make one result per scene and seed; equal jobs are run once."""
        if options.get("strength") == 0 or options.get("end") == 0 or options.get("start") == 1:
            options = {"strength": 0.0, **{name: options[name] for name in ("ignore_colours",) if name in options}}
        plain = DepthOptions()
        options = {
            name: value
            for name, value in options.items()
            if isinstance(value, np.ndarray) or value != getattr(plain, name)
        }
        key = repr(sorted(options.items(), key=str))
        if key not in self._made:
            self._made[key] = [
                self.maker.generate([scene.picture], scene.prompt, options, seed=seed)[0]
                for seed in range(self.seeds)
                for scene in self.cases
            ]
        return self._made[key]

    def kept(self, options: dict[str, Any], part: slice = np.s_[:]) -> Figure:
        """Score the structure of the results, over the given columns."""
        return figure(self.score(scene, made, part) for scene, made in self.pairs(options))

    def pairs(self, options: dict[str, Any]) -> Iterator[tuple[Scene, Picture]]:
        yield from zip(list(self.cases) * self.seeds, self.results(options), strict=True)

    def score(self, scene: Scene, picture: Picture, part: slice = np.s_[:]) -> float:
        found = self.engine.estimate(picture).resized(SIDE, SIDE)
        maps = (scene.depth, found, self.mean)
        return structure(*(DepthMap(np.ascontiguousarray(depth.values[:, part])) for depth in maps))

    def chance(self) -> Figure:
        """Score one scene's input against another's depth, as the chance level."""
        pairs = itertools.permutations(self.cases, 2)
        return figure(self.score(one, other.picture) for one, other in pairs)

    def region(self) -> Table:
        """Measure inside and outside of a mask over the left half."""
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[:, : SIDE // 2] = 255
        left, right = np.s_[: SIDE // 2], np.s_[SIDE // 2 :]
        return {
            "inside": self.kept({"region": mask}, left),
            "outside": self.kept({"region": mask}, right),
            "left half without depth": self.kept({"strength": 0.0}, left),
            "right half without depth": self.kept({"strength": 0.0}, right),
        }

    def tones(self) -> Table:
        """Measure the leaked tone, with neutral depth so that nothing else is left."""
        plain, noise = {"strength": 0.0}, {"strength": 0.0, "ignore_colours": True}
        made = self.results(noise)
        others = [*self.cases[1:], self.cases[0]] * self.seeds
        return {
            "as in the host": figure(correlation(scene.picture, one) for scene, one in self.pairs(plain)),
            "ignoring source colours": figure(correlation(scene.picture, one) for scene, one in self.pairs(noise)),
            "chance: with another scene": figure(
                correlation(scene.picture, one) for scene, one in zip(others, made, strict=True)
            ),
        }

    def negatives(self) -> Table:
        """Measure the picture's tones that show through; nothing else differs between the two jobs of a pair."""
        found = {}
        for name, ignore in (("as in the host", False), ("ignoring source colours", True)):
            options = {"strength": 0.0, "ignore_colours": ignore}
            changes = []
            for scene, made in itertools.islice(self.pairs(options), len(self.cases)):  # those of the first seed
                other = self.maker.generate([255 - scene.picture], scene.prompt, options, seed=0)[0]
                changes.append(float(np.abs(blurred(made) - blurred(other)).mean()))
            found[name] = figure(changes)
        return found

    def only_masked(self) -> Table:
        """Measure the difference from the whole picture's conditioning, cropped and resized."""
        errors: dict[str, list[float]] = {"original, as by default": [], "the host's own": []}
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[SIDE // 3 : SIDE * 2 // 3, SIDE // 4 : SIDE * 2 // 3] = 255
        job = {"mask": mask, "only_masked": True, "steps": FEW, "seed": 1}
        settings = Settings(inpaint_area="only masked", only_masked_padding=8, mask_blur=2, width=SIDE, height=SIDE)
        for scene in self.cases:
            box = self.engine.frame(scene.picture, settings, mask=mask).box
            assert box is not None
            whole = 2 * self.engine.estimate(scene.picture).resized(SIDE, SIDE).normalised() - 1
            cut = whole[box[1] : box[3], box[0] : box[2]]
            wanted = cv2.resize(cut, (SIDE // 8, SIDE // 8), interpolation=cv2.INTER_AREA)
            for name, found in errors.items():
                with contextlib.nullcontext() if name.startswith("original") else self.maker.native():
                    self.maker.generate([scene.picture], scene.prompt, {}, **job)
                found.append(float(np.abs(self.maker.conditionings()[0] - wanted).mean()))
        return {name: figure(found) for name, found in errors.items()}

    def flicker(self) -> Table:
        """Measure the mean change of what stays in view between frames; the camera tilts from the sky to the floor."""
        changes: dict[str, list[float]] = {"own": [], "shared": [], "fixed": []}
        step = SHIFT // 8
        for scene in self.cases:
            views = [np.ascontiguousarray(scene.picture[at : at + VIEW]) for at in range(0, SIDE - VIEW + 1, SHIFT)]
            far, near = self.engine.estimate(scene.picture).range
            for name, found in changes.items():
                ends = {"range_far": far, "range_near": near} if name == "fixed" else {}
                self.maker.generate(views, scene.prompt, {"range": name, **ends}, steps=FEW, seed=1, height=VIEW)
                seen = self.maker.conditionings()
                found += [float(np.abs(a[step:] - b[:-step]).mean()) for a, b in itertools.pairwise(seen)]
        return {name: figure(found) for name, found in changes.items()}

    def rendered_flicker(self) -> Table:
        """Measure the change between frames of one map, cropped: only the range can make it flicker."""
        changes: dict[str, list[float]] = {"own": [], "shared": [], "fixed": []}
        step = SHIFT // 8
        for scene in self.cases:
            starts = range(0, SIDE - VIEW + 1, SHIFT)
            views = [DepthMap(np.ascontiguousarray(scene.depth.values[at : at + VIEW])) for at in starts]
            for name, found in changes.items():
                span = sequence_span(DepthOptions(range=name, range_far=0.0, range_near=1.0), views)
                tensor = conditioning(views, height=VIEW // 8, width=SIDE // 8, spans=[span] * len(views))[:, 0]
                found += [float((a[step:] - b[:-step]).abs().mean()) for a, b in itertools.pairwise(tensor)]
        return {name: figure(found) for name, found in changes.items()}


def blurred(picture: Picture) -> npt.NDArray[np.float64]:
    """Return a picture's tones: brightness, 0..255, without detail."""
    return np.asarray(cv2.GaussianBlur(picture.mean(axis=2), (0, 0), SIDE / 16), np.float64)


def correlation(one: Picture, other: Picture) -> float:
    """Correlate the tones of two pictures."""
    return float(np.corrcoef(blurred(one).ravel(), blurred(other).ravel())[0, 1])


def figure(values: Iterator[float] | Sequence[float]) -> Figure:
    """Return mean and standard error."""
    found = list(values)
    return statistics.fmean(found), statistics.stdev(found) / len(found) ** 0.5 if len(found) > 1 else 0.0


@contextlib.contextmanager
def webui() -> Iterator[InWebUI]:
    """Start the real WebUI with the bundled model."""
    from host import running

    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Path(folder) / "checkpoints"
        checkpoints.mkdir()
        embedded.install(checkpoints / "depth2img-tiny.safetensors")
        with running(Path(folder) / "data", checkpoints=checkpoints, checkpoint="depth2img-tiny.safetensors") as host:
            yield InWebUI(host)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="What each control does to pictures, in numbers.")
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--engine", action="store_true", help="the standalone engine instead of the WebUI")
    parser.add_argument("--model", default="tiny", help="with --engine: another model")
    given = parser.parse_args()
    begun = time.perf_counter()
    scores = Engine.open(given.model if given.engine else "tiny")
    real = "WEBUI_DIR" in os.environ and not given.engine
    place = "the real WebUI" if real else "the standalone engine"
    print(f"In {place}, {given.scenes} scenes of {SIDE} x {SIDE}, {given.seeds} seed(s), {STEPS} steps.")
    tables: dict[str, Table] = {}
    with webui() if real else contextlib.nullcontext(InEngine(scores)) as maker:
        for title, table in Bench(maker, scores, *held_out(given.scenes), given.seeds).tables():
            tables[title] = table
            print(f"\n{title}")
            for name, (mean, error) in table.items():
                print(f"  {name:<28} {mean:7.3f} ± {error:.3f}")
    seconds = time.perf_counter() - begun
    print(f"\n{seconds:.0f} s")
    about = {"place": place, "scenes": given.scenes, "seeds": given.seeds, "steps": STEPS, "seconds": round(seconds)}
    record.write("control", {**about, "tables": tables})


if __name__ == "__main__":
    main()
