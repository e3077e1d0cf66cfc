"""Captions for scenes and looks: synonyms, several word orders, light and style words.

Items are named from left to right, unless the caption says which side each one stands on.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tools.embedded_model.looks import ItemLook, Look
from tools.embedded_model.palette import COLOUR_NAMES
from tools.embedded_model.scenes import Item, Scene

Words = tuple[str, ...]
COLOUR_WORDS: Final[dict[str, Words]] = {
    "red": ("red", "crimson", "scarlet"),
    "orange": ("orange", "tangerine"),
    "yellow": ("yellow", "golden"),
    "green": ("green", "emerald"),
    "cyan": ("cyan", "turquoise", "teal"),
    "blue": ("blue", "navy blue"),
    "purple": ("purple", "violet"),
    "white": ("white", "ivory"),
    "pink": ("pink", "rose"),
    "black": ("black",),
}
KIND_WORDS: Final[dict[str, Words]] = {
    "box": ("box", "cube", "block"),
    "cylinder": ("cylinder", "drum", "column"),
    "sphere": ("sphere", "ball"),
    "cone": ("cone",),
    "pyramid": ("pyramid",),
}
MATERIAL_WORDS: Final[dict[str, Words]] = {
    "matte": ("",),
    "shiny": ("shiny", "glossy", "metal"),
    "striped": ("striped",),
}
NOUNS: Final[dict[tuple[str, bool], Words]] = {
    ("clothes", True): ("woman", "lady", "person"),
    ("clothes", False): ("man", "guy", "person"),
    ("dress", True): ("woman", "lady", "girl"),
    ("dancer", True): ("dancer", "ballerina"),
    ("dancer", False): ("dancer",),
    ("wrestler", True): ("wrestler", "fighter"),
    ("wrestler", False): ("wrestler", "fighter"),
    ("robot", True): ("robot", "android"),
    ("robot", False): ("robot", "android"),
    ("statue", True): ("statue", "marble statue", "stone statue"),
    ("statue", False): ("statue", "marble statue", "stone statue"),
}
PLURALS: Final = {
    "woman": "women", "lady": "ladies", "man": "men", "guy": "guys", "person": "people", "girl": "girls",
    "dancer": "dancers", "wrestler": "wrestlers", "robot": "robots", "statue": "statues",
}  # fmt: skip
POSE_PHRASES: Final[dict[str, Words]] = {
    "standing": ("standing", ""),
    "raising": ("raising {their} arms", "with arms raised", "with arms up"),
    "waving": ("waving", "waving a hand"),
    "stretching": ("with arms outstretched", "stretching out the arms"),
    "walking": ("walking", "on a walk"),
    "running": ("running", "jogging"),
    "sitting": ("sitting", "sitting on a chair", "seated"),
    "kneeling": ("kneeling", "on the knees"),
    "dancing": ("dancing", "in a dance"),
    "bowing": ("bowing", "bending forward"),
    "lying": ("lying", "lying on the floor", "asleep"),
    "wrestling": ("wrestling", "fighting"),
}
NUMBERS: Final = {2: "two", 3: "three"}
FLOOR_WORDS: Final = ("floor", "ground")
LIGHT_PHRASES: Final[dict[str, Words]] = {
    "day": ("day", "by day", "in daylight", "at noon", "sunny day"),
    "sunset": ("sunset", "at sunset", "in the evening sun", "dusk"),
    "night": ("night", "at night", "in the dark", "moonlit night"),
    "fog": ("fog", "in fog", "foggy", "in the mist"),
}
STYLE_OPENINGS: Final[dict[str, Words]] = {
    "plain": ("a photo of", "a picture of", "a render of", "an image of", "a photograph of"),
    "clay": ("a clay model of", "a clay figure of", "a clay sculpture of"),
    "line": ("a line drawing of", "an ink drawing of", "a pencil sketch of"),
    "watercolour": ("a watercolour of", "a watercolour painting of", "a watercolor of"),
    "neon": ("a neon sign of", "a neon drawing of"),
}
STYLE_CLOSINGS: Final[dict[str, Words]] = {
    "plain": ("photo", "plain", "photograph"),
    "clay": ("clay", "as clay", "made of clay"),
    "line": ("line drawing", "as a line drawing", "sketch"),
    "watercolour": ("watercolour", "as a watercolour", "watercolor painting"),
    "neon": ("neon", "in neon", "as a neon sign"),
}
SIZE_WORDS: Final = ("big", "large", "huge")
STRANGE_WORDS: Final = ("detailed", "beautiful", "studio", "modern", "cat", "house", "wooden", "masterpiece")
JOINING: Final = "and next to beside on under in the left right a an sky , one with front of wall field meadow grass "
CLOTHING: Final = "in wearing shirt top trousers pants dress leotard trunks trees a tree hills window room"


def _pick(rng: np.random.Generator, words: Words) -> str:
    """One of the words; the first, the plainest, as often as all others together."""
    if len(words) == 1 or rng.random() < 0.5:
        return words[0]
    return words[int(rng.integers(1, len(words)))]


def _colour(rng: np.random.Generator, colour: int) -> str:
    return _pick(rng, COLOUR_WORDS[COLOUR_NAMES[colour]])


def _a(text: str) -> str:
    return f"{'an' if text[:1] in 'aeiou' else 'a'} {text}"


def _wear(rng: np.random.Generator, its: ItemLook) -> str:
    """Name what a figure wears, to follow its noun; empty for robots and statues."""
    above, below = (_colour(rng, colour) for colour in its.colours)
    if its.outfit == "clothes":
        trousers = ("trousers", "pants")[int(rng.integers(2))]
        options: Words = (f"in {_a(above)} shirt and {below} {trousers}", f"in {above} and {below}",
                   f"wearing {_a(above)} top and {below} {trousers}")  # fmt: skip
    elif its.outfit == "dress":
        options = (f"in {_a(above)} dress", f"wearing {_a(above)} dress", f"in {above}")
    elif its.outfit == "dancer":
        options = (f"in {above}", f"in {_a(above)} leotard", f"wearing {above}")
    elif its.outfit == "wrestler":
        options = (f"in {above} trunks", f"in {above}", f"wearing {above} trunks")
    else:
        return ""
    return _pick(rng, options)


def _figure(rng: np.random.Generator, item: Item, its: ItemLook, *, posed: bool = True) -> str:
    noun = _pick(rng, NOUNS[its.outfit, item.woman])
    if its.outfit == "robot":
        noun = f"{_colour(rng, its.colours[0])} {noun}"
    elif its.outfit in ("dancer", "wrestler") and rng.random() < 0.2:
        return _joined(f"a {_colour(rng, its.colours[0])} {noun}", _pose(rng, item) if posed else "")
    return _joined(_a(noun), _wear(rng, its), _pose(rng, item) if posed else "")


def _pose(rng: np.random.Generator, item: Item) -> str:
    return _pick(rng, POSE_PHRASES[item.pose]).format(their="her" if item.woman else "his")


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _solid(rng: np.random.Generator, item: Item, its: ItemLook) -> str:
    size = SIZE_WORDS[int(rng.integers(len(SIZE_WORDS)))] if rng.random() < 0.1 else ""
    noun, colour = _pick(rng, KIND_WORDS[item.kind]), _colour(rng, its.colours[0])
    material = _pick(rng, MATERIAL_WORDS[its.material])
    if rng.random() < 0.1:
        return _joined(_a(_joined(size, material, noun)), "in", colour)
    return _a(_joined(size, material, colour, noun)) if rng.random() < 0.85 else _joined(size, material, colour, noun)


def _group(rng: np.random.Generator, scene: Scene, look: Look) -> str:
    """Name figures of one outfit together, as "two wrestlers, one in red and one in blue"."""
    outfit, count = look.items[0].outfit, len(scene.items)
    women = {item.woman for item in scene.items}
    if outfit in ("clothes", "dress"):
        noun = "people" if len(women) > 1 or rng.random() < 0.3 else PLURALS[NOUNS[outfit, women.pop()][0]]
    else:
        noun = PLURALS[NOUNS[outfit, False][0]]
    poses = {item.pose for item in scene.items}
    verb = _pick(rng, POSE_PHRASES[poses.pop()]).format(their="their") if len(poses) == 1 and rng.random() < 0.6 else ""
    text = _joined(NUMBERS[count], noun, verb)
    if outfit == "statue" or rng.random() < 0.25:
        return text
    colours = [_colour(rng, its.colours[0]) for its in look.items]
    if rng.random() < 0.5:
        return f"{text}, " + " and ".join(f"one in {colour}" for colour in colours)
    return f"{text} in " + " and ".join(colours)


def _items(rng: np.random.Generator, scene: Scene, look: Look) -> str:
    figures = all(item.kind == "figure" for item in scene.items)
    alike = len({its.outfit for its in look.items}) == 1
    if figures and alike and len(scene.items) > 1 and rng.random() < 0.65:
        return _group(rng, scene, look)
    brief = len(scene.items) > 2
    phrases = [
        _figure(rng, item, its, posed=not brief or rng.random() < 0.4)
        if item.kind == "figure"
        else _solid(rng, item, its)
        for item, its in zip(scene.items, look.items, strict=True)
    ]
    if len(phrases) == 2 and rng.random() < 0.25:
        phrases = [f"{phrases[0]} on the left", f"{phrases[1]} on the right"]
        if rng.random() < 0.5:
            phrases.reverse()
    return (" and ", ", ", " next to ", " beside ")[int(rng.choice(4, p=(0.55, 0.25, 0.1, 0.1)))].join(phrases)


def _surroundings(rng: np.random.Generator, scene: Scene, look: Look) -> list[str]:
    floor, back = _colour(rng, look.floor), _colour(rng, look.back)
    ground = _pick(rng, FLOOR_WORDS)
    if look.checkered:
        floor = f"checkered {floor}"
    if scene.setting == "room":
        parts = [_pick(rng, (f"in {_a(back)} room", f"in front of {_a(back)} wall")), f"{floor} {ground}"]
        if scene.window and rng.random() < 0.5:
            parts.append("a window")
        return parts
    if scene.setting == "landscape" and rng.random() < 0.6:
        parts = [f"on {_a(floor)} {('field', 'meadow', 'ground')[int(rng.integers(3))]}", f"under {_a(back)} sky"]
    else:
        parts = [
            f"on {_a(floor)} {ground}",
            f"{'under ' if rng.random() < 0.3 else ''}{_a(back) if rng.random() < 0.5 else back} sky",
        ]
    if scene.trees and rng.random() < 0.5:
        parts.append("trees" if scene.trees > 1 else "a tree")
    if scene.hills and rng.random() < 0.4:
        parts.append("hills")
    return parts


def plain_caption(scene: Scene, look: Look) -> str:
    """Write the caption without synonyms, for the evaluation."""

    def one(item: Item, its: ItemLook) -> str:
        above, below = (COLOUR_NAMES[colour] for colour in its.colours)
        if item.kind != "figure":
            return _a(_joined({"matte": ""}.get(its.material, its.material), above, item.kind))
        wear = {"clothes": f"in {_a(above)} shirt and {below} trousers", "dress": f"in {_a(above)} dress",
                "dancer": f"in {above}", "wrestler": f"in {above} trunks"}.get(its.outfit, "")  # fmt: skip
        noun = NOUNS[its.outfit, item.woman][0]
        pose = POSE_PHRASES[item.pose][0].format(their="her" if item.woman else "his")
        return _joined(_a(f"{above} {noun}" if its.outfit == "robot" else noun), wear, pose)

    items = " and ".join(one(item, its) for item, its in zip(scene.items, look.items, strict=True))
    floor, back = COLOUR_NAMES[look.floor], COLOUR_NAMES[look.back]
    floor = f"checkered {floor}" if look.checkered else floor
    place = f"in {_a(back)} room, {floor} floor" if scene.setting == "room" else f"on {_a(floor)} floor, {back} sky"
    style = "" if look.style == "plain" else f", {STYLE_CLOSINGS[look.style][0]}"
    return f"{items} {place}, {look.light}{style}"


def caption(rng: np.random.Generator, scene: Scene, look: Look) -> str:
    """One of many ways to say the same scene; now and then a part is left out or a strange word added."""
    if rng.random() < 0.15:
        return plain_caption(scene, look)
    items = _items(rng, scene, look)
    around = [part for part in _surroundings(rng, scene, look) if rng.random() >= 0.06]
    light = _pick(rng, LIGHT_PHRASES[look.light])
    if (look.light == "day" and rng.random() < 0.2) or (look.style in ("line", "neon") and rng.random() < 0.5):
        light = ""
    opening = closing = ""
    roll = rng.random()
    if look.style == "plain":
        opening = _pick(rng, STYLE_OPENINGS["plain"]) if roll < 0.2 else ""
        closing = _pick(rng, STYLE_CLOSINGS["plain"]) if roll > 0.9 else ""
    elif roll < 0.5:
        opening = _pick(rng, STYLE_OPENINGS[look.style])
    else:
        closing = _pick(rng, STYLE_CLOSINGS[look.style])
    subject = _joined(opening, items)
    order = int(rng.integers(4))
    if order == 0 and around and around[0].split()[0] in ("on", "in"):
        parts = [f"{subject} {around[0]}", *around[1:], light]
    elif order == 1:
        parts = [light, subject, *around]
    elif order == 2:
        parts = [subject, light, *around]
    else:
        parts = [subject, *around, light]
    parts.insert(0 if rng.random() < 0.2 and not opening else len(parts), closing)
    if rng.random() < 0.06:
        parts.insert(int(rng.integers(len(parts) + 1)), STRANGE_WORDS[int(rng.integers(len(STRANGE_WORDS)))])
    return ", ".join(part for part in parts if part)


def vocabulary() -> list[str]:
    """Every word a caption can hold, except STRANGE_WORDS, which stand for all words never trained."""
    tables = (
        COLOUR_WORDS,
        KIND_WORDS,
        MATERIAL_WORDS,
        NOUNS,
        POSE_PHRASES,
        LIGHT_PHRASES,
        STYLE_OPENINGS,
        STYLE_CLOSINGS,
    )
    groups: list[Words] = [words for table in tables for words in table.values()]
    groups += [tuple(PLURALS.values()), tuple(NUMBERS.values()), FLOOR_WORDS, SIZE_WORDS, (JOINING, CLOTHING)]
    words = {
        word for group in groups for phrase in group for word in phrase.replace("{their}", "her his their").split()
    }
    return sorted(words | {"checkered"})
