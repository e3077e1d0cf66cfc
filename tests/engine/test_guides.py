"""Every command of the guides runs, in a folder that holds the files they name."""

from __future__ import annotations

import glob
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from depth2img import DepthMap, read_depth_map
from depth2img.checkpoints import to_single_file
from depth2img.checkpoints.conversion import convert_model
from depth2img.cli.root import app, main
from depth2img.diffusion import find
from depth2img.io.saving import save_picture
from tests.engine import small
from tools import gallery, guides

pytest.importorskip("gradio", reason="the extra 'app' is not installed")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # gradio 3.41 on newer packages
    from depth2img.gui import app as page

ROOT = Path(__file__).parents[2]
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
HERE = [guide for guide in GUIDES if guides.commands(guide) and guide.name not in ("batch.md", "maps.md")]
"""The others have test files of their own."""
PHOTOGRAPHS = ("photo", "portrait", "street", "group", "pose", "large")
"""Pictures that the guides call by these names, with the suffix .jpg."""

ELSEWHERE = {
    "curl": "tests/webui_real/test_guides.py",
    "$WEBUI_PYTHON": "run by hand: it installs into the host's environment",
    "PYTHONPATH=/tmp/host-tests:$WEBUI_DIR/repositories/stable-diffusion-stability-ai": "the same",
}
"""First word of a command -> where it is run, if not here."""

PARSED = {
    "--estimator": "test_depth_models.py",
    "--lora-dir": "test_lora.py",
    "--embeddings-dir": "test_lora.py",
    "<lora:clay:0.8>": "test_lora.py",
    "--from": "test_repeat.py",
    "last.ckpt": "test_trained.py",
    "checkpoint-500": "test_trained.py",
    "unet.safetensors": "test_trained.py",
}
"""Argument of a command that wants files of the reader's -> the test file that runs it; here it is only parsed."""

FEW_STEPS = ("generate", "compare")


def _shape(seed: int, width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the commands' files: pictures, masks, maps, a small random model under the names of the real one."""
    folder = tmp_path_factory.mktemp("files")
    gallery.write_inputs(folder)
    for seed, name in enumerate(PHOTOGRAPHS):
        _shape(seed, 160, 128).save(folder / f"{name}.jpg")
    for seed, name in enumerate(("a", "b", "render")):
        _shape(seed, 128, 160).save(folder / f"{name}.png")
    infotext = "a cube\nSteps: 4, Sampler: Euler, Seed: 1"
    save_picture(np.asarray(_shape(7, 64, 64)), folder / "00012-1234.png", infotext=infotext)
    mask = Image.new("L", (160, 128))
    mask.paste(255, (40, 30, 100, 90))
    mask.save(folder / "mask.png")
    slope = np.linspace(0.1, 2.0, 128 * 160, dtype=np.float32).reshape(128, 160)
    for name in ("own-map", "render-depth", "render-z"):
        DepthMap(slope).save(folder / f"{name}.png")
    one_file = folder / "512-depth-ema.safetensors"
    to_single_file(small.model(midas=True), one_file)
    torch.save({"state_dict": load_file(one_file)}, one_file.with_suffix(".ckpt"))
    for name in ("stable-diffusion-2-depth", "my-fine-tuning"):
        convert_model(find(str(one_file)), folder / name, None)
    prefix = "depth_model.model."
    midas = {key[len(prefix) :]: value for key, value in load_file(one_file).items() if key.startswith(prefix)}
    torch.save(midas, folder / "dpt_hybrid-midas-501f0c75.pt")
    (folder / "stable-diffusion-webui" / "models" / "Stable-diffusion").mkdir(parents=True)
    return folder


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Instead of serving a page for ever."""
    calls: list[Any] = []
    monkeypatch.setattr(page, "serve", lambda *arguments, **named: calls.append((arguments, named)))
    return calls


def _expanded(words: list[str]) -> Iterator[str]:
    for word in words:
        found = sorted(glob.glob(word)) if "*" in word else []
        yield from found or [word]


def _run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = list(_expanded(words[1:]))
    if "convert" in arguments[:2]:
        _remove(Path(arguments[arguments.index("convert") + 2]))
    if arguments[0] in FEW_STEPS and "--steps" not in arguments:
        arguments += ["--steps", "2"]
    if not PARSED.keys().isdisjoint(arguments) or (
        arguments[0] in ("batch", "checkpoint", "estimator") and arguments[1] != "convert"
    ):
        # These want a cluster, the network or a full-size model: tests of their own run them (test_batch_guide.py,
        # test_cli.py, test_fetch.py, test_merge.py).
        command: click.Command = app
        while isinstance(command, click.Group):
            command = command.commands[arguments.pop(0)]
        command.make_context(command.name, arguments)
        return
    monkeypatch.setattr(sys, "argv", ["depth2img", *arguments])
    main()


def _remove(path: Path) -> None:
    """Remove the target of a conversion, which must not exist yet."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("guide", HERE, ids=lambda path: path.name)
def test_commands_run(guide: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    shutil.copytree(files, here)
    monkeypatch.chdir(here)
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    extras = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE))
    for words in guides.commands(guide):
        if words[0] == "depth2img":
            _run(words, monkeypatch)
        elif words[0] == "make":
            assert words[1] in targets, words
        elif words[0] == "mkdir":
            for name in words[1:]:
                Path(name).mkdir()
        elif words[:2] == ["pip", "install"]:
            named = re.search(r"\[([\w,]+)\]", " ".join(words))
            assert named is None or set(named[1].split(",")) <= extras, words
        elif words[:2] == ["python", "-m"]:
            assert (ROOT / words[2].replace(".", "/")).with_suffix(".py").exists(), words
        else:
            assert words[0] in ELSEWHERE, f"{guide.name}: no test runs {words}"


