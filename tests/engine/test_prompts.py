"""Prompts of the engine: the WebUI's tokens, and what they do to pictures."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch

from depth2img import Engine, OptionError, Settings
from depth2img.checkpoints.layout.tokenizer import text_tokens, token_ids
from depth2img.diffusion import sampling
from depth2img.diffusion.job import Job
from depth2img.diffusion.networks import build
from depth2img.diffusion.text import Encoder, encode_text, read_passes
from tests.engine import small
from tests.library.prompt_cases import Case, read, simplified

LONG = " ".join(["a red cube on a blue floor, with a green ball beside it,"] * 8)


@functools.lru_cache(maxsize=1)
def engine() -> Engine:
    return Engine(build(small.model(midas=False), device=torch.device("cpu"), dtype=torch.float32))


def picture(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (64, 96, 3)).astype(np.uint8)


def settings(prompt: str, negative: str = "", **more: Any) -> Settings:
    return Settings(**{"prompt": prompt, "negative_prompt": negative, "steps": 4, "denoising_strength": 1.0, **more})


@pytest.mark.parametrize("case", read(), ids=lambda case: case.name)
def test_tokens_and_weights_are_the_webuis(case: Case) -> None:
    hires = {} if case.hires_steps is None else {"hr_scale": 2.0, "hr_second_pass_steps": case.hires_steps}
    made = read_passes(settings(case.prompt, case.prompt, steps=case.steps, **hires), {})[-1]
    parts = [[weight, *simplified(part)] for weight, part in zip(made.weights, made.parts, strict=True)]
    assert parts == case.parts
    assert simplified(made.negative) == case.negative


@pytest.mark.parametrize("text", ["a red cube, 123 don't", "İ 日本 👍🏽 ﬁ &lt;", "a\x00b \u200b", "<START_of_text>x"])
def test_tokens_are_openclips(text: str) -> None:
    import open_clip

    assert text_tokens(text) == open_clip.tokenizer.SimpleTokenizer().encode(text)


@torch.no_grad()
def test_a_plain_prompt_has_the_states_of_its_ids() -> None:
    [tokens] = read_passes(settings("a red cube"), {})
    expected = engine().networks.text_encoder(token_ids(["a red cube"])).last_hidden_state
    assert torch.equal(encode_text(Encoder(engine().networks), tokens).parts[0].values, expected)


@torch.no_grad()
def test_emphasis_scales_states_and_keeps_their_mean() -> None:
    plain, strong = (
        encode_text(Encoder(engine().networks), read_passes(settings(text), {})[0]).parts[0].values[0]
        for text in ("a red cube", "a (red:1.5) cube")
    )
    ratio = strong / plain
    common = ratio[1].mean()
    # float32: each ratio is two roundings off
    assert torch.allclose(ratio[2], 1.5 * common.expand_as(ratio[2]), rtol=1e-4)
    assert torch.allclose(ratio[3:], common.expand_as(ratio[3:]), rtol=1e-4)
    assert float(strong.mean()) == pytest.approx(float(plain.mean()), rel=1e-4)


def texts_of_steps(monkeypatch: pytest.MonkeyPatch, *given: Settings) -> list[Any]:
    """The text that each call of the UNet gets."""
    seen: list[Any] = []
    inner = sampling._predict

    def predict(networks: Any, latents: Any, timestep: Any, text: Any, depth: Any, guidance: float) -> torch.Tensor:
        seen.append(text)
        return inner(networks, latents, timestep, text, depth, guidance)

    monkeypatch.setattr(sampling, "_predict", predict)
    engine().run([Job(picture(), one) for one in given])
    return seen


def test_schedules_change_the_text_at_their_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = texts_of_steps(monkeypatch, settings("a [red:blue:1] cube", "[x|y]", steps=4))
    red, blue = seen[0].prompts, seen[2].prompts
    assert [torch.equal(one.prompts, red) for one in seen] == [True, True, False, False]
    assert torch.equal(seen[3].prompts, blue)
    # of four entries: steps 0 and 1 have the first, as in the WebUI
    assert [torch.equal(one.negative, seen[0].negative) for one in seen] == [True, True, False, True]


def test_the_hires_pass_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = texts_of_steps(monkeypatch, settings("a [red:blue:1.5] cube", steps=2, hr_scale=1.5, hr_second_pass_steps=4))
    red = seen[0].prompts
    assert [torch.equal(one.prompts, red) for one in seen] == [True] * 2 + [True, True, True, False]


def test_parts_pull_with_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """One part with half the weight and one with the other half are the whole."""
    whole = engine().generate([picture()], settings("a red cube", cfg_scale=6.0))
    halves = engine().generate([picture()], settings("a red cube AND a red cube : 0.5", cfg_scale=4.0))
    alone = engine().generate([picture()], settings("a red cube :1.5", cfg_scale=4.0))
    # sums in another order: one step of 255
    for other in (halves, alone):
        assert np.abs(whole[0].picture.astype(int) - other[0].picture.astype(int)).max() <= 1
    none = engine().generate([picture()], settings("a red cube", cfg_scale=4.0))
    assert np.abs(whole[0].picture.astype(int) - none[0].picture.astype(int)).max() > 1


@pytest.mark.parametrize("prompt", ["a (red:1.5) cube", LONG, "a [red:blue:0.5] cube", "a red AND a blue cube", "a #b"])
def test_a_prompt_of_any_kind_changes_the_picture(prompt: str) -> None:
    plain, made = (engine().generate([picture()], settings(text))[0].picture for text in ("a red cube", prompt))
    assert made.shape == plain.shape and np.abs(made.astype(int) - plain.astype(int)).max() > 0


def test_jobs_with_prompts_of_all_kinds_do_not_touch_each_other() -> None:
    """To the bit, with a fixed number of rows."""
    kinds = [settings("a red cube"), settings(LONG), settings("a AND b"), settings("c", LONG), settings("[a|b]", "c")]
    together = engine().run([Job(picture(), one) for one in kinds], rows=2)
    for one, made in zip(kinds, together, strict=True):
        [alone] = engine().run([Job(picture(), one)], rows=2)
        assert np.array_equal(alone.picture, made.picture)


def test_a_bad_prompt_is_an_error_before_anything_is_made() -> None:
    with pytest.raises(OptionError, match="Weights in a prompt reach"):
        engine().generate([picture()], settings("(a:100000)"))


def test_at_cfg_scale_1_parts_still_need_the_negative_prompt() -> None:
    one, two = (
        engine().generate([picture()], settings("a red cube AND a ball", negative, cfg_scale=1.0))[0].picture
        for negative in ("", "blue floor")
    )
    assert not np.array_equal(one, two)
