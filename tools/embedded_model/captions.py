"""Captions for scenes: synonyms, several word orders, a light word.

Solids are named from left to right, unless the caption says which side each one stands on.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tools.embedded_model.palette import COLOUR_NAMES
from tools.embedded_model.scenes import Geometry, Look

COLOUR_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "red": ("red", "crimson", "scarlet"),
    "orange": ("orange", "tangerine"),
    "yellow": ("yellow", "golden"),
    "green": ("green", "emerald"),
    "cyan": ("cyan", "turquoise", "teal"),
    "blue": ("blue", "navy blue"),
    "purple": ("purple", "violet"),
    "white": ("white", "ivory"),
}
KIND_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "box": ("box", "cube", "block"),
    "cylinder": ("cylinder", "drum", "column"),
    "sphere": ("sphere", "ball"),
    "cone": ("cone",),
    "pyramid": ("pyramid",),
}
FLOOR_WORDS: Final = ("floor", "ground")
LIGHT_PHRASES: Final[dict[str, tuple[str, ...]]] = {
    "day": ("day", "by day", "in daylight", "at noon", "sunny day"),
    "sunset": ("sunset", "at sunset", "in the evening sun", "dusk"),
    "night": ("night", "at night", "in the dark", "moonlit night"),
    "fog": ("fog", "in fog", "foggy", "in the mist"),
}
OPENINGS: Final = ("a picture of", "a photo of", "a drawing of", "a render of", "an image of")
SIZE_WORDS: Final = ("big", "large", "huge")
STRANGE_WORDS: Final = ("detailed", "beautiful", "tree", "studio", "modern", "cat", "house", "wooden", "masterpiece")


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    """One of the words; the first, the plainest, as often as all others together."""
    if len(words) == 1 or rng.random() < 0.5:
        return words[0]
    return words[int(rng.integers(1, len(words)))]


def _thing(rng: np.random.Generator, colour: int, noun: str, article: str) -> str:
    word = _pick(rng, COLOUR_WORDS[COLOUR_NAMES[colour]])
    if rng.random() < 0.1:
        return f"{article} {noun} in {word}".strip()
    return f"{article} {word} {noun}".strip()


def _solids(rng: np.random.Generator, geometry: Geometry, look: Look) -> str:
    article = "a" if rng.random() < 0.8 else ""
    phrases = []
    for solid, colour in zip(geometry.solids, look.solids, strict=True):
        noun = _pick(rng, KIND_WORDS[solid.kind])
        size = SIZE_WORDS[int(rng.integers(len(SIZE_WORDS)))] if rng.random() < 0.1 else ""
        phrases.append(_thing(rng, colour, noun, f"{article} {size}".strip()))
    if len(phrases) == 2 and rng.random() < 0.25:
        phrases = [f"{phrases[0]} on the left", f"{phrases[1]} on the right"]
        if rng.random() < 0.5:
            phrases.reverse()
    return (" and ", ", ", " next to ", " beside ")[int(rng.choice(4, p=(0.55, 0.25, 0.1, 0.1)))].join(phrases)


def plain_caption(geometry: Geometry, look: Look) -> str:
    """The caption without synonyms, used by the evaluation."""
    solids = " and ".join(
        f"a {COLOUR_NAMES[colour]} {solid.kind}" for solid, colour in zip(geometry.solids, look.solids, strict=True)
    )
    return f"{solids} on a {COLOUR_NAMES[look.floor]} floor, {COLOUR_NAMES[look.sky]} sky, {look.light}"


def caption(rng: np.random.Generator, geometry: Geometry, look: Look) -> str:
    """One of many ways to say the same scene; now and then a part is left out or a strange word added."""
    if rng.random() < 0.15:
        return plain_caption(geometry, look)
    solids = _solids(rng, geometry, look)
    floor = _thing(rng, look.floor, _pick(rng, FLOOR_WORDS), "a" if rng.random() < 0.6 else "")
    sky = _thing(rng, look.sky, "sky", "a" if rng.random() < 0.6 else "")
    light = _pick(rng, LIGHT_PHRASES[look.light])
    if rng.random() < 0.15 and look.light == "day":
        light = ""
    if rng.random() < 0.15:
        solids = f"{OPENINGS[int(rng.integers(len(OPENINGS)))]} {solids}"
    kept = [part for part, chance in ((floor, 0.05), (sky, 0.05)) if rng.random() >= chance]
    order = int(rng.integers(4))
    if order == 0 and len(kept) == 2:
        parts = [f"{solids} on {floor}", f"{'under ' if rng.random() < 0.5 else ''}{sky}", light]
    elif order == 1:
        parts = [light, solids, *kept]
    elif order == 2:
        parts = [*reversed(kept), solids, light]
    else:
        parts = [solids, *kept, light]
    if rng.random() < 0.06:
        parts.insert(int(rng.integers(len(parts) + 1)), STRANGE_WORDS[int(rng.integers(len(STRANGE_WORDS)))])
    return ", ".join(part for part in parts if part)


def vocabulary() -> list[str]:
    """Every word a caption can hold, except STRANGE_WORDS, which stand for all words never trained."""
    groups = [*COLOUR_WORDS.values(), *KIND_WORDS.values(), *LIGHT_PHRASES.values(), FLOOR_WORDS, OPENINGS, SIZE_WORDS]
    words = {word for group in groups for phrase in group for word in phrase.split()}
    return sorted(
        words | {"and", "next", "to", "beside", "on", "under", "in", "the", "left", "right", "a", "an", "sky", ","}
    )
