"""Changes values of a JSON body, and content behind base64: what changing bytes at random hardly ever gets to."""

from __future__ import annotations

import base64
import binascii
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from depth2img.options import OPTIONS

ODD: Sequence[Any] = (
    *(None, True, False, 0, -1, 1e308, float("nan"), float("-inf"), 10**400, "", "\ud800", "\0", "a" * 300, [], {}),
    *([[]], [None], {"": 0}, {"is_file": True, "name": "/etc/passwd"}, "/etc/passwd", "data:,", "true", "0.5"),
)
NAMES = (*OPTIONS, "image", "depth_map", "options", "colour_map", "estimator")
CHOICES = sorted({choice for option in OPTIONS.values() for choice in option.choices} | {"turbo", "grey", "checkpoint"})


def changed(content: bytes, most: int, seed: int, mutate: Callable[[bytes, int], bytes], *, skip: int = 0) -> bytes:
    """A body with one change.

    Args:
        content: the body.
        most: bytes that it may have.
        seed: of what is chosen.
        mutate: the fuzzer's own, for bytes.
        skip: so many bytes before the JSON.
    """
    chance = random.Random(seed)
    if chance.random() < 0.3:
        return mutate(content, most)
    try:
        value = json.loads(content[skip:])
        for _ in range(chance.randint(1, 3)):
            value = _inside(value, chance, mutate)
        head = bytes([chance.randrange(256)]) * skip if chance.random() < 0.2 else content[:skip]
        made = head + json.dumps(value).encode()
    except (ValueError, RecursionError):
        return mutate(content, most)
    return made if len(made) <= most else mutate(content, most)


def _inside(value: Any, chance: random.Random, mutate: Callable[[bytes, int], bytes]) -> Any:
    """One place in a value, changed."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        name = chance.choice(list(value))
        return {**value, name: _inside(value[name], chance, mutate)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        return [*value[:at], _inside(value[at], chance, mutate), *value[at + 1 :]]
    if isinstance(value, dict):
        return {**value, chance.choice(NAMES): _another(chance)}
    if isinstance(value, list):
        return [*value, _another(chance)]
    if isinstance(value, str) and len(value) > 40 and chance.random() < 0.9:
        return _behind(value, mutate)
    return _another(chance)


def _another(chance: random.Random) -> Any:
    kind = chance.randrange(4)
    return [chance.choice(ODD), chance.choice(CHOICES), round(chance.uniform(-2, 12), 3), chance.random() < 0.5][kind]


def _behind(text: str, mutate: Callable[[bytes, int], bytes]) -> str:
    head, comma, rest = text.rpartition(",")
    try:
        content = base64.b64decode(rest, validate=True)
    except (binascii.Error, ValueError):
        return text[: len(text) // 2]
    return head + comma + base64.b64encode(mutate(content, len(content) + 64)).decode()
