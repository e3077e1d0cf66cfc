"""ADetailer's own pass over a face, for which it does not ask the extension. Needs its checkout in EXTENSIONS_DIR.

Its model `mediapipe_face_full` comes with mediapipe. The VAE of a random checkpoint leaves no face to find, so the
bundled model works here, at a low denoising strength.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host import Host, Result, running, to_base64
from PIL import Image

from depth2img import embedded

pytestmark = pytest.mark.skipif(
    not Path(os.environ.get("EXTENSIONS_DIR", "/nowhere"), "adetailer").is_dir(),
    reason="needs a checkout of ADetailer: set EXTENSIONS_DIR to the folder that holds it",
)


@pytest.fixture(scope="module")
def detailed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("adetailer")
    (folder / "checkpoints").mkdir()
    embedded.install(folder / "checkpoints" / "depth2img-tiny.safetensors")
    with running(
        folder / "data",
        checkpoints=folder / "checkpoints",
        checkpoint="depth2img-tiny.safetensors",
        beside=("adetailer",),
    ) as host:
        yield host


@pytest.fixture(scope="module")
def face() -> Image.Image:
    import skimage

    picture = Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png").convert("RGB")
    return picture.crop((120, 30, 330, 240)).resize((512, 512))


def detail(host: Host, face: Image.Image, depth: dict[str, Any]) -> tuple[Result, list[np.ndarray]]:
    """The result of a job, and the conditioning (rows, 1, h, w) of the steps of ADetailer's pass."""
    host.run("probe.clear()")
    args = [True, False, {"ad_model": "mediapipe_face_full", "ad_confidence": 0.1}]
    scripts = {"ADetailer": {"args": args}, "depth to image": {"args": [depth]}}
    fields = {"width": 512, "height": 512, "steps": 4, "denoising_strength": 0.05, "alwayson_scripts": scripts}
    result = host.img2img(face, **fields)
    assert "ADetailer model: mediapipe_face_full" in result.infotexts[0]
    steps = [np.array(values, np.float32).reshape(shape) for shape, values, _ in host.conditionings()]
    own = len(re.findall("mediapipe: 1 detected", host.log.read_text(errors="replace")))
    assert own > 0
    return result, steps[1:]  # denoising strength 0.05 of four steps is one


def test_the_pass_has_depth(detailed: Host, face: Image.Image) -> None:
    _, steps = detail(detailed, face, {})
    assert len(steps) > 1
    for step in steps:
        assert step.shape == (2, 1, 64, 64) and np.ptp(step) > 0.5


def test_the_pass_takes_over_schedule_and_own_map(detailed: Host, face: Image.Image) -> None:
    """Its box lies inside the picture: the map's part, and half of it in strength."""
    across = Image.fromarray(np.tile(np.linspace(0, 65535, 512).round().astype(np.uint16), (512, 1)))
    result, steps = detail(detailed, face, {"depth_map": to_base64(across), "strength": 0.5})
    row = steps[0][0, 0, 32]
    assert (np.diff(row) > 0).all() and -0.5 < row[0] < row[-1] < 0.5
    assert "Depth strength: 0.5" in result.infotexts[0]


def test_the_pass_of_a_job_without_depth_has_none(detailed: Host, face: Image.Image) -> None:
    _, steps = detail(detailed, face, {"enabled": False})
    assert steps and not any(step.any() for step in steps)
