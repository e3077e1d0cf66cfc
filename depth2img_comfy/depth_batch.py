"""The value of a DEPTH connection, and conversions from and to IMAGE and MASK."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from depth2img import DepthMap, DepthOptions, PictureError, adjust, conditioning
from depth2img.depth.adjustments import adjusted_span, sequence_span, without_outliers
from depth2img.depth.depth_map import Span
from depth2img.io.images import check_size

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(frozen=True, eq=False)
class DepthBatch:
    """The depth of a batch of pictures.

    Attributes:
        maps: one of each picture, any sizes; at least one.
        span: what counts as farthest and nearest in all of them, in their own values; None for each its own.
    """

    maps: tuple[DepthMap, ...]
    span: Span | None = None

    def adjusted(self, options: DepthOptions) -> DepthBatch:
        """Apply the range and the adjustments of the options."""
        maps = [without_outliers(one, options) for one in self.maps]
        span = sequence_span(options, maps) or self.span
        return DepthBatch(tuple(adjust(one, options, span) for one in maps), adjusted_span(options, span))

    def conditioning(self, batch: int, *, height: int, width: int) -> torch.Tensor:
        """Make float32 (batch, 1, height, width), -1..1, for a latent; too few maps are repeated, as latents are."""
        return conditioning(
            [repeated(self.maps, row) for row in range(batch)], height=height, width=width, spans=[self.span] * batch
        )

    def stretched(self) -> list[npt.NDArray[np.float32]]:
        """Return each map in 0 (farthest) .. 1 (nearest), float32 (H, W), by the range that it is used with."""
        return [one.normalised(self.span) for one in self.maps]


def repeated(values: tuple[DepthMap, ...], row: int) -> DepthMap:
    """Return what belongs to a row of a batch; a shorter list starts again."""
    return values[row % len(values)]


def pictures(image: torch.Tensor) -> list[npt.NDArray[np.float32]]:
    """Take an IMAGE, float (B, H, W, 3 or 4), 0..1, apart: float32 (H, W, 3), within 0..1; transparency is ignored.

    Raises:
        PictureError: it is empty, too large or not finite.
    """
    if image.ndim != 4 or image.shape[0] < 1 or image.shape[3] < 3:
        raise PictureError("This is not an image.", got=f"shape {tuple(image.shape)}", fix="Connect an IMAGE.")
    check_size(int(image.shape[2]), int(image.shape[1]))
    if not image.isfinite().all():
        raise PictureError("The image contains NaN or infinity.", fix="Look at the node that made it.")
    values = image[..., :3].float().clamp(0, 1).cpu().numpy()
    return [np.ascontiguousarray(one) for one in values]


def regions(mask: torch.Tensor) -> tuple[DepthMap, ...]:
    """Take a MASK, float (B, H, W) or (H, W), apart: maps of 0 outside .. 1 inside.

    Raises:
        DepthMapError: it is empty, too large or not finite.
    """
    values = mask.reshape(-1, *mask.shape[-2:]).float().cpu().numpy()
    return tuple(DepthMap(values=np.clip(one, 0, 1), origin="region") for one in values)


def image(arrays: Iterable[npt.NDArray[np.float32]]) -> torch.Tensor:
    """Make an IMAGE, float32 (B, H, W, 3), of pictures (H, W, 3), 0..1; all are brought to the first one's size."""
    import cv2
    import torch

    first, *others = arrays
    size = (first.shape[1], first.shape[0])
    fitted = [
        one if one.shape == first.shape else cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in others
    ]
    return torch.from_numpy(np.stack([first, *fitted]).astype(np.float32))
