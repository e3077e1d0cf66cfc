"""The prompt language, apart from tokens: emphasis, schedules, AND, chunks, hostile prompts."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth2img.errors import OptionError
from depth2img.prompts.chunks import BACKTRACK, COMMA, END, SIZE, START, Word, chunks
from depth2img.prompts.emphasis import pieces
from depth2img.prompts.language import LONGEST, MOST_PARTS, Lora, read_prompt, take_networks, without_comments
from depth2img.prompts.schedule import DEEPEST, schedule


def weighted(prompt: str) -> list[tuple[str, float]]:
    return [(piece.text, round(piece.weight, 6)) for piece in pieces(prompt)]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red cube", [("a red cube", 1)]),
        ("", [("", 1)]),
        ("a (red:1.4) cube", [("a ", 1), ("red", 1.4), (" cube", 1)]),
        ("((a)) [b]", [("a", 1.21), (" ", 1), ("b", 0.909091)]),
        (r"\(a\) \[b\] c\\d \e", [("(a) [b] c\\d e", 1)]),
        ("(a [b) c]", [("a ", 1.1), ("b", 1), (" c", 0.909091)]),
        ("(open", [("open", 1.1)]),
        ("a) b:c", [("a) b:c", 1)]),
        ("one BREAK two", [("one", 1), ("BREAK", -1), ("two", 1)]),
        ("(one BREAK two)", [("one", 1.1), ("BREAK", -1.1), ("two", 1.1)]),
    ],
)
def test_emphasis(prompt: str, expected: list[tuple[str, float]]) -> None:
    assert weighted(prompt) == expected


def texts(prompt: str, steps: int = 10, hires_steps: int | None = None) -> list[tuple[int, str]]:
    made = schedule(prompt, steps, hires_steps)
    return list(zip(made.ends, made.texts, strict=True))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("plain", [(10, "plain")]),
        ("a [red:blue:0.5] cube", [(5, "a red cube"), (10, "a blue cube")]),
        ("a [red:blue: 3 ] cube", [(3, "a red cube"), (10, "a blue cube")]),
        ("a [night:.2]", [(2, "a "), (10, "a night")]),
        ("a [day::4]", [(4, "a day"), (10, "a ")]),
        ("[a:b:0]", [(10, "b")]),
        ("[a:b:-1e999]", [(10, "b")]),
        ("[a:b:1e999]", [(10, "a")]),
        ("[x:[y:z:6]:2]", [(2, "x"), (6, "y"), (10, "z")]),
        ("[(a:1.2):(b):5]", [(5, "(a:1.2)"), (10, "(b)")]),
        ("[a] (b:1.2) [c:d]", [(10, "[a] (b:1.2) [c:d]")]),
        ("open [a [b:c:5]", [(5, "open [a b"), (10, "open [a c")]),
        ("[a (b:c:5]", [(10, "[a (b:c:5]")]),
        ("[a:b:3] | c", [(10, "[a:b:3] | c")]),
        ("[a:b:3] \\", [(10, "[a:b:3] \\")]),
        (r"[a\:b:c:5]", [(5, r"a\:b"), (10, "c")]),
    ],
)
def test_prompt_editing(prompt: str, expected: list[tuple[int, str]]) -> None:
    assert texts(prompt) == expected


def test_alternation() -> None:
    assert texts("[a|b|]c", 4) == [(1, "ac"), (2, "bc"), (3, "c"), (4, "ac")]
    assert texts("[a|[b:c:2]]", 4) == [(1, "a"), (2, "b"), (3, "a"), (4, "c")]


def test_in_the_hires_pass_numbers_go_on() -> None:
    assert texts("[a:b:0.5]", 10, 6) == [(6, "b")]
    assert texts("[a:b:1.5]", 10, 6) == [(3, "a"), (6, "b")]
    assert texts("[a:b:12]", 10, 6) == [(2, "a"), (6, "b")]


def test_steps_count_calls_from_zero() -> None:
    """As the WebUI's do: the text up to step 3 has four calls; after the last step it is the first one again."""
    made = schedule("[a:b:3]", 10)
    assert [made.index(step) for step in range(12)] == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0]


def test_and_with_weights_and_the_negative_prompt() -> None:
    made = read_prompt("a cube AND a [ball:cone:0.5] :0.5 AND sky : -1 ", "blue AND [x:y:0.5]", 4)
    assert [part.weight for part in made.parts] == [1, 0.5, -1]
    assert [part.texts.texts for part in made.parts] == [("a cube",), (" a ball", " a cone"), (" sky",)]
    assert made.negative.texts == ("blue AND x", "blue AND y")
    assert read_prompt("SAND AND1", "", 4).parts[0].texts.texts == ("SAND AND1",)


def test_comments() -> None:
    assert without_comments("a # b\nc\n# d\n#e\nf") == "a \nc\n\nf"


