"""`depth2img view`: what is written, from which depth, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "depth2img" / "embedded" / "sample"


def view(folder, *arguments, **environment):
    command = [sys.executable, "-c", "from depth2img.cli import main; main()", "view", *map(str, arguments)]
    given = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]), **environment}
    return subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, check=False)


def test_the_suffix_says_what_is_written(tmp_path):
    done = view(tmp_path, SAMPLE / "scene.png", "--depth", SAMPLE / "depth.png", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    file = tmp_path / "scene-view.html"
    assert told["file"] == "scene-view.html" and told["bytes"] == file.stat().st_size < 100_000
    assert "<title>scene</title>" in file.read_text(encoding="utf8")
    for name, size in (("pair.png", (256, 128)), ("loop.gif", (128, 128))):
        done = view(tmp_path, SAMPLE / "scene.png", "--depth", SAMPLE / "depth.png", "-o", name)
        assert done.returncode == 0, done.stderr
        with Image.open(tmp_path / name) as image:
            assert image.size == size


def test_options_reach_what_is_written(tmp_path):
    depth = SAMPLE / "depth.png"
    texts = []
    for flags in ([], ["--invert"], ["--movement", "2", "--focus", "0.25", "--title", "<b>"]):
        done = view(tmp_path, SAMPLE / "scene.png", "--depth", depth, "-o", "view.html", *flags)
        assert done.returncode == 0, done.stderr
        texts.append((tmp_path / "view.html").read_text(encoding="utf8"))
    assert texts[0] != texts[1]
    assert 'data-movement="2" data-focus="0.25"' in texts[2] and "<title>&lt;b&gt;</title>" in texts[2]
    pairs = []
    for kind in ("side-by-side", "cross-eyed", "anaglyph"):
        done = view(tmp_path, SAMPLE / "scene.png", "--depth", depth, "-o", "pair.png", "--stereo", kind)
        assert done.returncode == 0, done.stderr
        with Image.open(tmp_path / "pair.png") as image:
            pairs.append(np.asarray(image.convert("RGB")))
    assert np.array_equal(pairs[0][:, :128], pairs[1][:, 128:]) and not np.array_equal(pairs[0], pairs[1])
    assert np.array_equal(pairs[2][:, :, 0], pairs[0][:, :128, 0])


def test_without_a_map_depth_is_estimated(tmp_path):
    done = view(tmp_path, SAMPLE / "scene.png", "-o", "estimated.png")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "estimated.png") as image:
        pair = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(pair[:, :128] - pair[:, 128:]).mean() > 1


def test_a_map_of_other_proportions_is_cropped_and_told(tmp_path):
    wide = np.repeat(np.linspace(0, 65535, 256).astype(np.uint16)[None], 64, axis=0)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    done = view(tmp_path, SAMPLE / "scene.png", "--depth", tmp_path / "wide.png")
    assert done.returncode == 0 and "other proportions" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["scene.png", "-o", "view.txt"], "A view is written as .html"),
        (["scene.png", "-o", "missing/view.html"], "There is no folder"),
        (["scene.png", "-o", "scene.png"], "would overwrite"),
        (["none.png"], "none.png"),
        (["scene.png", "--movement", "3"], "3"),
        (["scene.png", "--depth", "scene.html"], "scene.html"),
    ],
)
def test_what_is_refused(tmp_path, arguments, sentence):
    (tmp_path / "scene.png").write_bytes((SAMPLE / "scene.png").read_bytes())
    done = view(tmp_path, *arguments)
    assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["scene.png"]


def test_a_missing_package_is_named(tmp_path):
    (tmp_path / "av.py").write_text("raise ModuleNotFoundError('No module named av', name='av')")
    done = view(
        tmp_path,
        SAMPLE / "scene.png",
        "--depth",
        SAMPLE / "depth.png",
        "-o",
        "loop.mp4",
        PYTHONPATH=f"{tmp_path}:{ROOT}",
    )
    assert done.returncode == 2 and "sd-webui-depth2img[film]" in done.stderr
    assert not (tmp_path / "loop.mp4").exists()
