"""The node that makes a MODEL generate with depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from depth2img import OPTIONS, DepthOptions

from .applied import Applied, Conditioning
from .depth_batch import DepthBatch, regions
from .load_nodes import CATEGORY
from .sampling import with_depth
from .widgets import widgets

if TYPE_CHECKING:
    import torch

CONTROLS: Final = ("strength", "start", "end", "guidance", "neutral", "ignore_colours")
"""Options with a widget; `region` is a connection."""


class ApplyDepth:
    """MODEL, prompts, DEPTH and LATENT -> what a sampler takes to generate with depth."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Makes a depth checkpoint keep a depth map. Connect all four outputs with the sampler. Depth is brought to the "
        "latent's size, also in a second pass at another size."
    )
    RETURN_TYPES = ("MODEL", "CONDITIONING", "CONDITIONING", "LATENT")
    RETURN_NAMES = ("model", "positive", "negative", "latent")
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """List the inputs, as the host asks for them."""
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "Of 'Load depth checkpoint', LoRAs included."}),
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "depth": ("DEPTH", {"tooltip": "One map for all pictures of the batch, or one for each."}),
                "latent": ("LATENT", {"tooltip": "The latent that the sampler starts from."}),
                **widgets(*CONTROLS),
            },
            "optional": {"region": ("MASK", {"tooltip": OPTIONS["region"].help})},
        }

    def apply(
        self,
        model: Any,
        positive: Conditioning,
        negative: Conditioning,
        depth: DepthBatch,
        latent: dict[str, Any],
        region: torch.Tensor | None = None,
        **values: Any,
    ) -> tuple[Any, Conditioning, Conditioning, dict[str, Any]]:
        """Apply the depth.

        Raises:
            NoDepthModelError: the model does not take depth.
            OptionError: 'start' is after 'end'.
        """
        applied = Applied(depth, DepthOptions(**values), () if region is None else regions(region))
        samples = latent["samples"]
        batch, height, width = int(samples.shape[0]), int(samples.shape[-2]), int(samples.shape[-1])
        concat = applied.conditioning(batch, height=height, width=width)
        return with_depth(model), applied.to(positive, concat), applied.to(negative, concat), latent
