"""Turn depth maps into the tensor that the UNet takes; nothing else normalises for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import DepthMapError
from .depth_map import DepthMap, Span, is_flat

if TYPE_CHECKING:
    import torch


def conditioning(
    depths: Sequence[DepthMap], *, height: int, width: int, spans: Sequence[Span | None] | None = None
) -> torch.Tensor:
    """Turn depth maps into conditioning.

    Each map is resized once (bicubic, align_corners=False) to the latent's size and then stretched by its own minimum
    and maximum: 2 (d - min) / (max - min) - 1. That is `depth2img_image_conditioning` of the host
    (modules/processing.py, 1.10.1) for one picture; the host takes the extremes over the whole batch, training and
    this function per sample. A flat map (`depth_map.is_flat`) gives zeros instead of 0 / 0.

    Args:
        depths: one map per sample, any sizes. The same object may stand more than once.
        height, width: the latent's size (an eighth of the picture's in SD2).
        spans: one per map, in the map's own values: stretch by these instead of the map's extremes and limit to them.
            For a part of a picture that is to keep the whole picture's range, and for pictures that share a range.

    Returns:
        float32 (B, 1, height, width) on the CPU, -1 (farthest) .. 1 (nearest).

    Raises:
        DepthMapError: there are no maps, or the size is not positive.
    """
    import torch

    if not depths or height < 1 or width < 1:
        raise DepthMapError(
            "Conditioning needs at least one depth map and a positive size.",
            got=f"{len(depths)} maps, {width} x {height}",
        )
    wanted = list(zip(depths, spans or [None] * len(depths), strict=True))
    done: dict[tuple[int, Span | None], torch.Tensor] = {}
    for depth, span in wanted:
        if (id(depth), span) not in done:
            done[id(depth), span] = _one(depth, height, width, span)
    return torch.cat([done[id(depth), span] for depth, span in wanted])


def neutral(batch: int, *, height: int, width: int, level: float = 0.0) -> torch.Tensor:
    """Make the conditioning that says nothing about depth, float32 (batch, 1, height, width) on the CPU: zeros.

    Args:
        batch, height, width: the shape; the latent's size.
        level: the one distance that stands for "no depth", -1..1 (`DepthOptions.neutral`).
    """
    import torch

    return torch.full((batch, 1, height, width), level)


def _one(depth: DepthMap, height: int, width: int, span: Span | None) -> torch.Tensor:
    import torch

    lowest, highest = depth.range if span is None else span
    if is_flat(lowest, highest):
        return torch.zeros(1, 1, height, width)
    # A copy: the map's own memory is read-only, which torch cannot express.
    values = torch.tensor(depth.values)[None, None]
    values = torch.nn.functional.interpolate(values, size=(height, width), mode="bicubic", align_corners=False)
    if span is None:
        low, high = torch.aminmax(values)
    else:
        low, high = torch.tensor(lowest), torch.tensor(highest)
        values = values.clamp(low, high)
    if is_flat(float(low), float(high)):  # what is not flat may be so at the latent's size, but for rounding
        return torch.zeros_like(values)
    return 2.0 * (values - low) / (high - low) - 1.0
