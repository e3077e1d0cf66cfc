"""`depth2img generate --from`: the picture that the real WebUI made, once more on the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import photograph
from host import Host
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from depth2img.cli import root as cli
from depth2img.io.saving import read_infotext

SAMPLERS = ["Euler", "DPM++ 2M", "DDIM", "Euler a", "Heun"]
SIZE = (192, 128)

TOLERANCE = 2
"""Of 255. The same noise, levels and steps; float32 by other code (ldm in torch 2.1, diffusers in another torch), which
20 steps add up: measured 1 for every sampler."""

JOB: dict[str, Any] = {
    "prompt": "a (red:1.3) box and a [green:yellow:0.5] ball, on a blue floor",
    "negative_prompt": "night",
    "steps": 20,
    "cfg_scale": 4.5,
    "seed": 1234,
    "depth": {"gamma": 1.2, "strength": 0.9},
    "override_settings": {"randn_source": "CPU"},
}

MEAN = """
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution as Posterior
Posterior.drawn = getattr(Posterior, "drawn", Posterior.sample)
Posterior.sample = Posterior.mode if {on!r} else Posterior.drawn
"""
"""The WebUI draws from the autoencoder's distribution without a seed, so that no two of its own pictures are equal
below denoising strength 1; here it takes the mean, as the engine does."""


def repeated(monkeypatch: pytest.MonkeyPatch, folder: Path, made: Any, source: Image.Image, *more: str) -> Image.Image:
    """Save the WebUI's result and its source, and run the command on them."""
    monkeypatch.chdir(folder)
    notes = PngInfo()
    notes.add_text("parameters", made.infotexts[0])
    made.images[0].save(folder / "made.png", pnginfo=notes)
    source.save(folder / "source.png")
    words = ["depth2img", "generate", "source.png", "--from", "made.png", "-o", "again.png", *more]
    monkeypatch.setattr(sys, "argv", words)
    cli.main()
    return Image.open(folder / "again.png")


def apart(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(one.convert("RGB"), int) - np.asarray(other.convert("RGB"), int)).max())


@pytest.fixture
def mean(bundled: Host) -> Iterator[Host]:
    bundled.run(MEAN.format(on=True))
    yield bundled
    bundled.run(MEAN.format(on=False))


@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_picture(
    mean: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, record_property: Any, sampler: str, strength: float
) -> None:
    source = photograph("astronaut", *SIZE)
    fields = {**JOB, "sampler_name": sampler, "denoising_strength": strength}
    made = mean.img2img(source, **fields)
    assert "RNG: CPU" in made.infotexts[0]
    again = repeated(monkeypatch, tmp_path, made, source)
    most = apart(made.images[0], again)
    record_property("largest difference of 255", most)
    assert most <= TOLERANCE
    other = repeated(monkeypatch, tmp_path, made, source, "--seed", "1235")
    assert apart(made.images[0], other) > 20, "a flag overrides what the infotext says"


def test_our_infotext_is_the_webuis(mean: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ours, pasted into the WebUI, gives the picture back."""
    source = photograph("astronaut", *SIZE)
    made = mean.img2img(source, steps=8, override_settings={"randn_source": "CPU"}, sampler_name="DPM++ 2M")
    again = repeated(monkeypatch, tmp_path, made, source)
    text = read_infotext(tmp_path / "again.png")
    for key in ("Steps: 8", "Sampler: DPM++ 2M", "Schedule type: Karras", "Seed: 11", "RNG: CPU", "Size: 192x128"):
        assert key in text and key in made.infotexts[0]
    fields = {"steps": 8, "sampler_name": "DPM++ 2M", "override_settings": {"randn_source": "CPU"}}
    back = mean.img2img(source, infotext=text, **fields)
    assert apart(back.images[0], again) <= TOLERANCE


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M", "DDIM"])
def test_the_webuis_own_spread(bundled: Host, record_property: Any, sampler: str) -> None:
    """Measure its draw, for comparison: two of its own of one job, after different jobs before it."""
    source = photograph("astronaut", *SIZE)
    fields = {**JOB, "sampler_name": sampler, "denoising_strength": 0.6}
    made = []
    for before in (1, 2):
        bundled.run(f"torch.manual_seed({before})")  # as a job does that ran before
        made.append(bundled.img2img(source, **fields).images[0])
    most = apart(*made)
    record_property("the WebUI's own two pictures, of 255", most)
    assert most > 0, "then the mean would not be needed"
