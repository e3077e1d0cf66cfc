"""Prompts in the real WebUI and in the engine: the same tokens, the same weights, the same text states."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from host import Host

from depth2img import Engine, Settings
from depth2img.diffusion.text import Encoder, States, encode_text, read_passes
from tests.library.prompt_cases import Case, bare, read, simplified

TOLERANCE = 1e-4
"""Of states with a standard deviation of about 1. The same weights run in float32 by other code (OpenCLIP in torch 2.1,
transformers in another torch); restoring the mean after emphasis, a quotient of sums, adds to that."""

ASK = """
from modules import prompt_parser
model = shared.sd_model.cond_stage_model
steps, hires_steps = {steps!r}, {hires_steps!r}

def read(text, schedules):
    chunks = [[[chunk.tokens, chunk.multipliers] for chunk in model.tokenize_line(one)[0]] for _, one in schedules]
    most = max(map(len, chunks))
    empty = model.empty_chunk()
    filled = [one + [[empty.tokens, empty.multipliers]] * (most - len(one)) for one in chunks]
    return [[end for end, _ in schedules], filled]

def states(text):
    with torch.no_grad():
        [made] = prompt_parser.get_learned_conditioning(shared.sd_model, [text], steps, hires_steps)
    return [one.cond.tolist() for one in made] if {with_states!r} else None

def asked(text):
    [schedules] = prompt_parser.get_learned_conditioning_prompt_schedules([text], steps, hires_steps)
    return [read(text, schedules), states(text)]

from modules.processing_scripts.comments import strip_comments
prompt, negative = strip_comments({prompt!r}), strip_comments({negative!r})
[indices], flat, _ = prompt_parser.get_multicond_prompt_list([prompt])
result = {{"parts": [[weight, *asked(flat[at])] for at, weight in indices], "negative": asked(negative)}}
"""


def in_the_webui(host: Host, case: Case, *, with_states: bool = False) -> dict[str, Any]:
    """Parts: weight, ends and chunks, states; negative: ends and chunks, states."""
    words = {"prompt": case.prompt, "negative": case.prompt, "steps": case.steps, "hires_steps": case.hires_steps}
    answer: dict[str, Any] = host.run(ASK.format(**words, with_states=with_states))
    return json.loads(json.dumps(answer))


def settings(case: Case) -> Settings:
    hires = {} if case.hires_steps is None else {"hr_scale": 2.0, "hr_second_pass_steps": case.hires_steps}
    return Settings(prompt=case.prompt, negative_prompt=case.prompt, steps=case.steps, **hires)


@pytest.mark.parametrize("case", read(), ids=lambda case: case.name)
def test_tokens_and_weights(bundled: Host, case: Case) -> None:
    """The WebUI's, those that were recorded, and ours."""
    theirs = in_the_webui(bundled, case)
    assert [[weight, ends, bare(texts)] for weight, (ends, texts), _ in theirs["parts"]] == case.parts
    ends, texts = theirs["negative"][0]
    assert [ends, bare(texts)] == case.negative
    ours = read_passes(settings(case), {})[-1]
    assert [[weight, *simplified(part)] for weight, part in zip(ours.weights, ours.parts, strict=True)] == case.parts
    assert simplified(ours.negative) == case.negative


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.open("tiny", device="cpu")


def apart(states: States, theirs: list[Any]) -> float:
    ours = [states.values[index].numpy() for index in states.tokens.order]
    return max(float(np.abs(one - np.array(other, np.float32)).max()) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("case", read(), ids=lambda case: case.name)
def test_text_states(bundled: Host, engine: Engine, case: Case, record_property: Any) -> None:
    theirs = in_the_webui(bundled, case, with_states=True)
    with torch.no_grad():
        ours = encode_text(Encoder(engine.networks), read_passes(settings(case), {})[-1])
    longest = max(len(states[0]) for _, _, states in theirs["parts"])
    worst = apart(ours.negative, theirs["negative"][1])
    for part, (_, _, states) in zip(ours.parts, theirs["parts"], strict=True):
        filled = [[*one, *([one[-1]] * (longest - len(one)))] for one in states]
        worst = max(worst, apart(part, filled))
    record_property("largest difference of the states", worst)
    assert worst <= TOLERANCE
    assert float(ours.parts[0].values.std()) > 0.1
