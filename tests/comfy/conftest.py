"""The real ComfyUI, once for all tests that ask for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.comfy.server import Server, png, serving
from tests.webui_real.judge import sample

TREE, PYTHON = os.environ.get("COMFYUI_DIR", ""), os.environ.get("COMFYUI_PYTHON", "")
MISSING = "needs COMFYUI_DIR, a ComfyUI, and COMFYUI_PYTHON, the Python with its requirements and requirements.txt"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its input folder holds the sample scene, as `example.png` with the sample's mask in its transparency, too."""
    if not (TREE and PYTHON):
        pytest.skip(MISSING)
    base = tmp_path_factory.mktemp("comfyui")
    with serving(Path(TREE), PYTHON, base, nodes=(Path(__file__).parent / "probe",)) as running:
        one = sample()
        running.upload("scene.png", one.picture)
        running.upload("mirrored.png", one.picture[:, ::-1].copy())
        running.upload("mask.png", one.mask)
        running.upload("depth.png", one.depth.to_png())
        running.upload("example.png", png_with_mask())
        yield running


def png_with_mask() -> bytes:
    """Make the sample scene with its mask transparent, as ComfyUI's mask editor stores it."""
    one = sample()
    return png(np.dstack([one.picture, 255 - one.mask[..., 0]]))
