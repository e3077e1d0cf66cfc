"""Control over depth in the engine: what the network gets at each step. The WebUI adapter is held to the same in
tests/webui_real."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch

from depth2img import DepthMap, DepthOptions, OptionError
from depth2img.diffusion import Engine, Settings
from depth2img.diffusion.networks import build
from depth2img.diffusion.results import result_paths
from depth2img.estimators import base
from depth2img.options import OPTIONS, WEBUI_ONLY
from tests.engine import small

HEIGHT, WIDTH = 64, 96


@pytest.fixture(scope="module")
def engine() -> Engine:
    torch.manual_seed(0)
    return Engine(build(small.model(midas=False), device=torch.device("cpu"), dtype=torch.float32))


@pytest.fixture
def seen(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Tensor]]:
    """The network's input at each step: unconditional row first, 4 channels of latent and one of depth."""
    steps: list[torch.Tensor] = []
    inner = engine.networks.unet.forward

    def forward(sample: torch.Tensor, *args: Any, **named: Any) -> Any:
        steps.append(sample.detach().clone())
        return inner(sample, *args, **named)

    monkeypatch.setattr(engine.networks.unet, "forward", forward)
    return steps


def settings(**changes: Any) -> Settings:
    shared = {"prompt": "a box", "steps": 4, "width": WIDTH, "height": HEIGHT, "cfg_scale": 3.0}
    return Settings(**{**shared, "denoising_strength": 1.0, **changes})


def grey(level: int = 128) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), level, np.uint8)


def ramp(width: int = WIDTH, height: int = HEIGHT) -> DepthMap:
    return DepthMap(values=np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1)))


def own(**changes: Any) -> DepthOptions:
    return DepthOptions(**{"source": "map", "depth_map": ramp(), **changes})


def mask(box: tuple[int, int, int, int]) -> np.ndarray:
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return image