def test_loras_are_taken_out() -> None:
    text, found = take_networks("a<lora:clay> b <lora:x y:0.5> <lyco:z:te=0.2:unet=1.5> c<lora:q:0.1:0.2>")
    assert text == "a b   c"
    assert found == (Lora("clay"), Lora("x y", 0.5, 0.5), Lora("z", 0.2, 1.5), Lora("q", 0.1, 0.2))


@pytest.mark.parametrize("prompt", ["<hypernet:a:1>", "<lora:a:b>", "<lora:a:1:1:4>", "<lora:a:x=1>", "<lora:a:nan>"])
def test_an_extra_network_that_is_not_known_is_an_error(prompt: str) -> None:
    with pytest.raises(OptionError, match=r"extra networks|is written <lora"):
        read_prompt(prompt, "", 4)


def letters(text: str) -> list[int]:
    """Each letter a token; a comma CLIP's."""
    return [COMMA if letter == "," else ord(letter) for letter in text if letter != " "]


def filled(prompt: str, words: Any = None) -> list[str]:
    """The chunks as text, without start and end; `_` for the end that fills up."""
    names = {COMMA: ",", END: "_", 0: "*"}
    made = chunks(prompt, letters, words)
    assert all(chunk.tokens[0] == START and len(chunk.tokens) == len(chunk.weights) == SIZE + 2 for chunk in made)
    return ["".join(names.get(token, chr(token)) for token in chunk.tokens[1:]).rstrip("_") for chunk in made]


def test_chunks_of_75() -> None:
    assert filled("") == [""]
    assert filled("a" * 75) == ["a" * 75]
    assert filled("a" * 76) == ["a" * 75, "a"]
    assert filled("a BREAK b BREAK") == ["a", "b"]
    assert filled("BREAK a") == ["", "a"]


def test_what_follows_the_last_comma_moves() -> None:
    assert filled("a" * (75 - BACKTRACK) + "," + "b" * 30) == ["a" * (75 - BACKTRACK) + ",", "b" * 30]
    more = 75 - BACKTRACK - 1  # one token too far back
    assert filled("a" * more + "," + "b" * 30) == ["a" * more + "," + "b" * BACKTRACK, "b" * (30 - BACKTRACK)]
    assert filled("a" * 75 + "," + "b") == ["a" * 75, ",b"]


def test_weights_go_with_their_tokens() -> None:
    [first, second] = chunks("a" * 70 + ",(" + "b" * 9 + ":1.5)", letters)
    assert first.weights == (1.0,) * 77
    assert second.weights == (1.0, *(1.5,) * 9, *(1.0,) * 67)


def test_learned_words() -> None:
    words = {tuple(letters("cl")): Word("cl", 3), tuple(letters("clay")): Word("clay", 2)}
    [chunk] = chunks("a (clay:1.2) cl", letters, words)
    assert chunk.words == ((2, words[tuple(letters("clay"))]), (4, words[tuple(letters("cl"))]))
    assert chunk.tokens[1:8] == (ord("a"), 0, 0, 0, 0, 0, END)
    assert chunk.weights[1:5] == (1, 1.2, 1.2, 1)
    assert filled("a" * 73 + "cl", words) == ["a" * 73, "***"], "a word is not cut in two"


@pytest.mark.parametrize(
    "prompt",
    [
        "[" * (DEEPEST + 1) + "a" + "]" * (DEEPEST + 1),
        "a" * (LONGEST + 1),
        " AND ".join("a" * (MOST_PARTS + 1)),
        "(a:100000)",
        "(a:1.2.3)",
        "(" * 150 + "a" + ")" * 150,
    ],
    ids=["nested", "long", "parts", "heavy", "number", "emphasised"],
)
def test_what_nobody_means_is_refused(prompt: str) -> None:
    def read() -> None:
        made = read_prompt(prompt, "", 20)
        chunks(made.parts[0].texts.texts[0], letters)

    with pytest.raises(OptionError, match=r"prompt|AND"):
        read()


@pytest.mark.parametrize(
    "prompt",
    ["[" * 9000, "[a:" * 6000, "]" * 9000, "[a|" * 6000, "\\" * 9999, ":" * 9000, " " * 19_000 + "x", "<" * 19_000],
)
def test_hostile_prompts_take_no_time(prompt: str) -> None:
    """Parsing is linear: some 20 ms for every thousand brackets, where quadratic time would be minutes."""
    begun = time.process_time()
    read_prompt(prompt, prompt, 20)
    assert time.process_time() - begun < 3


@given(st.text(alphabet="[]():|ab, 1.5\\\nBREAKAND<>#", max_size=60), st.integers(1, 30), st.none() | st.integers(1, 9))
def test_any_text_is_a_prompt_or_an_error(prompt: str, steps: int, hires_steps: int | None) -> None:
    try:
        made = read_prompt(prompt, prompt, steps, hires_steps)
    except OptionError:
        return
    for part in (*(one.texts for one in made.parts), made.negative):
        assert part.ends[-1] == (hires_steps or steps) and list(part.ends) == sorted(set(part.ends))
        assert all(0 <= part.index(step) < len(part.texts) for step in range(40))
