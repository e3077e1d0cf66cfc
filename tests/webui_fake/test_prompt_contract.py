"""The prompt language against the real WebUI's own functions, run as they stand in its source."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from depth2img import Settings
from depth2img.checkpoints.layout.tokenizer import text_tokens
from depth2img.diffusion.networks import Networks, build
from depth2img.diffusion.text import Encoder, encode_text, read_passes
from depth2img.errors import OptionError
from depth2img.prompts.chunks import chunks
from depth2img.prompts.emphasis import pieces
from depth2img.prompts.language import read_prompt, without_comments
from depth2img.prompts.schedule import schedule
from tests.engine import small
from tests.library.prompt_cases import Case, bare, read
from tests.webui_fake.hosts_prompts import WEBUI, Reader, load

pytestmark = pytest.mark.skipif(WEBUI is None, reason="compares with the real WebUI: set WEBUI_DIR (CONTRIBUTING.md)")


@pytest.fixture(scope="module")
def host() -> Any:
    return load("prompt_parser")


@pytest.fixture(scope="module")
def encoder() -> torch.nn.Module:
    return small.modules(midas=False)["text_encoder"]


@pytest.fixture(scope="module")
def reader(encoder: Any) -> Reader:
    """Around the small model's text encoder, so that states can be compared to the last bits."""
    return Reader(lambda ids: encoder(ids).last_hidden_state)


@pytest.fixture(scope="module")
def networks() -> Networks:
    return build(small.model(midas=False), device=torch.device("cpu"), dtype=torch.float32)


MARKS = [*"[]():|\\ ,\n", "ab", "0.5", "3", "(a:1.3)", r"\(", r"\]", ":2)", ": 1.5 )", "BREAK", " AND ", "-1)", " :0.5"]
anything = st.lists(st.sampled_from(MARKS), max_size=14).map("".join)


@given(prompt=anything)
def test_emphasis(host: Any, prompt: str) -> None:
    try:
        theirs = [tuple(piece) for piece in host.parse_prompt_attention(prompt)]
    except ValueError:  # of float()
        with pytest.raises(OptionError):
            pieces(prompt)
        return
    assert [(piece.text, piece.weight) for piece in pieces(prompt)] == theirs


words = st.lists(st.sampled_from(["a", "b c", ", ", " ", "\n", r"\[", r"\:", "é"]), min_size=1, max_size=3).map("".join)
whens = st.sampled_from(["0.5", "3", " 7 ", "-1", ".25", "1e1", "12", "1.5", "0"])


def bracketed(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Whole constructs with words around them."""
    made = st.one_of(
        st.tuples(inner).map(lambda x: f"({x[0]})"),
        st.tuples(inner).map(lambda x: f"[{x[0]}]"),
        st.tuples(inner, st.sampled_from(["1.2", "0.5"])).map(lambda x: f"({x[0]}:{x[1]})"),
        st.tuples(inner, inner, whens).map(lambda x: f"[{x[0]}:{x[1]}:{x[2]}]"),
        st.tuples(inner, whens).map(lambda x: f"[{x[0]}:{x[1]}]"),
        st.tuples(inner, whens).map(lambda x: f"[{x[0]}::{x[1]}]"),
        st.lists(inner | st.just(""), min_size=2, max_size=3).map(lambda x: f"[{'|'.join(x)}]"),
    )
    return st.tuples(words, made, words).map("".join)


written = st.recursive(words, bracketed, max_leaves=6)


@given(prompt=written, hires_steps=st.none() | st.just(7))
def test_schedules(host: Any, prompt: str, hires_steps: int | None) -> None:
    """Of prompts whose brackets are in order; what others mean differs in the WebUI from start to start.

    Its parser resolves ambiguities by the order of a set, so that `[a:b:3]:c` is edited or is not.
    """
    [theirs] = host.get_learned_conditioning_prompt_schedules([prompt], 10, hires_steps)
    made = schedule(prompt, 10, hires_steps)
    assert [[end, text] for end, text in zip(made.ends, made.texts, strict=True)] == theirs


@given(prompt=anything.filter(lambda text: "[" not in text))
def test_and(host: Any, prompt: str) -> None:
    [indices], flat, _ = host.get_multicond_prompt_list([prompt])
    made = read_prompt(prompt, "", 10)
    assert [(part.texts.texts, part.weight) for part in made.parts] == [((flat[at],), weight) for at, weight in indices]


@pytest.mark.parametrize("case", read(), ids=lambda case: case.name)
def test_recorded_cases_are_the_hosts(reader: Reader, case: Case) -> None:
    prompt = without_comments(case.prompt)
    made = reader.parts(prompt, case.steps, case.hires_steps)
    assert [[weight, ends, bare(texts)] for weight, ends, texts in made] == case.parts
    ends, texts = reader.texts(prompt, case.steps, case.hires_steps)
    assert [ends, bare(texts)] == case.negative


sentence = st.lists(
    st.sampled_from(["red", "a cube", ", ", ",", " ", "(", ")", "[", "]", ":1.2)", " BREAK ", "supercalifragilistic "]),
    max_size=160,
).map("".join)


@given(prompt=sentence)
@settings(max_examples=60, deadline=None)
def test_chunks(reader: Reader, prompt: str) -> None:
    theirs, _ = reader.encoder.tokenize_line(prompt)
    ours = chunks(prompt, text_tokens)
    assert [list(chunk.tokens) for chunk in ours] == [chunk.tokens for chunk in theirs]
    assert [list(chunk.weights) for chunk in ours] == [chunk.multipliers for chunk in theirs]


@torch.no_grad()
@pytest.mark.parametrize("case", read(), ids=lambda case: case.name)
def test_states(reader: Reader, networks: Networks, case: Case) -> None:
    hires = {} if case.hires_steps is None else {"hr_scale": 2.0, "hr_second_pass_steps": case.hires_steps}
    given = Settings(prompt="", negative_prompt=case.prompt, steps=case.steps, **hires)
    made = encode_text(Encoder(networks), read_passes(given, {})[-1]).negative
    theirs = reader.states(without_comments(case.prompt), case.steps, case.hires_steps)
    assert len(theirs) == len(made.tokens.order)
    for index, expected in zip(made.tokens.order, theirs, strict=True):
        # The same network in float32, several texts at once: other orders of sums, and a mean close to zero.
        assert float((made.values[index] - expected).abs().max()) <= 1e-5 * float(expected.abs().max()) + 1e-6
