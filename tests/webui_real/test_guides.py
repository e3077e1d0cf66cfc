"""The API guide's examples, run against the real WebUI: curl in a shell, and Python."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from host import ROOT, Host
from PIL import Image

from depth2img import read_depth_map
from tools import guides

GUIDE = ROOT / "docs" / "api.md"
ADDRESS = "http://127.0.0.1:7860"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with the picture that the examples send."""
    shutil.copyfile(ROOT / "depth2img" / "embedded" / "sample" / "scene.png", tmp_path / "room.png")
    return tmp_path


def adapted(text: str, host: Host) -> str:
    """An example for this WebUI, with few steps."""
    assert ADDRESS in text
    return text.replace(ADDRESS, host.url).replace('"steps": 20', '"steps": 2').replace("128,\n", '128, "steps": 2,\n')


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(depth_host: Host, here: Path) -> None:
    printed = ""
    for block in guides.blocks(GUIDE, "sh"):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", adapted(block, depth_host)], cwd=here, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        printed += done.stdout
    answer = json.loads((here / "answer.json").read_text())
    assert len(answer["images"]) == 2, answer  # the picture and the appended map
    assert "Depth gamma: 1.2" in json.loads(answer["info"])["infotexts"][0]
    assert '"ready"' in printed and '"strength"' in printed and '"checkpoint"' in printed
    estimated = json.loads((here / "depth.json").read_text())
    assert (estimated["width"], estimated["height"]) != (0, 0)


def test_python(depth_host: Host, here: Path) -> None:
    script = here / "example.py"
    script.write_text(adapted("\n".join(guides.blocks(GUIDE, "python")), depth_host))
    done = subprocess.run([sys.executable, str(script)], cwd=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Depth strength: 0.9" in done.stdout
    with Image.open(here / "result.png") as result, Image.open(here / "preview.png") as preview:
        assert result.size == (128, 128)
        assert np.ptp(np.asarray(preview)) > 0
    depth = read_depth_map(here / "room-depth.png")
    assert depth.bits == 16
