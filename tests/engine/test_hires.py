"""The hires pass of the standalone engine, and the infotext of its results."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from depth2img import DepthOptions, OptionError, conditioning
from depth2img.depth import schedule
from depth2img.diffusion import Engine, Job, Settings, sampling
from depth2img.diffusion.infotext import infotext
from depth2img.diffusion.networks import build
from depth2img.diffusion.settings import SAMPLERS, Steps
from depth2img.io.saving import save_picture
from tests.engine import small

ROOT = Path(__file__).parents[2]
HIRES = Settings(
    prompt="a red box", steps=4, width=96, height=64, hr_scale=1.5, hr_second_pass_steps=2, hr_denoising_strength=0.5
)
FIRST, SECOND = 4, 2
"""Steps that the passes run: of 4 by a denoising strength of 0.75, and all of the second's."""


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(build(small.model(midas=False), device=torch.device("cpu"), dtype=torch.float32))


@pytest.fixture
def steps(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Record the depth channel of the UNet's conditional rows at each step."""
    seen: list[torch.Tensor] = []
    forward = engine.networks.unet.forward

    def watched(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(x[len(x) // 2 :, 4:].clone())
        return forward(x, *args, **kwargs)

    monkeypatch.setattr(engine.networks.unet, "forward", watched)
    return seen


def picture(seed: int = 0, width: int = 96, height: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def same(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("upscaler", ["latent", "lanczos"])
def test_keep(engine: Engine, steps: list[torch.Tensor], upscaler: str) -> None:
    """The first pass' map, at the second pass' size: resized once, from the map."""
    settings = Settings(**{**vars(HIRES), "hr_upscaler": upscaler})
    [made] = engine.generate([picture()], settings, DepthOptions(gamma=1.5))
    assert made.picture.shape == (96, 144, 3) and made.frame.shape == (64, 96, 3)
    assert made.depth is not None
    assert [tuple(step.shape[-2:]) for step in steps] == [(8, 12)] * FIRST + [(12, 18)] * SECOND
    same(steps[0], conditioning([made.depth], height=8, width=12))
    same(steps[-1], conditioning([made.depth], height=12, width=18))
    same(made.conditioning, steps[-1])


@pytest.mark.parametrize("upscaler", ["latent", "lanczos"])
def test_estimate_anew(
    engine: Engine, steps: list[torch.Tensor], upscaler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first pass' picture, enlarged; over the same range of values as any other picture."""
    settings = Settings(**{**vars(HIRES), "hr_upscaler": upscaler})
    estimated: list[np.ndarray] = []
    estimate = engine.estimate_all
    monkeypatch.setattr(
        engine, "estimate_all", lambda pictures, *a, **k: estimated.extend(pictures) or estimate(pictures, *a, **k)
    )
    passes: list[torch.Tensor] = []
    sample = sampling.sample
    monkeypatch.setattr(sampling, "sample", lambda *given: passes.append(sample(*given)) or passes[-1])
    [made] = engine.generate([picture()], settings, DepthOptions(hires="estimate", invert=True))
    assert [one.shape for one in estimated] == [(64, 96, 3), (96, 144, 3)]
    with torch.no_grad():
        if upscaler == "latent":
            latents = torch.nn.functional.interpolate(passes[0], size=(12, 18), mode="bilinear")
            unit = engine.networks.vae.decode(latents / engine.networks.scale).sample / 2 + 0.5
            enlarged = (unit[0].permute(1, 2, 0).clamp(0, 1) * 255).round().numpy()
        else:
            unit = engine.networks.vae.decode(passes[0] / engine.networks.scale).sample / 2 + 0.5
            image = Image.fromarray((unit[0].permute(1, 2, 0).clamp(0, 1) * 255).round().to(torch.uint8).numpy())
            enlarged = np.asarray(image.resize((144, 96), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(estimated[1], enlarged)
    again = conditioning([estimate([estimated[1]])[0]], height=12, width=18)
    torch.testing.assert_close(steps[FIRST], -again, rtol=0, atol=1e-5)  # inverted; and each map has its own range
    same(made.conditioning, steps[FIRST])


def test_lanczos_encodes_the_enlarged_picture(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """In -1..1, where the host's own hires pass gives the depth network 0..1."""
    encoded: list[torch.Tensor] = []
    encode = sampling.encode
    monkeypatch.setattr(sampling, "encode", lambda n, x, g: encoded.append(x) or encode(n, x, g))
    settings = Settings(**{**vars(HIRES), "hr_upscaler": "lanczos"})
    engine.generate([picture()], settings)
    [first] = engine.generate([picture()], Settings(**{**vars(settings), "hr_scale": 1.0}))
    enlarged = np.asarray(Image.fromarray(first.picture).resize((144, 96), Image.Resampling.LANCZOS))
    np.testing.assert_allclose(encoded[1][0].permute(1, 2, 0).numpy(), enlarged / 127.5 - 1, atol=1e-6)


def test_strength_and_steps_are_the_second_pass_own(engine: Engine, steps: list[torch.Tensor]) -> None:
    told: list[tuple[int, int]] = []
    options = DepthOptions(end=0.5, neutral=0.25)
    changes = {"denoising_strength": 0.5, "hr_second_pass_steps": 0, "hr_denoising_strength": 0.3}
    settings = Settings(**{**vars(HIRES), **changes})
    engine.generate([picture()], settings, options, on_step=lambda *step: told.append(step))
    assert told == [(index + 1, 7) for index in range(7)]
    counts = [not bool((step == 0.25).all()) for step in steps]
    expected = [schedule.strength_at(options, index, count) > 0 for count in (3, 4) for index in range(count)]
    assert counts == expected and any(counts[:3]) and any(counts[3:]), "each pass counts its own steps"


def test_source_colours_are_ignored_in_the_first_pass_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[bool] = []
    sample = sampling.sample

    def watched(networks: Any, batch: Any, *args: Any) -> Any:
        begun.append(batch.from_noise)
        return sample(networks, batch, *args)

    monkeypatch.setattr(sampling, "sample", watched)
    settings = Settings(**{**vars(HIRES), "denoising_strength": 1.0, "hr_denoising_strength": 1.0})
    engine.generate([picture()], settings, DepthOptions(ignore_colours=True))
    assert begun == [True, False]
    almost = Settings(**{**vars(settings), "denoising_strength": 0.99})
    assert almost.first_steps == settings.first_steps
    engine.generate([picture()], almost, DepthOptions(ignore_colours=True))
    assert begun[2:] == [False, False], "below 1 it does nothing, however many steps are run"


def test_several_pictures_and_fixed_rows(engine: Engine) -> None:
    """A result does not depend on what goes along with it."""
    options = DepthOptions(hires="estimate")
    jobs = [Job(picture(seed), Settings(**{**vars(HIRES), "seed": seed}), options) for seed in range(3)]
    together = engine.run(jobs, rows=2)
    for job, made in zip(jobs, together, strict=True):
        [alone] = engine.run([job], rows=2)
        np.testing.assert_array_equal(alone.picture, made.picture)
        same(alone.conditioning, made.conditioning)


def test_region_and_switched_off(engine: Engine, steps: list[torch.Tensor]) -> None:
    region = np.zeros((64, 96), np.uint8)
    region[:, 48:] = 255
    engine.generate([picture()], HIRES, DepthOptions(region=Image.fromarray(region)))
    assert bool((steps[-1][..., :8] == 0).all()) and not bool((steps[-1][..., 10:] == 0).all())
    steps.clear()
    engine.generate([picture()], HIRES, DepthOptions(enabled=False, hires="estimate"))
    assert all(bool((step == 0).all()) for step in steps)


def test_a_mask_is_refused(engine: Engine) -> None:
    mask = np.zeros((64, 96), np.uint8)
    mask[16:48, 20:70] = 255
    with pytest.raises(OptionError, match="hires pass works on whole pictures"):
        engine.generate([picture()], HIRES, masks=[mask])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hr_scale", 0.5),
        ("hr_scale", 5),
        ("hr_scale", float("nan")),
        ("hr_upscaler", "esrgan"),
        ("hr_second_pass_steps", -1),
        ("hr_second_pass_steps", 1.5),
        ("hr_denoising_strength", 1.1),
    ],
)
def test_settings_are_checked(name: str, value: Any) -> None:
    with pytest.raises(OptionError) as caught:
        Settings(**{name: value})
    assert caught.value.field == name


# --- infotext ----------------------------------------------------------------------------------------------------

FULL = Settings(
    prompt="a red box, blue: floor",
    negative_prompt="grey",
    seed=7,
    sampler="dpm++ 2m",
    mask_invert=True,
    masked_content="fill",
    inpaint_area="only masked",
)


def test_the_text() -> None:
    options = DepthOptions(gamma=2.0, estimator="a, b: c")
    text = infotext(FULL, options, size=(96, 64), cfg_scale=4.0, model="tiny", masked=True, fidelity=0.5)
    assert text.splitlines() == [
        "a red box, blue: floor",
        "Negative prompt: grey",
        "Steps: 20, Sampler: DPM++ 2M, CFG scale: 4.0, Seed: 7, Size: 96x64, Model: tiny, Denoising strength: 0.75, "
        "Mask mode: Inpaint not masked, Mask blur: 4, Inpaint area: Only masked, Masked area padding: 32, "
        'Masked content: fill, Depth gamma: 2.0, Depth estimator: "a, b: c", Depth fidelity: 0.500',
    ]


def test_results_carry_it(engine: Engine) -> None:
    first, second = engine.generate([picture(), picture(1)], HIRES, DepthOptions(score=True))
    assert "Seed: 0," in first.infotext and "Seed: 1," in second.infotext
    assert first.fidelity is not None and f"Depth fidelity: {first.fidelity:.3f}" in first.infotext
    for part in ("Hires upscale: 1.5", "Hires upscaler: Latent", "Hires denoising strength: 0.5", "Hires steps: 2"):
        assert part in first.infotext
    assert f"CFG scale: {engine.networks.cfg_scale}" in first.infotext
    assert "Hires" not in engine.generate([picture()], Settings(steps=1))[0].infotext


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_files_carry_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"result{suffix}"
    text = "ein roter Würfel, 赤い\nSteps: 1, Seed: 3"
    save_picture(picture(), path, infotext=text)
    with Image.open(path) as image:
        if suffix == ".png":
            assert image.text == {"parameters": text}
        else:
            comment = image.getexif().get_ifd(0x8769)[0x9286]
            assert comment == b"UNICODE\0" + text.encode("utf-16-be")
    save_picture(picture(), path, infotext="x" * 40_000)  # as long as it likes
    save_picture(picture(), path)
    with Image.open(path) as image:
        assert not getattr(image, "text", None) and not image.getexif()


def test_command_line(tmp_path: Path) -> None:
    """With the bundled model, in a process of its own."""
    Image.fromarray(picture(width=128, height=128)).save(tmp_path / "a.png")
    arguments = ["generate", str(tmp_path / "a.png"), "-o", str(tmp_path), "-p", "a red box", "--steps", "2"]
    arguments += ["--hr-scale", "1.25", "--hires", "estimate", "--save-map", "--json"]
    code = f"import sys; sys.argv = ['depth2img', *{arguments!r}]; from depth2img.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [result] = json.loads(done.stdout)["results"]
    with Image.open(tmp_path / "a-depth2img.png") as made, Image.open(tmp_path / "a-depth2img-depth.png") as depth:
        assert made.size == depth.size == (160, 160)
        assert made.text["parameters"] == result["infotext"]
        assert "Depth hires: estimate" in result["infotext"]


def hosts_count() -> Any:
    """The WebUI's own function that counts steps."""
    if "WEBUI_DIR" not in os.environ:
        pytest.skip("needs the WebUI's source: set WEBUI_DIR")
    path = Path(os.environ["WEBUI_DIR"], "modules", "sd_samplers_common.py")
    found: dict[str, Any] = {"opts": SimpleNamespace(img2img_fix_steps=False)}
    [count] = [one for one in ast.parse(path.read_text()).body if getattr(one, "name", "") == "setup_img2img_steps"]
    exec(compile(ast.Module([count], []), str(path), "exec"), found)
    return found["setup_img2img_steps"]


@given(st.integers(1, 150), st.floats(0.001, 1.0))
def test_steps_are_counted_as_in_the_webui(steps: int, strength: float) -> None:
    """Its samplers run one step more than `t_enc`, the last of so many."""
    count = hosts_count()
    job = SimpleNamespace(steps=steps, denoising_strength=strength)
    first, second = count(job), count(job, steps)
    ours = Settings(steps=steps, denoising_strength=strength, hr_denoising_strength=strength)
    assert ours.first_steps == Steps(first[0], first[1] + 1)
    assert ours.hires_steps == Steps(second[0], second[1] + 1)


@pytest.mark.parametrize(("steps", "strength", "run"), [(20, 1, 20), (20, 0.75, 16), (10, 0.05, 1), (20, 0.96, 20)])
def test_steps_by_strength(steps: int, strength: float, run: int) -> None:
    assert Settings(steps=steps, denoising_strength=strength).first_steps == Steps(steps, run)
    again = Settings(hr_second_pass_steps=steps, hr_denoising_strength=strength).hires_steps
    assert again.run == steps and again.of - steps == int(steps / min(strength, 0.999)) - steps


def test_strength_zero_runs_no_step(engine: Engine, steps: list[torch.Tensor]) -> None:
    zero = Settings(**{**vars(HIRES), "denoising_strength": 0.0, "hr_denoising_strength": 0.0})
    engine.generate([picture()], zero)
    assert steps == []


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_more_steps_than_noise_levels(engine: Engine, steps: list[torch.Tensor], sampler: str) -> None:
    """All steps of a weak hires pass are the last of many more."""
    many = {"denoising_strength": 0.0, "hr_denoising_strength": 0.001, "sampler": sampler}
    [made] = engine.generate([picture()], Settings(**{**vars(HIRES), **many}))
    calls = 2 * SAMPLERS[sampler].calls - (SAMPLERS[sampler].calls - 1)  # Heun calls once for the last step
    assert len(steps) == calls and made.picture.std() > 0
