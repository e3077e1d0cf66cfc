"""Named colours, named lights, and the rule that says which colour a pixel shows.

Colours are sRGB-like triples in 0..1 and are used as they are (no linear light): the scenes
are drawings, not photographs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

COLOURS: Final[dict[str, tuple[float, float, float]]] = {
    "red": (0.86, 0.11, 0.12),
    "orange": (0.96, 0.50, 0.06),
    "yellow": (0.94, 0.86, 0.14),
    "green": (0.12, 0.66, 0.20),
    "cyan": (0.10, 0.76, 0.80),
    "blue": (0.12, 0.22, 0.86),
    "purple": (0.56, 0.14, 0.72),
    "white": (0.92, 0.92, 0.92),
}
COLOUR_NAMES: Final = tuple(COLOURS)
COLOUR_TABLE: Final[FloatArray] = np.array([COLOURS[name] for name in COLOUR_NAMES], dtype=np.float32)

FOG_COLOUR: Final[FloatArray] = np.array([0.78, 0.80, 0.82], dtype=np.float32)


@dataclass(frozen=True)
class Light:
    """How a light word changes a picture.

    `tint` multiplies every colour. `fog_density` (1/scene unit) gives the share of fog
    1 - exp(-density * depth), at most `fog_limit`; the sky, infinitely far, has `fog_limit`.
    `ambient` and `diffuse` are the two terms of Lambert's law on the solids.
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


def fog_share(light: Light, inverse_depth: FloatArray) -> FloatArray:
    """Share of fog per pixel, 0..1; `inverse_depth` in 1/scene units, 0 = sky."""
    if light.fog_density == 0.0:
        return np.zeros_like(inverse_depth)
    depth = 1.0 / np.maximum(inverse_depth, 1e-6)
    return np.minimum(1.0 - np.exp(-light.fog_density * depth), light.fog_limit).astype(np.float32)


def apply_light(colour: FloatArray, light_name: str, inverse_depth: FloatArray) -> FloatArray:
    """Shaded colours (H, W, 3) 0..1 and inverse depth (H, W) -> colours seen under the light."""
    light = LIGHTS[light_name]
    share = fog_share(light, inverse_depth)[..., None]
    tinted = colour * np.array(light.tint, dtype=np.float32)
    return ((1.0 - share) * tinted + share * FOG_COLOUR).astype(np.float32)


def undo_light(picture: FloatArray, light_name: str, inverse_depth: FloatArray) -> FloatArray:
    """Inverse of `apply_light`, clipped at 0 (a pixel may be darker than its fog allows)."""
    light = LIGHTS[light_name]
    share = fog_share(light, inverse_depth)[..., None]
    clear = np.maximum(picture - share * FOG_COLOUR, 0.0) / (1.0 - share)
    return (clear / np.array(light.tint, dtype=np.float32)).astype(np.float32)


def nearest_colour(picture: FloatArray, light_name: str, inverse_depth: FloatArray) -> npt.NDArray[np.int64]:
    """Index into COLOUR_NAMES per pixel, (H, W): smallest angle in RGB once the light is undone.

    The angle ignores shading, which scales a colour without turning it. `picture` is (H, W, 3)
    in 0..1; `inverse_depth` is that of the scene the picture should show.
    """
    clear = undo_light(picture, light_name, inverse_depth)
    length = np.linalg.norm(clear, axis=-1, keepdims=True)
    table = COLOUR_TABLE / np.linalg.norm(COLOUR_TABLE, axis=1, keepdims=True)
    return np.argmax(clear / np.maximum(length, 1e-6) @ table.T, axis=-1)
