"""Write the results that `test_reference_pictures.py` compares with: `python -m tests.engine.make_references`.

Run it only when a change is meant to change pictures; the files come from the bundled model on one thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from depth2img import DepthMap, DepthOptions
from depth2img.cli.demo import load_sample
from depth2img.diffusion import Engine, Generated, Job, Settings

FOLDER: Final = Path(__file__).with_name("references")
WIDTH, HEIGHT = 96, 64

SAMPLE: Final = load_sample()
PICTURE: Final = SAMPLE.picture[20:108]
"""uint8 (88, 128, 3), neither square nor of the frame's proportions."""
MASK: Final = SAMPLE.mask[20:108]
OTHER: Final = np.ascontiguousarray(SAMPLE.picture[4:100, 16:128][:, ::-1])
"""uint8 (96, 112, 3)."""
MAP: Final = DepthMap(values=SAMPLE.removed.values[20:108, :])
REGION: Final = np.tile(np.linspace(0, 255, 128).round().astype(np.uint8), (88, 1))
"""Depth counts more and more to the right."""


def settings(**changes: Any) -> Settings:
    shared = {"prompt": SAMPLE.prompts["other"], "seed": 11, "steps": 4, "width": WIDTH, "height": HEIGHT}
    return Settings(**{**shared, "denoising_strength": 1.0, **changes})


def one(options: Mapping[str, Any] | None = None, *, mask: bool = False, **changes: Any) -> list[Job]:
    return [Job(PICTURE, settings(**changes), DepthOptions(**(options or {})), MASK if mask else None)]


def several() -> list[Job]:
    """Three pictures of different depth, over one range."""
    pictures = (PICTURE, OTHER, SAMPLE.picture[60:, :])
    options = DepthOptions(range="shared", gamma=0.8)
    return [
        Job(picture, settings(seed=index, steps=2, resize_mode="crop and resize"), options)
        for index, picture in enumerate(pictures)
    ]


JOBS: Final[Mapping[str, list[Job]]] = {
    "part-strength": one(denoising_strength=0.6),
    "no-depth": one({"enabled": False}, denoising_strength=0.6, sampler="euler"),
    "adjusted": one({"near": 0.9, "far": 0.15, "gamma": 1.6, "blur": 2.0, "invert": True}, sampler="euler a"),
    "noise-alone": one({"ignore_colours": True, "estimate_on": "original"}, sampler="dpm++ 2m", cfg_scale=1.0),
    "fixed-range": one(
        {"range": "fixed", "range_far": 0.1, "range_near": 1.4, "score": True},
        resize_mode="resize and fill",
        negative_prompt="grey",
        cfg_scale=6.0,
    ),
    "own-map": one(
        {
            "source": "map",
            "depth_map": MAP,
            "strength": 0.7,
            "start": 0.2,
            "end": 0.8,
            "neutral": -0.3,
            "guidance": 2.0,
            "region": REGION,
        },
        steps=5,
        resize_mode="crop and resize",
    ),
    "reference": one({"source": "reference", "reference": OTHER}, sampler="euler"),
    "mask-fill": one({"under_mask": "fill"}, mask=True, masked_content="fill", mask_blur=2),
    "mask-original": one(mask=True, masked_content="original", denoising_strength=0.6, mask_invert=True),
    "mask-noise": one({"under_mask": "map", "depth_map": MAP}, mask=True, masked_content="latent noise"),
    "mask-nothing": one({"ignore_colours": True}, mask=True, masked_content="latent nothing", sampler="euler a"),
    "only-masked": one(
        {"under_mask": "fill", "region": REGION},
        mask=True,
        inpaint_area="only masked",
        only_masked_padding=6,
        mask_blur=3,
        masked_content="fill",
    ),
    "only-masked-entering": one(
        {"estimate_on": "entering", "under_mask": "map", "depth_map": MAP},
        mask=True,
        inpaint_area="only masked",
        only_masked_padding=12,
        sampler="dpm++ 2m",
    ),
    "hires-keep": one({"gamma": 1.3}, steps=2, hr_scale=1.3, hr_upscaler="lanczos", hr_denoising_strength=0.5),
    "hires-estimate": one(
        {"hires": "estimate"}, steps=2, hr_scale=1.3, hr_second_pass_steps=3, hr_denoising_strength=0.6
    ),
    "shared-range": several(),
}
"""Name -> jobs that are run together."""


@cache
def engine() -> Engine:
    """The bundled model on the CPU."""
    return Engine.open(device="cpu")


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums are split by the number of threads, and so differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run(name: str) -> list[Generated]:
    with one_thread():
        return engine().run(JOBS[name])


def arrays(results: list[Generated]) -> dict[str, np.ndarray]:
    """Collect the stored arrays: pictures uint8 (B, H, W, 3), conditioning float32 (B, 1, h, w), fidelity (B)."""
    return {
        "pictures": np.stack([result.picture for result in results]),
        "conditioning": np.concatenate([result.conditioning.numpy() for result in results]),
        "fidelity": np.array([np.nan if result.fidelity is None else result.fidelity for result in results]),
    }


def path(name: str) -> Path:
    return FOLDER / f"{name}.npz"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in JOBS:
        np.savez_compressed(path(name), **arrays(run(name)))


if __name__ == "__main__":
    main()
