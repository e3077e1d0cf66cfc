"""The same job in the real WebUI and on the command line: the network gets the same conditioning at every step."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import photograph
from host import Host, to_base64
from PIL import Image

from depth2img.cli import root as cli
from depth2img.diffusion import sampling

SIZE = (192, 128)
STEPS = 6
CFG = 5.0

TOLERANCE = 2e-4
"""Of -1..1. The same weights run in float32 on both sides, but by different code (ldm's modules in torch 2.1, ours in
another torch), with a sum of some thousand products per value. Where nothing is estimated it is 1e-6."""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Call it with the arguments of `depth2img generate`: the conditioning of each call, conditional rows first."""
    calls: list[np.ndarray] = []
    inner = sampling._predict

    def predict(networks: Any, latents: Any, timestep: Any, text: Any, depth: Any, guidance: float) -> torch.Tensor:
        calls.append(torch.cat(depth).numpy())
        return inner(networks, latents, timestep, text, depth, guidance)

    monkeypatch.setattr(sampling, "_predict", predict)
    monkeypatch.chdir(tmp_path)

    def run(picture: Image.Image, *arguments: object) -> list[np.ndarray]:
        calls.clear()
        picture.save(tmp_path / "picture.png")
        job = ("-p", "a red box", "--steps", STEPS, "--cfg-scale", CFG, "--sampler", "euler", "-s", 1)
        size = ("--width", SIZE[0], "--height", SIZE[1], "-o", "result.png")
        words = ["depth2img", "generate", "picture.png", *map(str, (*job, *size, *arguments))]
        monkeypatch.setattr(sys, "argv", words)
        cli.main()
        return list(calls)

    return run


def in_the_webui(host: Host, picture: Image.Image, **fields: Any) -> list[np.ndarray]:
    host.img2img(
        picture, **{"prompt": "a red box", "steps": STEPS, "sampler_name": "Euler", "cfg_scale": CFG, **fields}
    )
    return [np.array(values, np.float32).reshape(shape) for shape, values, _ in host.conditionings()]


def check(ours: list[np.ndarray], theirs: list[np.ndarray], tolerance: float = TOLERANCE, steps: int = STEPS) -> None:
    assert len(ours) == len(theirs) == steps
    for step, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert one.shape == other.shape == (2, 1, SIZE[1] // 8, SIZE[0] // 8)
        assert np.abs(one - other).max() <= tolerance, f"step {step}"


def region(path: Path) -> Image.Image:
    """White on the left, then fading out."""
    row = np.clip(np.linspace(2, -0.5, SIZE[0]), 0, 1) * 255
    image = Image.fromarray(np.tile(row.astype(np.uint8), (SIZE[1], 1)))
    image.save(path)
    return image


def test_img2img(bundled: Host, command: Any, tmp_path: Path) -> None:
    """Strength, start, end, region, neutral depth, guidance and all adjustments, none at its default."""
    picture = photograph("astronaut", *SIZE)
    depth = {
        "strength": 0.65,
        "start": 0.17,
        "end": 0.7,
        "neutral": -0.2,
        "guidance": 2.5,
        "near": 0.9,
        "far": 0.1,
        "gamma": 1.3,
        "blur": 1.0,
        "invert": True,
    }
    image = region(tmp_path / "region.png")
    flags = [word for name, value in depth.items() for word in (f"--{name}", value) if value is not True]
    theirs = in_the_webui(bundled, picture, depth={**depth, "region": to_base64(image)})
    ours = command(picture, *flags, "--invert", "--region", "region.png")
    check(ours, theirs)
    used = [float(np.ptp(step[0])) > 0 for step in ours]
    assert used == [False, False, True, True, True, False]
    assert np.abs(ours[3][0] - ours[3][1]).max() > 0.05  # the unconditional half sees less


@pytest.mark.parametrize("resize_mode", [1, 2])
def test_other_proportions(bundled: Host, command: Any, resize_mode: int) -> None:
    """A picture that is cut or filled up, with depth of the original picture."""
    picture = photograph("coffee", 224, 192)
    names = ("just resize", "crop and resize", "resize and fill")
    theirs = in_the_webui(bundled, picture, depth={"estimate_on": "original"}, resize_mode=resize_mode)
    check(command(picture, "--estimate-on", "original", "--resize-mode", names[resize_mode]), theirs)


@pytest.mark.parametrize("area", ["whole picture", "only masked"])
def test_inpainting(bundled: Host, command: Any, tmp_path: Path, area: str) -> None:
    mask = Image.new("L", SIZE)
    mask.paste(255, (60, 40, 110, 90))
    mask.save(tmp_path / "mask.png")
    picture = photograph("astronaut", *SIZE)
    depth = {"strength": 0.8, "end": 0.7, "under_mask": "fill"}
    flags = ("--strength", 0.8, "--end", 0.7, "--under-mask", "fill", "--mask", "mask.png", "--mask-blur", 3)
    fields = {"mask": mask, "mask_blur": 3, "inpainting_fill": 1, "inpaint_full_res": area == "only masked"}
    theirs = in_the_webui(bundled, picture, depth=depth, inpaint_full_res_padding=16, **fields)
    check(command(picture, *flags, "--inpaint-area", area, "--only-masked-padding", 16), theirs)


def test_an_own_map_to_the_last_bits(bundled: Host, command: Any, tmp_path: Path) -> None:
    """Nothing is estimated: what is left is the rounding of one resize; with a fixed range, in the map's own units."""
    values = np.random.default_rng(3).integers(0, 65536, (64, 96)).astype(np.uint16)
    image = Image.fromarray(values)
    image.save(tmp_path / "map.png")
    picture = photograph("astronaut", *SIZE)
    depth = {"range": "fixed", "range_far": 2000.0, "range_near": 50_000.0}
    theirs = in_the_webui(bundled, picture, depth={**depth, "depth_map": to_base64(image)})
    flags = ("--depth", "map.png", "--range", "fixed", "--range-far", 2000, "--range-near", 50_000)
    check(command(picture, *flags), theirs, tolerance=1e-6)


@pytest.mark.parametrize(("sampler", "name"), [("euler", "Euler"), ("euler a", "Euler a"), ("dpm++ 2m", "DPM++ 2M")])
def test_below_denoising_strength_one(bundled: Host, command: Any, tmp_path: Path, sampler: str, name: str) -> None:
    """As many steps, so that start and end fall on the same ones."""
    image = Image.fromarray(np.random.default_rng(3).integers(0, 65536, (64, 96)).astype(np.uint16))
    image.save(tmp_path / "map.png")
    picture = photograph("astronaut", *SIZE)
    depth = {"start": 0.25, "end": 0.75, "depth_map": to_base64(image)}
    theirs = in_the_webui(bundled, picture, depth=depth, denoising_strength=0.6, sampler_name=name)
    flags = ("--start", 0.25, "--end", 0.75, "--depth", "map.png", "-s", 0.6, "--sampler", sampler)
    ours = command(picture, *flags)
    check(ours, theirs, tolerance=1e-6, steps=4)
    assert [float(np.ptp(step[0])) > 0 for step in ours] == [False, True, True, False]
