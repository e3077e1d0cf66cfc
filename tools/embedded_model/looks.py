"""Looks: colours, clothes, materials, light and style of a scene, drawn apart from its geometry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from tools.embedded_model import palette
from tools.embedded_model.figures import PARTS
from tools.embedded_model.palette import BACKGROUND_COLOURS, COLOUR_NAMES, COLOURS, LIGHT_NAMES
from tools.embedded_model.poses import Rng
from tools.embedded_model.scenes import SLOT, SLOTS, Item, Scene, part_slots

STYLES: Final = ("plain", "clay", "line", "watercolour", "neon")
OUTFITS: Final = ("clothes", "dress", "dancer", "wrestler", "robot", "statue")
MATERIALS: Final = ("matte", "shiny", "striped")
NO_COLOUR: Final = -1


@dataclass(frozen=True)
class ItemLook:
    """Of one item: colours as indices into COLOUR_NAMES (a figure has two: above, below), outfit and material."""

    colours: tuple[int, int]
    outfit: str = ""
    material: str = "matte"
    skin: int = 0
    hair: int = 0
    shoes: int = 0


@dataclass(frozen=True)
class Look:
    """Looks of the items in the scene's order, colours of floor and of wall or sky, light and style words."""

    items: tuple[ItemLook, ...]
    floor: int
    back: int
    light: str
    style: str
    checkered: bool = False
    others: tuple[int, int, int] = (0, 0, 0)
    """Leaves, hills, furniture."""


def _outfit(rng: Rng, item: Item, together: str) -> str:
    roll = rng.random()
    if roll < 0.07:
        return "robot"
    if roll < 0.12:
        return "statue"
    if item.skirt:
        return "dancer" if together == "dancing" and rng.random() < 0.6 else "dress"
    if together == "wrestling":
        return "wrestler" if rng.random() < 0.75 else ("dancer", "clothes")[int(rng.integers(2))]
    if together == "dancing":
        return "dancer" if rng.random() < 0.70 else ("wrestler", "clothes")[int(rng.integers(2))]
    wear = ("clothes", "dancer", "wrestler")
    chances = (0.35, 0.45, 0.20) if item.pose in ("dancing", "stretching") else (0.64, 0.18, 0.18)
    return wear[int(rng.choice(3, p=chances))]


def sample_look(rng: Rng, scene: Scene, *, light: str | None = None, style: str | None = None) -> Look:
    """Colours that all differ within the scene; day twice as often as each other light, plain as all other styles."""
    back = rng.permutation(BACKGROUND_COLOURS)[:2]
    rest = [int(c) for c in rng.permutation(len(COLOUR_NAMES)) if c not in back]
    outfits = [_outfit(rng, item, scene.together) for item in scene.items]
    if scene.together and rng.random() < 0.8:
        outfits = [outfits[0]] * len(outfits) if not scene.items[1].skirt and not scene.items[0].skirt else outfits
    items = []
    for item, outfit in zip(scene.items, outfits, strict=True):
        pair = (rest.pop(), rest.pop())
        skin, hair, shoes = (int(rng.integers(n)) for n in (len(palette.SKINS), len(palette.HAIRS), len(palette.SHOES)))
        if item.kind == "figure":
            items.append(ItemLook(pair, outfit, "shiny" if outfit == "robot" else "matte", skin, hair, shoes))
        else:
            items.append(ItemLook(pair, "", MATERIALS[int(rng.choice(3, p=(0.6, 0.2, 0.2)))]))
    return Look(
        tuple(items), int(back[0]), int(back[1]),
        light or LIGHT_NAMES[int(rng.choice(len(LIGHT_NAMES), p=(0.4, 0.2, 0.2, 0.2)))],
        style or STYLES[int(rng.choice(len(STYLES), p=(0.48, 0.13, 0.13, 0.13, 0.13)))],
        bool(rng.random() < 0.1),
        (int(rng.integers(3)), int(rng.integers(3)), int(rng.integers(4))),
    )  # fmt: skip


