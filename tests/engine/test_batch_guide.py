"""Every command of docs/batch.md runs, on a folder that holds what it names."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import depth2img.batch
from depth2img import DepthMap
from depth2img.batch import Cluster, Order, here
from depth2img.batch.manifest import FIELDS
from depth2img.checkpoints import to_single_file
from depth2img.cli.batch import batch
from depth2img.cli.root import main
from tests.engine import small

GUIDE = Path(__file__).parents[2] / "docs" / "batch.md"
TEXT = GUIDE.read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
OURS = [words[1:] for words in COMMANDS if words[0] == "depth2img"]


def write_inputs(folder: Path) -> None:
    """The folders and manifests that the guide names."""
    for name in ("renders", "masks", "passes"):
        (folder / name).mkdir()
    for seed, name in enumerate(("room", "hall", "stairs")):
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
        Image.fromarray(coarse).resize((96, 64), Image.Resampling.BICUBIC).save(folder / "renders" / f"{name}.png")
        DepthMap(np.random.default_rng(seed).random((32, 48), np.float32)).save(folder / "passes" / f"{name}.png")
    mask = Image.new("L", (96, 64))
    mask.paste(255, (20, 10, 70, 50))
    mask.save(folder / "masks" / "hall.png")
    [table] = re.findall(r"^```csv\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    (folder / "jobs.csv").write_text(table)
    (folder / "jobs.jsonl").write_text('{"picture": "renders/room.png", "gamma": 1.2}\n')


@pytest.fixture
def clusters(monkeypatch: pytest.MonkeyPatch) -> list[Cluster]:
    """Record the runs meant for Ray, which test_ray.py starts."""
    asked: list[Cluster] = []

    def on_ray(cluster: Cluster, order: Order, groups: Sequence[Any]) -> Any:
        asked.append(cluster)
        return here(order, groups)

    monkeypatch.setattr(depth2img.batch, "on_ray", on_ray)
    return asked


def test_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clusters: list[Cluster]) -> None:
    write_inputs(tmp_path)
    to_single_file(small.model(midas=False), tmp_path / "small.safetensors")
    monkeypatch.chdir(tmp_path)
    assert len(OURS) >= 10
    for words in OURS:
        if any(word.startswith("/mnt/") for word in words[:3]):  # on the reader's cluster; here it has to be understood
            batch.make_context("batch", words[1:])
            continue
        if "skip" in words:
            Path("passes/stairs.png").unlink()
        monkeypatch.setattr(
            sys, "argv", ["depth2img", *words, "--steps", "1", "--threads", "1", "-m", "small.safetensors"]
        )
        main()
    assert [cluster.address for cluster in clusters] == ["local", "auto"]
    assert clusters[1].gpus == 0.5 and clusters[1].workers == 8
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("results-csv/**/*.png")}
    assert made == {"results-csv/night.png", "results-csv/day.png", "results-csv/renders/hall.png"}


def test_ray_s_own_commands_are_ray_s() -> None:
    scripts = pytest.importorskip("ray.scripts.scripts", reason="Ray is not installed")
    theirs = [words for words in COMMANDS if words[0] == "ray"]
    assert theirs
    for words in theirs:
        scripts.cli.commands[words[1]].make_context(words[1], words[2:])


def test_nothing_else_is_a_command() -> None:
    assert {words[0] for words in COMMANDS if words} == {"depth2img", "ray", "pip"}


def test_fields_and_flags_of_the_guide_exist() -> None:
    table = TEXT[TEXT.index("| field |") : TEXT.index("A field that a row omits")]
    assert set(re.findall(r"`(\w+)`", table)) <= set(FIELDS)
    known = {name for parameter in batch.params for name in parameter.opts}
    own = re.sub(r"^(ray|pip) .*$", "", TEXT, flags=re.MULTILINE)
    assert set(re.findall(r"(--[a-z][a-z-]+)", own)) <= known
