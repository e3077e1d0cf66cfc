"""Jobs that are read back from infotexts, and repeated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from depth2img import OptionError, Settings
from depth2img.diffusion.repeat import read_job
from depth2img.io.saving import read_infotext, save_picture
from tests.engine.conftest import Run

WEBUI = """a (red:1.2) cube, <lora:x:1>
second line
Negative prompt: blue, b
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5.5, Seed: 123, Size: 192x128, Model hash: 1234567890, \
Model: tiny, Denoising strength: 0.6, RNG: CPU, Depth gamma: 1.2, Lora hashes: "x: 123, y: 2", Version: v1.10.1"""


def test_a_webui_s_infotext() -> None:
    job = read_job(WEBUI)
    assert job.values == {
        "prompt": "a (red:1.2) cube, <lora:x:1>\nsecond line",
        "negative_prompt": "blue, b",
        "steps": 20,
        "sampler": "dpm++ 2m",
        "schedule_type": "karras",
        "noise": "webui",
        "cfg_scale": 5.5,
        "seed": 123,
        "width": 192,
        "height": 128,
        "denoising_strength": 0.6,
        "gamma": 1.2,
    }
    assert job.model == "tiny" and job.notes == ()


def test_what_cannot_be_repeated_is_said() -> None:
    job = read_job(WEBUI.replace("RNG: CPU", "ENSD: 31337, Depth from: map"))
    assert len(job.notes) == 3
    assert "ENSD: 31337" in job.notes[0] and "noise of GPU" in job.notes[1] and "--depth" in job.notes[2]


def test_a_schedule_type_behind_the_samplers_name() -> None:
    text = WEBUI.replace("Sampler: DPM++ 2M, Schedule type: Karras", "Sampler: DPM++ 2M Karras")
    assert read_job(text).values == read_job(WEBUI).values


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("DPM++ 2M", "UniPC", "no sampler 'UniPC' here. Choose one of: DDIM"),
        ("Karras", "Beta", "no schedule type 'Beta'"),
        ("Steps: 20", "Steps: 9999", "steps"),
        ("Steps: 20, ", "", "not an infotext"),
        ("192x128", "191x128", "width"),
    ],
)
def test_what_is_not_known_is_an_error(old: str, new: str, names: str) -> None:
    with pytest.raises(OptionError, match=names):
        read_job(WEBUI.replace(old, new))


@given(st.text(max_size=80), st.text(alphabet='abc:,"\\ 123', max_size=60))
def test_any_text_is_a_job_or_an_error(prompt: str, more: str) -> None:
    for text in (prompt, f"{prompt}\nSteps: 2, Sampler: Euler, Seed: 1, {more}"):
        try:
            job = read_job(text)
        except OptionError:
            continue
        assert job.values["steps"] in range(1, 151)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_infotexts_of_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"made{suffix}"
    save_picture(np.zeros((8, 8, 3), np.uint8), path, infotext="é 日本\nSteps: 1")
    assert read_infotext(path) == "é 日本\nSteps: 1"
    save_picture(np.zeros((8, 8, 3), np.uint8), path)
    assert read_infotext(path) == ""


def test_the_command_repeats_its_own_job_and_flags_override_it(run: Run, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 96, 3)).astype(np.uint8)).save("room.png")
    job = (
        "-p",
        "a (red:1.2) cube",
        "--steps",
        2,
        "--seed",
        7,
        "--sampler",
        "euler",
        "--gamma",
        1.3,
        "--noise",
        "webui",
    )
    assert run("generate", "room.png", "-o", "one.png", *job, "--width", 96, "--height", 64).code == 0
    assert run("generate", "room.png", "-o", "two.png", "--from", "one.png").code == 0
    assert run("generate", "room.png", "-o", "other.png", "--from", "one.png", "--seed", 8).code == 0
    one, two, other = (np.asarray(Image.open(name)) for name in ("one.png", "two.png", "other.png"))
    assert np.array_equal(one, two) and not np.array_equal(one, other)
    texts = [read_infotext(tmp_path / name) for name in ("one.png", "two.png", "other.png")]
    assert texts[0] == texts[1] and "Seed: 8" in texts[2] and "Depth gamma: 1.3" in texts[2]
    assert "Schedule type: Automatic" in texts[0] and "RNG: CPU" in texts[0]
    made = run("generate", "room.png", "--from", "room.png")
    assert made.code == 2 and "not an infotext" in made.err


def test_automatic_is_written_as_what_it_stood_for() -> None:
    """As the WebUI writes it, so that pasting gives the same."""
    from depth2img import DepthOptions
    from depth2img.diffusion.infotext import infotext

    given = Settings(sampler="dpm++ 2m", noise="webui")
    text = infotext(given, DepthOptions(), size=(64, 64), cfg_scale=4.0, model="tiny")
    assert "Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 4.0" in text
    assert "RNG" not in infotext(Settings(), DepthOptions(), size=(64, 64), cfg_scale=4.0, model="tiny")