def recolour(rng: Rng, scene: Scene, look: Look) -> Look:
    """Change every colour of a look; clothes, light and style stay."""
    old = [look.floor, look.back, *(c for item in look.items for c in item.colours)]
    while True:
        other = sample_look(rng, scene, light=look.light, style=look.style)
        new = [other.floor, other.back, *(c for item in other.items for c in item.colours)]
        if all(a != b for a, b in zip(old, new, strict=True)):
            break
    items = tuple(replace(its, outfit=was.outfit, material=was.material, skin=was.skin, hair=was.hair)
                  for its, was in zip(other.items, look.items, strict=True))  # fmt: skip
    return replace(other, items=items, checkered=look.checkered, others=look.others)


def mirrored(scene: Scene, look: Look) -> tuple[Scene, Look]:
    """Scene and look as their mirrored picture shows them: items from the other end. For captions only."""
    return replace(scene, items=scene.items[::-1]), replace(look, items=look.items[::-1])


@dataclass(frozen=True)
class Table:
    """A look by slot: `colour` (SLOTS, 3), `name` int (SLOTS,) the colour that a caption says or -1, `material` int."""

    colour: npt.NDArray[np.float32]
    name: npt.NDArray[np.int8]
    material: npt.NDArray[np.int8]


def _dressed(woman: bool, item: ItemLook) -> dict[str, int | tuple[float, float, float]]:
    """Colour of each part of a figure: a name's index, or a triple for what no caption says."""
    above, below = item.colours
    skin, hair, shoes = palette.SKINS[item.skin], palette.HAIRS[item.hair], palette.SHOES[item.shoes]
    bare: dict[str, int | tuple[float, float, float]] = dict.fromkeys(PARTS, skin)
    bare |= {"hair": hair, "foot": shoes, "skirt": above}
    if item.outfit == "clothes":
        return bare | {
            "chest": above,
            "upper_arm": above,
            "forearm": above,
            "pelvis": below,
            "thigh": below,
            "shin": below,
        }
    if item.outfit == "dress":
        return bare | {"chest": above, "upper_arm": above, "pelvis": above}
    if item.outfit == "dancer":
        return bare | dict.fromkeys(("chest", "pelvis", "thigh", "shin", "foot"), above)
    if item.outfit == "wrestler":
        return bare | {"chest": above if woman else skin, "pelvis": above, "foot": above}
    if item.outfit == "robot":
        red, green, blue = COLOURS[COLOUR_NAMES[above]]
        dark = (0.45 * red, 0.45 * green, 0.45 * blue)
        return bare | dict.fromkeys(PARTS, above) | {"hair": dark, "skin": palette.STEEL}
    return bare | dict.fromkeys(PARTS, palette.STONE)


def tabulate(scene: Scene, look: Look) -> Table:
    """List the look's colours by slot."""
    colour, name = np.zeros((SLOTS, 3), np.float32), np.full(SLOTS, NO_COLOUR, np.int8)
    material = np.zeros(SLOTS, np.int8)
    leaf, hill, furniture = look.others
    for known, rgb in (("leaf", palette.LEAVES[leaf]), ("hill", palette.HILLS[hill]), ("trunk", palette.TRUNK),
                        ("furniture", palette.FURNITURE[furniture]), ("window", palette.WINDOW)):  # fmt: skip
        colour[SLOT[known]] = rgb

    def give(slot: int, value: int | tuple[float, float, float]) -> None:
        if isinstance(value, int):
            name[slot], colour[slot] = value, COLOURS[COLOUR_NAMES[value]]
        else:
            colour[slot] = value

    give(SLOT["floor"], look.floor)
    give(SLOT["wall"], look.back)
    give(SLOT["sky"], look.back)
    if look.checkered:
        material[SLOT["floor"]], name[SLOT["floor"]] = 2, NO_COLOUR
    for index, (item, its) in enumerate(zip(scene.items, look.items, strict=True)):
        slots = part_slots(index + 1)
        dressed = _dressed(item.woman, its) if item.kind == "figure" else {PARTS[0]: its.colours[0]}
        for part, value in dressed.items():
            give(slots[part], value)
            material[slots[part]] = MATERIALS.index(its.material)
            if its.material == "striped":
                name[slots[part]] = NO_COLOUR
    return Table(colour, name, material)
