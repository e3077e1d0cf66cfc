"""The engine's jobs and results."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import OptionError
from ..options import OPTIONS, WEBUI_ONLY, DepthOptions
from .settings import Settings

if TYPE_CHECKING:
    import torch

    from ..depth.depth_map import DepthMap
    from ..io.images import Picture


@dataclass(frozen=True)
class Generated:
    """One result.

    Attributes:
        picture: uint8 (H, W, 3).
        sampled: the sampler's result, uint8 (h, w, 3), before a mask laid it over the picture.
        frame: the picture as it entered the sampler, uint8 (h, w, 3); of a smaller size than the others after a hires
            pass.
        depth: the adjusted map in the frame; None where depth was off. After a hires pass that of this pass.
        conditioning: float32 (1, 1, h/8, w/8), what the UNet got at full strength, in the last pass.
        seed: the seed that was used.
        infotext: what it was made with, in the WebUI's form; see `infotext.infotext`.
        fidelity: how far the result's own depth agrees with `depth`, -1..1 (`scores.structure`); None unless the option
            `score` asked for it.
    """

    picture: Picture
    sampled: Picture
    frame: Picture
    depth: DepthMap | None
    conditioning: torch.Tensor
    seed: int
    infotext: str
    fidelity: float | None = None


@dataclass(frozen=True)
class Job:
    """One picture to make.

    Attributes:
        picture: anything that `images.read_picture` takes.
        settings: its own; prompt and seed among them.
        options: its own.
        mask: white = repaint, of the picture's size, anything that `masks.read_mask` takes; None repaints all of it.

    Raises:
        OptionError: an option is given that only the WebUI knows.
    """

    picture: object
    settings: Settings
    options: DepthOptions = field(default_factory=DepthOptions)
    mask: object = None

    def __post_init__(self) -> None:
        for name, instead in WEBUI_ONLY.items():
            if getattr(self.options, name) != OPTIONS[name].default:
                raise OptionError(
                    name, f"Depth option '{name}' is for the WebUI; here it would have no effect.", fix=instead
                )

    @property
    def kind(self) -> Hashable:
        """Jobs of one kind, with frames of one size, can go through the sampler together."""
        settings = dataclasses.replace(self.settings, prompt="", negative_prompt="", seed=0)
        options = tuple(getattr(self.options, name) for name, option in OPTIONS.items() if option.kind != "image")
        return settings, options, self.mask is None, self.options.region is None
