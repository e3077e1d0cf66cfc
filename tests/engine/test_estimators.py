"""Estimators by name and the fidelity score in the standalone engine, its command line and its page."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from depth2img import DepthMap, DepthOptions, OptionError, conditioning, register_estimator
from depth2img.checkpoints import to_single_file
from depth2img.cli.compare import compare
from depth2img.depth.scores import structure
from depth2img.diffusion import Engine, Settings
from depth2img.diffusion.networks import build
from depth2img.estimators import base
from depth2img.estimators.files import open_estimator
from depth2img.estimators.pool import EstimatorPool
from depth2img.options import OPTIONS
from tests import depth_models
from tests.engine import small
from tests.engine.conftest import Run

pytest.importorskip("transformers", reason="the extra 'diffusers' is not installed")

SETTINGS = Settings(prompt="a red box", steps=2, width=96, height=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("estimators")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        depth_models.write(made / "dpt-small", "dpt")
    return made


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    networks = build(small.model(midas=False), device=torch.device("cpu"), dtype=torch.float32)
    return Engine(networks, EstimatorPool(folder, device=lambda: "meta"))  # the engine's own device counts


class Rightwards:
    """Nearer to the right, whatever the picture."""

    key = "rightwards"

    def estimate(self, picture: np.ndarray) -> DepthMap:
        values = np.broadcast_to(np.linspace(0, 1, picture.shape[1]), picture.shape[:2])
        return DepthMap(np.array(values), origin="Rightwards")


@pytest.fixture
def rightwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_REGISTRY", {})
    register_estimator("rightwards", Rightwards)


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 96, 3), np.uint8)


def test_a_depth_model_conditions(engine: Engine, folder: Path) -> None:
    estimator = open_estimator(folder / "dpt-small", device="cpu", name="dpt-small")
    [made] = engine.generate([picture()], SETTINGS, DepthOptions(estimator="dpt-small"))
    expected = conditioning([estimator.estimate(picture())], height=8, width=12)
    torch.testing.assert_close(made.conditioning, expected, rtol=0, atol=0)
    [own] = engine.generate([picture()], SETTINGS)
    assert not torch.allclose(own.conditioning, expected)


@pytest.mark.usefixtures("rightwards")
def test_jobs_together_keep_their_own_estimators(engine: Engine) -> None:
    from depth2img.diffusion import Job

    names = ["checkpoint", "rightwards", "checkpoint", "dpt-small"]
    together = engine.run([Job(picture(i), SETTINGS, DepthOptions(estimator=name)) for i, name in enumerate(names)])
    for index, name in enumerate(names):
        [alone] = engine.generate([picture(index)], SETTINGS, DepthOptions(estimator=name))
        torch.testing.assert_close(together[index].conditioning, alone.conditioning, rtol=0, atol=0)
    assert bool((together[1].conditioning.diff(dim=-1) > 0).all())


@pytest.mark.usefixtures("rightwards")
def test_preview_and_reference(engine: Engine) -> None:
    options = DepthOptions(estimator="rightwards")
    shown = engine.preview(picture(), SETTINGS, options)
    assert shown is not None and shown.depth.origin == "Rightwards"
    options = DepthOptions(source="reference", reference=picture(1), estimator="rightwards")
    [made] = engine.generate([picture()], SETTINGS, options)
    assert made.depth is not None and made.depth.origin == "Rightwards"


@pytest.mark.parametrize("name", ["nothing", "../dpt-small", "owner/name"])
def test_names_that_are_not_there(engine: Engine, name: str) -> None:
    with pytest.raises(OptionError):
        engine.generate([picture()], SETTINGS, DepthOptions(estimator=name))


def test_fidelity_is_the_librarys_score(engine: Engine) -> None:
    options = DepthOptions(score=True, gamma=2.0)
    [made] = engine.generate([picture()], SETTINGS, options)
    assert made.depth is not None and made.fidelity is not None
    assert made.fidelity == structure(made.depth, engine.estimate(made.sampled))
    assert engine.generate([picture()], SETTINGS)[0].fidelity is None
    assert engine.generate([picture()], SETTINGS, DepthOptions(enabled=False, score=True))[0].fidelity is None


@pytest.mark.usefixtures("rightwards")
def test_fidelity_is_by_the_chosen_estimator(engine: Engine) -> None:
    options = DepthOptions(score=True, estimator="rightwards")
    [made] = engine.generate([picture()], SETTINGS, options)
    assert made.fidelity == pytest.approx(1.0), "it finds the same depth in every picture"


@pytest.mark.usefixtures("rightwards")
def test_the_comparison_scores_as_the_fidelity_does(engine: Engine) -> None:
    """By the estimator of the options, and against the map that was asked for."""
    options = DepthOptions(score=True, gamma=2.0, source="reference", reference=picture(1))
    made = compare(engine, picture(), SETTINGS, options, strengths=(0.5, 1.0))
    scores = made.scores(engine)
    assert [one.depth2img for one in scores] == [one.fidelity for one in made.with_depth]
    assert made.with_depth[0].depth is made.depth
    chosen = compare(engine, picture(), SETTINGS, dataclasses.replace(options, gamma=1.0, estimator="rightwards"))
    assert chosen.scores(engine)[0].img2img == pytest.approx(1.0), "it finds the same depth in every picture"
    with pytest.raises(OptionError, match="No denoising strength"):
        compare(engine, picture(), SETTINGS, strengths=())


def test_fidelity_under_a_mask_is_of_what_was_sampled(engine: Engine) -> None:
    mask = np.zeros((64, 96), np.uint8)
    mask[16:48, 20:70] = 255
    settings = Settings(prompt="x", steps=2, width=64, height=64, inpaint_area="only masked", only_masked_padding=4)
    [made] = engine.generate([picture()], settings, DepthOptions(score=True), masks=[mask])
    assert made.depth is not None and made.sampled.shape == (64, 64, 3)
    assert made.fidelity == structure(made.depth, engine.estimate(made.sampled))


# --- command line and page ---------------------------------------------------------------------------------------


@pytest.fixture
def run(run: Run, tmp_path: Path) -> Run:
    to_single_file(small.model(midas=False), tmp_path / "small.safetensors")
    Image.fromarray(picture()).save(tmp_path / "picture.png")
    return run


def test_estimate_by_a_folder(run: Run, folder: Path, tmp_path: Path) -> None:
    """The model is not even looked for."""
    done = run("estimate", "picture.png", "-m", "nowhere", "--estimator", folder / "dpt-small", "-o", "a.npy", "--json")
    assert done.code == 0, done.err
    assert done.json()["maps"][0]["width"] == 64
    expected = open_estimator(folder / "dpt-small", device="cpu", name="x").estimate(picture())
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), expected.values)


def test_generate_by_a_folder_with_its_score(run: Run, folder: Path) -> None:
    arguments = ["generate", "picture.png", "-m", "small.safetensors", "--steps", 2, "--width", 96, "--height", 64]
    chosen = ["--estimator", folder / "dpt-small", "--score"]
    done = run(*arguments, *chosen, "--json")
    assert done.code == 0, done.err
    [result] = done.json()["results"]
    assert -1 <= result["fidelity"] <= 1
    assert done.json()["settings"]["Depth estimator"] == str(folder / "dpt-small")
    assert f"depth fidelity {result['fidelity']:.3f}" in run(*arguments, *chosen).out
    done = run(*arguments, "--estimator", "nothing")
    assert done.code == 2 and "There is no such depth estimator" in done.err


def test_the_page_offers_the_folder_and_takes_no_path(engine: Engine, folder: Path) -> None:
    gradio = pytest.importorskip("gradio", reason="the extra 'app' is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from depth2img.gui import app

        blocks = app.build(engine)
    [shown] = [c for c in blocks.blocks.values() if getattr(c, "elem_id", None) == "app-depth-estimator"]
    assert shown.choices == ["checkpoint", "dpt-small"]
    settings = {"prompt": "x", "steps": 2, "width": 96, "height": 64}
    held = {"image": Image.fromarray(picture()), "mask": None}

    def depth(name: str) -> list[Any]:
        values = {"estimator": name, "score": True}
        return [values.get(option, OPTIONS[option].default) for option in OPTIONS]

    pictures, text = app.Backend(engine, None).generate(held, settings, depth("dpt-small"))
    assert len(pictures) == 1 and "Depth fidelity" in text
    with pytest.raises(gradio.Error, match="There is no such depth estimator"):
        app.Backend(engine, None).generate(held, settings, depth(str(folder / "dpt-small")))
