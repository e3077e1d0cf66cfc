"""Jobs at denoising strength 1 that run through other extensions: the structure is kept. Needs EXTENSIONS_DIR.

That folder holds checkouts by their repositories' names; a test whose extension is not there is skipped. All that are
there are loaded at once.
"""

from __future__ import annotations

import base64
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import hosted
from host import Host, Result, to_base64
from judge import FIELDS, SIDE, kept, sample, scene
from PIL import Image

FOLDER = Path(os.environ.get("EXTENSIONS_DIR", "/nowhere"))
UPSCALE = "ultimate-upscale-for-automatic1111"
TILED = "multidiffusion-upscaler-for-automatic1111"
THRESHOLDING = "sd-dynamic-thresholding"
NEUTRAL = "sd-webui-neutral-prompt"
CUTOFF = "sd-webui-cutoff"
REGIONAL = "sd-webui-regional-prompter"
SCHEDULER = "sd-webui-agent-scheduler"
THERE = tuple(
    name for name in (UPSCALE, TILED, THRESHOLDING, NEUTRAL, CUTOFF, REGIONAL, SCHEDULER) if (FOLDER / name).is_dir()
)

OTHER = sample().prompts["other"]
REPAINTED = sample().prompts["repainted"]

KEPT = 0.5
"""Structure above this is kept, as in test_bundled.py; the least is 0.58, of tiles at twice the model's size."""

ADDED = 0.1
"""At least this is less without depth, with the seed of these tests: a single picture of the same kind of scene has
some structure in common with it."""


def needs(*names: str) -> Any:
    """Skip a test whose extensions are not there."""
    missing = [name for name in names if name not in THERE]
    return pytest.mark.skipif(
        bool(missing), reason=f"needs a checkout of {', '.join(missing)} in the folder EXTENSIONS_DIR"
    )


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with hosted(tmp_path_factory.mktemp("beside"), beside=THERE) as started:
        yield started


def made(host: Host, depth: dict[str, Any], others: dict[str, Any] | None = None, **fields: Any) -> Result:
    """A job on the scene that also runs through other extensions; each picture at the scene's size."""
    both = {"depth to image": {"args": [depth]}, **(others or {})}
    fields = {**FIELDS, "prompt": OTHER, "sampler_name": "Euler", **fields}
    result = host.img2img(scene(), alwayson_scripts=both, **fields)
    result.images = [picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS) for picture in result.images]
    return result


def judged(host: Host, others: dict[str, Any] | None = None, *, told: str = "", **fields: Any) -> Result:
    """Check that a job keeps the structure through depth, and that the other extension names itself in the infotext."""
    on, off = (made(host, depth, others, **fields) for depth in ({}, {"enabled": False}))
    scores = kept(on.images[0]), kept(off.images[0])
    assert told in on.infotexts[0]
    assert scores[0] > KEPT and scores[0] - scores[1] > ADDED, scores
    return on


@needs(UPSCALE)
@pytest.mark.parametrize("redraw", [0, 1], ids=["linear", "chess"])
def test_ultimate_sd_upscale(beside: Host, redraw: int) -> None:
    """Its tiles are jobs of their own."""
    args = [None, SIDE, SIDE, 8, 16, 64, 0.35, 32, 0, False, redraw, False, 8, 0, 2, 256, 256, 2]
    judged(beside, script_name="ultimate sd upscale", script_args=args, told="Ultimate SD upscale")


@needs(TILED)
@pytest.mark.parametrize("method", ["MultiDiffusion", "Mixture of Diffusers"])
def test_tiled_diffusion(beside: Host, method: str) -> None:
    """It cuts latent and conditioning into the tiles of each step; here four and more of the model's own size."""
    args = [True, method, False, False, 1024, 1024, 16, 16, 8, 4]
    judged(beside, {"Tiled Diffusion": {"args": args}}, width=2 * SIDE, height=2 * SIDE, told="Tiled Diffusion")


@needs(THRESHOLDING)
@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M"])
def test_dynamic_thresholding(beside: Host, sampler: str) -> None:
    """It puts another denoiser in the host's place."""
    others = {"Dynamic Thresholding (CFG Scale Fix)": {"args": [True, 4.0]}}
    judged(beside, others, sampler_name=sampler, told="Dynamic thresholding enabled: True")


@needs(THRESHOLDING)
def test_schedule_through_another_denoiser(beside: Host) -> None:
    """Strength 0 is as without depth."""
    others = {"Dynamic Thresholding (CFG Scale Fix)": {"args": [True, 4.0]}}
    weak, off = (made(beside, depth, others) for depth in ({"strength": 0.0}, {"enabled": False}))
    assert weak.images[0].tobytes() == off.images[0].tobytes()


@needs(NEUTRAL)
@pytest.mark.parametrize("word", ["AND_PERP", "AND_TOPK", "AND_SALT"])
def test_neutral_prompt(beside: Host, word: str) -> None:
    """Its prompts have several parts, and a step as many rows."""
    plain = made(beside, {})
    result = judged(beside, prompt=f"{OTHER} {word} {REPAINTED} :0.5")
    assert result.images[0].tobytes() != plain.images[0].tobytes()


@needs(CUTOFF)
def test_cutoff(beside: Host) -> None:
    others = {"Cutoff": {"args": [True, "red, blue", 1.0]}}
    judged(beside, others, prompt=f"red cube, blue floor, {OTHER}", told="Cutoff")


@needs(REGIONAL)
@pytest.mark.parametrize("calculation", ["Attention", "Latent"])
def test_regional_prompter(beside: Host, calculation: str) -> None:
    args = [True, False, "Matrix", "Columns", "Mask", "Prompt", "1,1", "0.2", False, False, False, calculation]
    args += [[], "0", "0", "0.4", "", "0", "0", False]
    others = {"Regional Prompter": {"args": args}}
    judged(beside, others, prompt=f"{OTHER} BREAK {REPAINTED}", told="RP Active: True")


@needs(SCHEDULER)
def test_agent_scheduler(beside: Host) -> None:
    """A queued job is the job that was sent."""
    fields: dict[str, Any] = {**FIELDS, "prompt": OTHER, "sampler_name": "Euler", "denoising_strength": 1.0}
    fields |= {"init_images": [to_base64(scene())], "alwayson_scripts": {"depth to image": {"args": [{"gamma": 1.5}]}}}
    task = beside.post("/agent-scheduler/v1/queue/img2img", **fields)["task_id"]
    until = time.monotonic() + 240
    while time.monotonic() < until:
        found = beside.get(f"/agent-scheduler/v1/task/{task}")["data"]
        if found["status"] not in ("pending", "running"):
            break
        time.sleep(0.5)
    assert found["status"] == "done"
    (done,) = beside.get(f"/agent-scheduler/v1/task/{task}/results")["data"]
    assert "Depth gamma: 1.5" in done["infotext"]
    picture = Image.open(io.BytesIO(base64.b64decode(done["image"].rpartition(",")[2])))
    assert kept(picture.convert("RGB")) > KEPT
