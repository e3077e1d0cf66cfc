"""Named colours, named lights, and the rule that says which colour a pixel shows.

Colours are sRGB-like triples in 0..1 and are used as they are (no linear light): the scenes
are drawings, not photographs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

COLOURS: Final[dict[str, tuple[float, float, float]]] = {
    "red": (0.86, 0.11, 0.12),
    "orange": (0.96, 0.50, 0.06),
    "yellow": (0.94, 0.86, 0.14),
    "green": (0.12, 0.66, 0.20),
    "cyan": (0.10, 0.76, 0.80),
    "blue": (0.12, 0.22, 0.86),
    "purple": (0.56, 0.14, 0.72),
    "white": (0.92, 0.92, 0.92),
    "pink": (0.96, 0.50, 0.70),
    "black": (0.10, 0.10, 0.11),
}
COLOUR_NAMES: Final = tuple(COLOURS)
BLACK: Final = COLOUR_NAMES.index("black")
BACKGROUND_COLOURS: Final = 8
"""Floors, walls and skies take one of the first so many."""
DARK: Final = 0.2
"""Largest channel below which a pixel counts as black."""

SKINS: Final = ((0.95, 0.78, 0.66), (0.85, 0.64, 0.48), (0.62, 0.42, 0.29), (0.40, 0.26, 0.18))
HAIRS: Final = ((0.10, 0.08, 0.07), (0.32, 0.19, 0.10), (0.80, 0.62, 0.28), (0.58, 0.24, 0.10), (0.70, 0.70, 0.70))
SHOES: Final = ((0.14, 0.12, 0.12), (0.30, 0.18, 0.10), (0.80, 0.80, 0.80))
LEAVES: Final = ((0.10, 0.42, 0.16), (0.20, 0.50, 0.14), (0.62, 0.36, 0.10))
HILLS: Final = ((0.34, 0.52, 0.34), (0.45, 0.50, 0.60), (0.55, 0.48, 0.36))
TRUNK: Final = (0.36, 0.24, 0.14)
FURNITURE: Final = ((0.45, 0.29, 0.16), (0.60, 0.44, 0.28), (0.38, 0.38, 0.40), (0.80, 0.78, 0.74))
WINDOW: Final = (0.80, 0.93, 1.0)
STONE: Final = (0.80, 0.79, 0.75)
STEEL: Final = (0.62, 0.65, 0.70)
FOG_COLOUR: Final = (0.78, 0.80, 0.82)


@dataclass(frozen=True)
class Light:
    """Change that a light word makes to a picture.

    `tint` multiplies every colour. `fog_density` (1/metre) gives the share of fog
    1 - exp(-density * depth), at most `fog_limit`; the sky, infinitely far, has `fog_limit`.
    `ambient` and `diffuse` are the two terms of Lambert's law.
    """

    tint: tuple[float, float, float]
    ambient: float
    diffuse: float
    fog_density: float = 0.0
    fog_limit: float = 0.0


LIGHTS: Final[dict[str, Light]] = {
    "day": Light((1.0, 1.0, 1.0), ambient=0.55, diffuse=0.50),
    "sunset": Light((1.0, 0.74, 0.54), ambient=0.45, diffuse=0.62),
    "night": Light((0.30, 0.36, 0.50), ambient=0.60, diffuse=0.42),
    "fog": Light((0.97, 0.98, 1.0), ambient=0.72, diffuse=0.28, fog_density=0.13, fog_limit=0.50),
}
LIGHT_NAMES: Final = tuple(LIGHTS)


def light_table(device: torch.device) -> Tensor:
    """(lights, 7): tint, ambient, diffuse, fog density, fog limit."""
    rows = [
        (*light.tint, light.ambient, light.diffuse, light.fog_density, light.fog_limit) for light in LIGHTS.values()
    ]
    return torch.tensor(rows, device=device)


def fog_share(light: Tensor, inverse_depth: Tensor) -> Tensor:
    """Share of fog per pixel (B, 1, H, W), 0..1; `light` (B, 7), `inverse_depth` (B, H, W) in 1/metres, 0 = sky."""
    depth = 1.0 / inverse_depth.clamp_min(1e-6)
    density, limit = light[:, 5, None, None], light[:, 6, None, None]
    return torch.minimum(1.0 - torch.exp(-density * depth), limit)[:, None]


def apply_light(colour: Tensor, light: Tensor, inverse_depth: Tensor) -> Tensor:
    """Shaded colours (B, 3, H, W) 0..1 -> colours seen under the light."""
    share = fog_share(light, inverse_depth)
    fog = colour.new_tensor(FOG_COLOUR)[:, None, None]
    return (1.0 - share) * colour * light[:, :3, None, None] + share * fog


def undo_light(picture: Tensor, light: Tensor, inverse_depth: Tensor) -> Tensor:
    """Inverse of `apply_light`, clipped at 0 (a pixel may be darker than its fog allows)."""
    share = fog_share(light, inverse_depth)
    clear = (picture - share * picture.new_tensor(FOG_COLOUR)[:, None, None]).clamp_min(0) / (1.0 - share)
    return clear / light[:, :3, None, None]


def nearest_colour(picture: Tensor, light: Tensor, inverse_depth: Tensor) -> Tensor:
    """Index into COLOUR_NAMES per pixel, (B, H, W): smallest angle in RGB once the light is undone; black where dark.

    The angle ignores shading, which scales a colour without turning it.

    Args:
        picture: (B, 3, H, W) in 0..1.
        light: (B, 7), rows of `light_table`.
        inverse_depth: (B, H, W), of the scene that the picture should show.
    """
    clear = undo_light(picture, light, inverse_depth)
    table = torch.nn.functional.normalize(picture.new_tensor(list(COLOURS.values()))[:BLACK], dim=1)
    angle = torch.einsum("bchw,kc->bkhw", torch.nn.functional.normalize(clear, dim=1, eps=1e-6), table)
    return torch.where(clear.amax(dim=1) < DARK, BLACK, angle.argmax(dim=1))
