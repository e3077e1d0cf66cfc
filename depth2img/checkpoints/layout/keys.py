"""Names in the single-file (`ldm`) layout that many modules ask for."""

from __future__ import annotations

from typing import Final, Literal

from ..storage import weights

Component = Literal["unet", "vae", "text_encoder", "depth_estimator"]
"""The parts of a model, by their folder names in the diffusers layout."""

Shape = tuple[int, ...]

UNET: Final = weights.UNET
EMA: Final = weights.EMA
VAE: Final = "first_stage_model."
TEXT: Final = "cond_stage_model.model."
TOKEN_TABLE: Final = TEXT + "token_embedding.weight"
DEPTH: Final = "depth_model."
MIDAS: Final = "depth_model.model."

INPUT: Final = weights.INPUT
"""The UNet's first convolution, whose input channels identify a depth checkpoint."""

CONTEXT: Final = UNET + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
"""The UNet's first cross-attention, whose width identifies the version."""

CLS_TOKEN: Final = MIDAS + "pretrained.model.cls_token"
"""A tensor that every MiDaS (DPT-hybrid) has, and no other depth network."""

DEPTH_CHANNELS: Final = 5
"""Input channels of a depth checkpoint's UNet: four of the latent, one of depth."""

MIDAS_FILE: Final = "dpt_hybrid-midas-501f0c75.pt"
"""MiDaS' own file of DPT-hybrid."""


def text_layer(number: int) -> str:
    """Return the prefix of one layer of the text encoder."""
    return f"{TEXT}transformer.resblocks.{number}."


def sides(shape: Shape) -> str:
    """Format a shape."""
    return " x ".join(map(str, shape)) or "no sides"
