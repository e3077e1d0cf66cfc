"""Every command of docs/maps.md runs, on files made as the programs it names make them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import pillow_heif
import pytest
from PIL import Image

from depth2img import DepthMap, read_depth_map
from depth2img.checkpoints import to_single_file
from depth2img.cli.adjust import adjust_command
from depth2img.cli.root import generate
from depth2img.depth.readers import colours
from depth2img.diffusion import Engine
from tests.engine import small
from tests.engine.conftest import Run
from tests.library.test_phone import gdepth

GUIDE = Path(__file__).parents[2] / "docs" / "maps.md"
TEXT = GUIDE.read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]

ROWS, COLUMNS = np.mgrid[0:64, 0:96].astype(np.float32)
METRES = 2 + (63 - ROWS) / 8 - 0.01 * COLUMNS
"""Nearer below and to the right, 1 to 10 m."""
NEAR = ((1 / METRES - (1 / METRES).min()) / np.ptp(1 / METRES)).astype(np.float32)


def exr(name: str, **channels: np.ndarray) -> None:
    layers = {layer.replace("__", "."): values.astype(np.float32) for layer, values in channels.items()}
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, layers).write(name)


def write_files() -> None:
    """Write the files that the guide names into the current folder."""
    grey = np.zeros_like(METRES)
    sky = np.where(ROWS < 6, 1e10, METRES)
    exr("room.exr", Z=sky)
    depths = {"ViewLayer__Depth__Z": METRES, "Other__Depth__Z": grey}
    exr("layers.exr", **depths, **{f"ViewLayer__Combined__{one}": grey for one in "RGBA"})
    exr("mist.exr", Y=METRES)
    world = {f"FinalImageWorldDepth__{one}": METRES * 100 * (one == "R") for one in "RGBA"}
    exr("unreal.exr", R=grey, G=grey, B=grey, **world)
    cv2.imwrite("mist.png", (255 * (1 - NEAR)).astype(np.uint8))
    cv2.imwrite("unity.png", (METRES / 20 * 65535).astype(np.uint16))
    packed = (METRES / 1000 * (2**24 - 1)).astype(np.uint32)
    cv2.imwrite("carla.png", np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=2).astype(np.uint8))
    holes = np.random.default_rng(3).random(METRES.shape) < 0.3
    millimetres = np.where(holes, 0, METRES * 1000).astype(np.uint16)
    cv2.imwrite("realsense.png", millimetres)
    stray = np.random.default_rng(4).random(METRES.shape) < 0.01
    cv2.imwrite("outliers.png", np.where(stray, 5, METRES * 1000).astype(np.uint16))
    Path("midas.pfm").write_bytes(b"Pf\n96 64\n-1.0\n" + NEAR[::-1].astype("<f4").tobytes())
    table = np.round(colours.tables()["spectral"]).astype(np.uint8)
    Image.fromarray(table[(255 * NEAR).astype(np.uint8)]).save("depth-anything.png")
    np.savez_compressed("zoe.npz", depth=METRES[None])
    np.save("marigold.npy", 1 - NEAR)
    Path("portrait.jpg").write_bytes(gdepth((255 * (1 - NEAR)).astype(np.uint8)))
    portrait = Image.fromarray(np.stack([COLUMNS * 2, ROWS * 3, ROWS], axis=2).astype(np.uint8))
    portrait.save("room.png")
    portrait.putalpha(Image.fromarray((255 * NEAR).astype(np.uint8)))
    pillow_heif.from_pillow(portrait).save("portrait.heic", quality=95)
    content = Path("portrait.heic").read_bytes()
    Path("portrait.heic").write_bytes(content.replace(b"2015:auxid:1", b"2015:auxid:2"))
    for folder in ("frames", "passes"):
        Path(folder).mkdir()
    for number in (1, 2):
        portrait.convert("RGB").save(f"frames/render{number:04}.png")
        Path(f"passes/Depth{number:04}.exr").write_bytes(Path("room.exr").read_bytes())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_files()
    return tmp_path


def agreement(depth: DepthMap) -> float:
    return float(np.corrcoef(depth.values.ravel(), NEAR.ravel())[0, 1])


def test_commands_run(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    to_single_file(small.model(midas=False), folder / "small.safetensors")
    engine = Engine.open("small.safetensors")
    monkeypatch.setattr(Engine, "open", lambda *_, **__: engine)  # one for all commands: to open it takes seconds
    assert len(COMMANDS) >= 15
    for words in COMMANDS:
        model = [] if words[1] == "adjust" else ["-m", "small.safetensors", "--steps", "1"]
        done = run(*words[1:], *model)
        assert done.code == 0, done.err
        assert not re.search("seem", done.err), f"{words}: {done.err}"
    assert read_depth_map(Path("room-depth.png")).bits == 16
    assert {path.name for path in Path("lit").glob("*.png")} == {"render0001.png", "render0002.png"}


@pytest.mark.parametrize("words", [words for words in COMMANDS if "--depth" in words], ids=lambda words: words[6])
def test_each_map_is_the_scene_s(words: list[str], folder: Path, run: Run) -> None:
    """Write by `adjust` the map that `generate` is told to use."""
    source = words[words.index("--depth") + 1]
    rest = words[words.index("--depth") + 2 :]
    done = run("adjust", source, "-o", "made.png", *rest, "--json")
    assert done.code == 0, done.err
    # Through HEVC, 8 bits or a third of holes; a sky of one distance in room.exr. Of outliers 1 % remain, as nearest.
    assert agreement(read_depth_map(Path("made.png"))) > (0.9 if source == "outliers.png" else 0.98)
    assert done.json()["maps"][0]["files"] == ["made.png"]


def test_flags_of_the_guide_exist() -> None:
    known = {name for command in (generate, adjust_command) for parameter in command.params for name in parameter.opts}
    assert set(re.findall(r"(--[a-z][a-z-]+)", TEXT)) <= known | {"--depth-folder", "--depth-ending"}
    assert {words[0] for words in COMMANDS} == {"depth2img"}