PICTURE: Final = np.random.default_rng(7).integers(0, 256, (HEIGHT, HEIGHT, 3), np.uint8)
HALF: Final = np.pad(np.full((HEIGHT, HEIGHT // 2), 255, np.uint8), ((0, 0), (0, HEIGHT // 2)))

CONTENT: Final = io.BytesIO()
np.savez(CONTENT, front=PICTURE[:, :, 0], back=PICTURE[:, :, 1])
LAYERS: Final = CONTENT.getvalue()
"""A file of two maps."""

EFFECTS: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "enabled": ({}, {"enabled": False}),
    "source": ({}, {"source": "map", "depth_map": ramp()}),
    "reference": ({"source": "reference", "reference": PICTURE}, {"source": "reference", "reference": 255 - PICTURE}),
    "depth_map": ({"source": "map", "depth_map": ramp()}, {"source": "map", "depth_map": PICTURE[:, :, 0]}),
    **{name: ({}, {name: value}) for name, value in (("near", 0.7), ("far", 0.3), ("gamma", 2.0), ("blur", 5.0))},
    **{name: ({}, {name: True}) for name in ("invert", "append_map", "save_map", "ignore_colours", "score")},
    **{name: ({}, {name: 0.5}) for name in ("strength", "start", "end")},
    "region": ({}, {"region": HALF}),
    "neutral": ({"strength": 0.5}, {"strength": 0.5, "neutral": 0.5}),
    "guidance": ({}, {"guidance": 2.0}),
    "estimate_on": ({}, {"estimate_on": "original"}),
    "under_mask": ({}, {"under_mask": "fill"}),
    "hires": ({}, {"hires": "estimate"}),
    "range": ({}, {"range": "shared"}),
    "range_far": ({"range": "fixed", "range_near": 9}, {"range": "fixed", "range_near": 9, "range_far": -9}),
    "range_near": ({"range": "fixed", "range_near": 9}, {"range": "fixed", "range_near": 99}),
    "range_clip": ({"range": "percentile"}, {"range": "percentile", "range_clip": 20}),
    "estimator": ({}, {"estimator": "ramp"}),
    "holds": (
        {"source": "map", "depth_map": 1 + PICTURE[:, :, 0]},
        {"source": "map", "depth_map": 1 + PICTURE[:, :, 0], "holds": "distance"},
    ),
    "map_channel": tuple(
        {"source": "map", "depth_map": LAYERS, "map_channel": channel} for channel in ("front", "back")
    ),
}
"""Option -> options without and with it, for a job in which it matters."""


class Ramp:
    """Nearer to the right, whatever the picture."""

    key = "ramp"

    def estimate(self, picture: np.ndarray) -> DepthMap:
        return ramp(picture.shape[1], picture.shape[0])


@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in WEBUI_ONLY])
def test_no_option_is_without_effect(engine: Engine, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A new one fails here until it is in `EFFECTS`."""
    monkeypatch.setattr(base, "_REGISTRY", {"ramp": Ramp})
    job = settings(steps=2, resize_mode="crop and resize", hr_scale=1.5 if name == "hires" else 1.0)
    masks = [HALF, HALF] if name == "under_mask" else None
    seen = []
    for given in EFFECTS[name]:
        options = DepthOptions(**given)
        made = engine.generate([PICTURE, PICTURE // 2], job, options, masks=masks)
        files = result_paths(Path("a.png"), options)
        seen.append((b"".join(one.sampled.tobytes() for one in made), made[0].fidelity, files))
    assert seen[0] != seen[1]


@pytest.mark.parametrize(("name", "value"), [("keep_first", True), ("map_directory", "maps")])
def test_options_of_the_webui_alone_are_refused(engine: Engine, name: str, value: Any) -> None:
    assert name in WEBUI_ONLY
    with pytest.raises(OptionError, match=f"'{name}' is for the WebUI; here it would have no effect. Give ") as caught:
        engine.generate([PICTURE], settings(), DepthOptions(**{name: value}))
    assert caught.value.field == name


def test_strength_start_and_end(engine: Engine, seen: list[torch.Tensor]) -> None:
    engine.generate([grey()], settings(), own(strength=0.5, start=0.25, end=0.75, neutral=-0.5))
    full = seen[0].new_tensor(np.linspace(-1, 1, 12))
    for step, input in enumerate(seen):
        for row in input[:, 4, 4]:
            expected = full * 0.5 - 0.25 if step in (1, 2) else torch.full_like(full, -0.5)
            assert torch.allclose(row, expected, atol=0.12)


def test_defaults_change_nothing(engine: Engine, seen: list[torch.Tensor]) -> None:
    made = engine.generate([grey()], settings(), own())
    assert all(torch.equal(row, made[0].conditioning[0, 0]) for step in seen for row in step[:, 4])


def test_guidance_needs_no_further_run(engine: Engine, seen: list[torch.Tensor]) -> None:
    engine.generate([grey()], settings(), own(guidance=3.0))
    assert len(seen) == 4 and all(step.shape[0] == 2 for step in seen)
    assert all((step[0, 4] == 0).all() and step[1, 4].max() == 1 for step in seen)


def test_region(engine: Engine, seen: list[torch.Tensor]) -> None:
    region = np.zeros((HEIGHT, WIDTH), np.uint8)
    region[:, : WIDTH // 2] = 255
    engine.generate([grey()], settings(), own(region=region, neutral=1.0))
    for step in seen:
        assert (step[:, 4, :, 6:] == 1).all() and (step[:, 4, :, :6] < 0.1).all()


def test_noise_alone(engine: Engine, seen: list[torch.Tensor]) -> None:
    """Black and white start from the very same latent."""
    for level in (0, 255):
        engine.generate([grey(level)], settings(), own(ignore_colours=True))
    for level in (0, 255):
        engine.generate([grey(level)], settings(), own())
    black, white, host_black, host_white = seen[::4]
    assert torch.equal(black, white)
    assert not torch.allclose(host_black, host_white, atol=1e-3)


def test_noise_alone_under_a_mask(engine: Engine) -> None:
    """The kept part is the same as without the option."""
    job = settings(masked_content="original", mask_blur=0)
    shape = mask((32, 16, 64, 48))
    (plain,) = engine.generate([grey(200)], job, own(), masks=[shape])
    (noise,) = engine.generate([grey(200)], job, own(ignore_colours=True), masks=[shape])
    assert np.array_equal(plain.picture[:8], noise.picture[:8])
    assert not np.array_equal(plain.picture, noise.picture)


def test_only_masked_keeps_the_whole_range(engine: Engine, seen: list[torch.Tensor]) -> None:
    job = settings(inpaint_area="only masked", mask_blur=0, only_masked_padding=0)
    engine.generate([grey()], job, own(), masks=[mask((48, 16, 72, 32))])
    row = seen[0][1, 4, 4]
    assert row.min() == pytest.approx(0, abs=0.06) and row.max() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(
    ("estimate_on", "shape"), [("auto", (64, 96)), ("entering", (64, 96)), ("original", (128, 192))]
)
def test_what_depth_is_estimated_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, estimate_on: str, shape: tuple[int, int]
) -> None:
    asked: list[tuple[int, ...]] = []

    def estimate(pictures: list[np.ndarray], rows: int, **_: object) -> list[DepthMap]:
        asked.extend(picture.shape[:2] for picture in pictures)
        return [ramp(picture.shape[1], picture.shape[0]) for picture in pictures]

    monkeypatch.setattr(engine, "estimate_all", estimate)
    large = np.full((128, 192, 3), 128, np.uint8)
    engine.generate([large], settings(steps=1), DepthOptions(estimate_on=estimate_on))
    assert asked == [shape]


@pytest.mark.parametrize("area", ["whole picture", "only masked"])
def test_fill_and_own_map_under_the_mask(
    engine: Engine, seen: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch, area: str
) -> None:
    bump = ramp().values.copy()
    bump[16:48, 32:64] = 1.0
    monkeypatch.setattr(engine, "estimate_all", lambda pictures, rows, **_: [DepthMap(values=bump)])
    job = settings(steps=1, inpaint_area=area, mask_blur=0, only_masked_padding=16)
    backwards = DepthMap(values=np.ascontiguousarray(ramp().values[:, ::-1]))
    for options in (
        DepthOptions(),
        DepthOptions(under_mask="fill"),
        DepthOptions(under_mask="map", depth_map=backwards),
    ):
        engine.generate([grey()], job, options, masks=[mask((32, 16, 64, 48))])
    kept, filled, replaced = (step[1, 4, 4, 4:8] for step in seen)
    assert kept.min() > 0.9
    assert (filled.diff() > 0).all() and (replaced.diff() < 0).all()


@pytest.mark.parametrize("adjustments", [{}, {"gamma": 1.5, "far": 0.1}])
def test_a_shared_range_does_not_flicker(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, adjustments: dict[str, float]
) -> None:
    """A camera that pans over a slope: what stays in view keeps its conditioning."""
    slope = np.tile(np.linspace(0, 10, WIDTH + 32, dtype=np.float32) ** 2, (HEIGHT, 1))
    frames = [slope[:, start : start + WIDTH] for start in (0, 16, 32)]
    maps = [DepthMap(values=frame) for frame in frames]
    monkeypatch.setattr(engine, "estimate_all", lambda pictures, rows, **_: maps)

    def flicker(range: str) -> float:
        options = DepthOptions(range=range, range_far=0.0, range_near=100.0, **adjustments)
        made = engine.generate([grey(), grey(1), grey(2)], settings(steps=1), options)
        rows = [one.conditioning[0, 0, 4] for one in made]
        return max(float((rows[0][2:-2] - rows[1][:-4]).abs().max()), float((rows[1][2:-2] - rows[2][:-4]).abs().max()))

    own, shared, fixed = flicker("own"), flicker("shared"), flicker("fixed")
    assert shared < 0.05 < own
    assert fixed < 0.05
