"""The demo: everything the engine does, on one sample picture, written to one folder."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from ..depth.depth_map import DepthMap
from ..depth.reading import read_depth_map
from ..depth.scores import structure
from ..diffusion.settings import Settings
from ..io.atomic import refusing, write_file
from ..io.images import Picture, read_picture
from ..io.saving import save_picture
from ..options import DepthOptions
from .compare import STRENGTHS, Score, compare, table
from .figure import Row, grid

if TYPE_CHECKING:
    from ..diffusion.engine import Engine

SAMPLE: Final = Path(__file__).parents[1] / "embedded" / "sample"
"""The sample picture, its exact depth, a mask of one solid and the mean depth of all scenes of its kind; rendered by
`tools/sample_scene.py`."""

SEED: Final = 7
ROUNDS: Final = 4
"""Pictures that are generated besides the comparison."""


@dataclass(frozen=True)
class Sample:
    """The sample.

    Attributes:
        picture: uint8 (128, 128, 3).
        mask: uint8 (128, 128), 255 on and around one solid.
        depth: its exact inverse depth, 0..1 relative to the nearest point.
        removed: the same without the masked solid.
        mean: the mean of such maps over scenes of its kind.
        prompts: what the results are asked to show.
    """

    picture: Picture
    mask: Picture
    depth: DepthMap
    removed: DepthMap
    mean: DepthMap
    prompts: Mapping[str, str]


def load_sample() -> Sample:
    """Load the sample that comes with the package."""
    notes = json.loads((SAMPLE / "scene.json").read_text(encoding="utf-8"))

    def scaled(name: str) -> DepthMap:
        far, near = notes[name]["far"], notes[name]["near"]
        stored = read_depth_map(SAMPLE / f"{name}.png")
        return dataclasses.replace(stored, values=(stored.values / 65535 * (near - far) + far).astype(np.float32))

    picture, mask = read_picture(SAMPLE / "scene.png"), read_picture(SAMPLE / "mask.png")
    return Sample(picture, mask, scaled("depth"), scaled("removed"), scaled("mean"), notes["prompts"])


@dataclass(frozen=True)
class Demo:
    """The outcome of a demo.

    Attributes:
        folder: where the files are.
        files: name -> what it shows.
        comparison: structure kept at each denoising strength.
        structure: structure kept by each further result; for `removed`, that of the scene without the solid.
        seconds: duration.
    """

    folder: Path
    files: Mapping[str, str]
    comparison: Sequence[Score]
    structure: Mapping[str, float]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "folder": str(self.folder),
            "files": dict(self.files),
            "comparison": [dataclasses.asdict(score) for score in self.comparison],
            "structure": dict(self.structure),
            "seconds": round(self.seconds, 1),
        }

    def lines(self) -> list[str]:
        """Return everything as lines of text, with suggestions for what to do next."""
        width = max(map(len, self.files))
        lines = [f"Written to {self.folder} in {self.seconds:.0f} s:", ""]
        lines += [f"  {name:{width}}  {what}" for name, what in self.files.items()]
        lines += ["", "Structure kept (1 = as in the input, 0 = as in any scene):", ""]
        lines += [f"  {line}" for line in table(self.comparison)]
        lines += ["", *(f"  {name:10}  {value:.3f}" for name, value in self.structure.items())]
        return [*lines, "", *NEXT]


NEXT: Final = (
    "Next:",
    "  - your own picture:   depth2img compare PICTURE -p 'a red cube on a blue floor, night'",
    "  - the real model:     depth2img generate PICTURE -m 512-depth-ema.safetensors -p PROMPT",
    "                        (or a folder in diffusers' layout, or owner/name on the Hugging Face hub)",
    "  - in the WebUI:       put this repository into its extensions folder and select a depth checkpoint;",
    "                        README.md says how, and where to get the checkpoint",
)


def run(engine: Engine, folder: Path, *, on_step: Callable[[int, int], None] | None = None) -> Demo:
    """Write the demo to a folder; files of the same names are replaced.

    Args:
        engine: a depth model.
        folder: created if it does not exist.
        on_step: called with the pictures done and the total.

    Raises:
        Depth2ImgError: the folder cannot be written.
    """
    begun = time.perf_counter()
    sample = load_sample()
    with refusing(f"The folder {folder} cannot be created.", fix="Name another with --output."):
        folder.mkdir(parents=True, exist_ok=True)
    total = 2 * len(STRENGTHS) + ROUNDS
    tell = on_step if on_step is not None else _nothing
    files: dict[str, str] = {}

    def save(name: str, picture: Picture | Image.Image, what: str) -> None:
        save_picture(picture, folder / name)
        files[name] = what

    save("input.png", sample.picture, f"the input: {sample.prompts['own']}")
    save("mask.png", sample.mask, "the mask of the two inpaintings, white = repaint")
    found = engine.estimate(sample.picture)
    found.save(folder / "depth.png")
    files["depth.png"] = "its depth map as the model estimates it, 16 bits, white = near"

    settings = Settings(prompt=sample.prompts["other"], seed=SEED)
    made = compare(engine, sample.picture, settings, strengths=STRENGTHS, on_step=lambda done, _: tell(done, total))
    figure = made.figure(settings.prompt)
    save("compare.png", figure, "img2img and depth2img over the denoising strengths")
    results = _four(engine, sample, lambda done: tell(total - ROUNDS + done, total))
    for name, (picture, what) in results.items():
        save(f"{name}.png", picture, what)
    pictures = {name: picture for name, (picture, _) in results.items()}
    save("overview.png", _overview(sample, found, pictures), "everything on one sheet")
    shown = Demo(
        folder=folder,
        files=files,
        comparison=made.scores(engine, sample.depth, sample.mean),
        structure=_structure(engine, sample, pictures),
        seconds=time.perf_counter() - begun,
    )
    files["scores.json"] = "the scores below"
    write_file(folder / "scores.json", (json.dumps(shown.to_json(), indent=2) + "\n").encode(), what="The scores")
    return shown


def _four(engine: Engine, sample: Sample, tell: Callable[[int], None]) -> dict[str, tuple[Picture, str]]:
    """Make the further results: name -> picture and caption."""
    prompts = sample.prompts
    full = Settings(seed=SEED, denoising_strength=1.0, mask_blur=2)
    keep, fill = DepthOptions(), DepthOptions(under_mask="fill")
    masks = [sample.mask]
    jobs: dict[str, tuple[Settings, DepthOptions, list[Picture] | None, str]] = {
        "recoloured": (dataclasses.replace(full, prompt=prompts["other"]), keep, None, "other colours, same depth"),
        "light": (dataclasses.replace(full, prompt=prompts["light"]), keep, None, "another light"),
        "repainted": (
            dataclasses.replace(full, prompt=prompts["repainted"], masked_content="original"),
            keep,
            masks,
            "inpainting that keeps the object: its depth stays",
        ),
        "removed": (
            dataclasses.replace(full, prompt=prompts["removed"], masked_content="fill"),
            fill,
            masks,
            "inpainting that removes it: its depth is filled from the surroundings",
        ),
    }
    results: dict[str, tuple[Picture, str]] = {}
    for name, (settings, depth, mask, what) in jobs.items():
        [result] = engine.generate([sample.picture], settings, depth, masks=mask)
        results[name] = result.picture, f"{what}: {settings.prompt}"
        tell(len(results))
    return results


def _structure(engine: Engine, sample: Sample, pictures: Mapping[str, Picture]) -> dict[str, float]:
    """Score the results, each against the depth that it should have."""
    wanted = {
        "recoloured": sample.depth,
        "light": sample.depth,
        "repainted": sample.depth,
        "removed": sample.removed,
    }
    return {name: structure(depth, engine.estimate(pictures[name]), sample.mean) for name, depth in wanted.items()}


def _overview(sample: Sample, depth: DepthMap, results: Mapping[str, Picture]) -> Image.Image:
    height, width = sample.picture.shape[:2]
    view = np.asarray(depth.resized(width, height).to_image())
    columns = ["input", "depth map", "other colours", "night", "repainted", "removed"]
    pictures = [sample.picture, view, *(results[name] for name in ("recoloured", "light", "repainted", "removed"))]
    return grid([Row("", pictures)], columns, tile=2 * width)


def _nothing(_done: int, _total: int) -> None:
    return None