def test_gallery_pictures_are_made_by_its_commands() -> None:
    """Each picture that the gallery shows is an input or the output of one of its commands."""
    text = gallery.GUIDE.read_text(encoding="utf-8")
    shown = {Path(name).name for name in re.findall(r"pictures/gallery/[\w-]+\.png", text)}
    made = {"room.png", "room-mask.png", *(f"{name}.png" for name in gallery.RENDERED)}
    for words in guides.commands(gallery.GUIDE):
        output = Path(words[words.index("-o") + 1])
        made.add(output.name)
        if "--colour-map" in words:
            made.add(f"{output.stem}-{words[words.index('--colour-map') + 1]}.png")
    assert shown <= made
    assert len(shown) > 15


def test_every_command_of_the_program_is_in_a_guide() -> None:
    shown = {words[1] for guide in GUIDES for words in guides.commands(guide) if words[0] == "depth2img"}
    assert set(app.commands) <= shown


def test_python_in_the_guides_is_python() -> None:
    for guide in GUIDES:
        for block in guides.blocks(guide, "python"):
            if not block.startswith(" "):  # a fragment of a class body in CONTRIBUTING.md
                compile(block, str(guide), "exec")


@pytest.mark.parametrize("name", ["README.md", "docs/standalone.md"])
def test_python_in_the_guides_runs_as_pasted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the bundled model, in a folder that holds nothing but the picture they name; not square."""
    monkeypatch.chdir(tmp_path)
    _shape(3, 160, 128).save("room.png")
    blocks = guides.blocks(ROOT / name, "python")
    assert blocks
    for block in blocks:
        said: dict[str, Any] = {}
        exec(compile(block, name, "exec"), said)
        if "result" in said:
            assert said["result"].picture.shape == (128, 160, 3) and said["result"].picture.std() > 1
            assert tuple(said["result"].conditioning.shape) == (1, 1, 16, 20)
        if "tensor" in said:
            assert tuple(said["tensor"].shape) == (1, 1, 16, 16) and float(said["tensor"].std()) > 0
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"room.png", *({"night.png", "depth.png"} if name == "README.md" else {"room-depth.png"})}
    for depth in written - {"room.png", "night.png"}:
        assert read_depth_map(tmp_path / depth).bits == 16


def test_options_in_the_recipes_exist() -> None:
    """Every bold label in the recipes is one of the panel's, or the host's."""
    from depth2img.options import OPTIONS

    host = {"Denoising strength 1", "and"}
    labels = {option.label for option in OPTIONS.values()} | host
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    named = [name for name in re.findall(r"\*\*([^*]+)\*\*", text) if not re.match(r"(Repair|Replace|Remove)$", name)]
    assert named
    assert set(named) <= labels
