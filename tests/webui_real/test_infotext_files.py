"""The WebUI reads what the standalone engine writes into its pictures."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from host import Host
from PIL import Image

from depth2img import DepthOptions
from depth2img.diffusion.infotext import infotext
from depth2img.diffusion.settings import Settings
from depth2img.io.saving import save_picture


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_png_info(host: Host, astronaut: Image.Image, tmp_path: Path, suffix: str) -> None:
    settings = Settings(prompt="ein roter Würfel, blue: floor", negative_prompt="grey", seed=7, sampler="euler a")
    options = DepthOptions(gamma=2.0, source="map", depth_map="x", estimator="a, b: c")
    text = infotext(settings, options, size=(192, 128), cfg_scale=7.0, model="tiny", fidelity=0.25)
    save_picture(astronaut, tmp_path / f"a{suffix}", infotext=text)
    image = base64.b64encode((tmp_path / f"a{suffix}").read_bytes()).decode()
    read = host.post("/sdapi/v1/png-info", image=image)
    assert read["info"] == text
    expected = {
        "Prompt": settings.prompt,
        "Negative prompt": "grey",
        "Seed": "7",
        "Sampler": "Euler a",
        "Depth gamma": "2.0",
        "Depth from": "map",
        "Depth estimator": "a, b: c",
        "Depth fidelity": "0.250",
    }
    assert {key: read["parameters"].get(key) for key in expected} == expected
