"""Prompts as people write them, with the tokens and weights that WebUI 1.10.1 makes of them.

`tests/webui_fake/test_prompt_contract.py` and `tests/webui_real/test_prompts.py` compare them with the real WebUI's.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "cases" / "prompts.json"


@dataclasses.dataclass(frozen=True)
class Case:
    """A prompt, its steps, and what the WebUI makes of it.

    `parts`: weight, ends and chunks of each text: tokens and weights, see `bare`. `negative`: the same of the prompt as
    a negative one, without a weight.
    """

    name: str
    prompt: str
    steps: int
    hires_steps: int | None
    parts: list[Any]
    negative: Any


def read() -> list[Case]:
    return [Case(**one) for one in json.loads(FILE.read_text(encoding="utf-8"))]


def bare(texts: list[Any]) -> list[Any]:
    """Texts as chunks, tokens and weights, without the start and the ends that fill a chunk up."""
    return [[_bare(tokens, weights) for tokens, weights in text] for text in texts]


def _bare(tokens: list[int], weights: list[float]) -> list[Any]:
    assert tokens[0] == 49406 and weights[0] == 1 and len(tokens) == len(weights) == 77
    end = max((at + 1 for at in range(77) if (tokens[at], weights[at]) != (49407, 1)), default=1)
    return [list(tokens[1:end]), list(weights[1:end])]


def simplified(part: Any) -> Any:
    """Our `Tokens` in the form of a case: ends and, for each of them, the chunks."""
    texts = [part.chunks[index] for index in part.order]
    return [list(part.texts.ends), bare([[(chunk.tokens, chunk.weights) for chunk in text] for text in texts])]
