"""A depth network behind a processor as an estimator: what Depth Anything, DPT and ZoeDepth have in common."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from ..depth.depth_map import DepthMap
from ..io import images
from .base import maps_of
from .devices import in_float32, or_on_cpu, without_autocast
from .hub_folder import refused

if TYPE_CHECKING:
    import torch

NEAREST: Final = 0.1
"""Metres. A metric model's nearer values are raised to this, so that one wrong pixel does not take up the whole range
of the inverse."""

SHORTEST_SIDE: Final = 32
LONGEST_SIDE: Final = 1024
"""Bounds of a picture's sides in pixels, for models that take or return pictures at their own size."""

STEEPEST: Final = 8
"""Bound of the proportions: the processors keep them and would let the longer side grow."""


class NetworkEstimator(ABC):
    """A depth network, in float32 where its weights are; on the CPU if memory runs out there.

    Args:
        network: pixel values (1, 3, h, w) -> what `_map` reads.
        metric: whether it returns metres rather than inverse depth.
        key: see `Estimator.key`.
        name: shown to the user as the map's origin.
    """

    def __init__(self, network: Any, *, metric: bool, key: str, name: str) -> None:
        self._network, self._metric = network, metric
        self._key, self._name = key, name

    @property
    def key(self) -> str:
        """See `Estimator.key`."""
        return self._key

    @property
    def network(self) -> torch.nn.Module:
        """The network, for a host that moves it between devices itself."""
        network: torch.nn.Module = self._network
        return network

    def estimate(self, picture: npt.NDArray[np.float32]) -> DepthMap:
        """See `Estimator.estimate`.

        The values are those of transformers' own depth estimation pipeline, at the network's resolution instead of the
        picture's, except where its padding has to be cut off again (ZoeDepth). Metres become 1 / metres.
        """
        seen = prepared(images.to_float(picture), longest=LONGEST_SIDE if self._whole else None)
        with refused(f"The depth estimator {self._name} failed.", "Choose another estimator."):
            pixels = self._pixels(seen)
            size = seen.shape[0], seen.shape[1]
            depth, notice = or_on_cpu(lambda device: self._depth(pixels, size, device))
        [found] = maps_of(depth[None], 1, self._name, notice)
        if not self._metric:
            return found
        return dataclasses.replace(found, values=1.0 / np.maximum(found.values, NEAREST))

    def _depth(self, pixels: torch.Tensor, size: tuple[int, int], device: torch.device | None) -> torch.Tensor:
        """Run the network on the pixel values of a picture of that size, (h, w)."""
        import torch

        with torch.no_grad(), in_float32(self._network, device) as at, without_autocast(at):
            return self._map(pixels.to(at, torch.float32), size)

    @property
    @abstractmethod
    def _whole(self) -> bool:
        """True if the network sees a picture at its own size."""

    @abstractmethod
    def _pixels(self, seen: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Turn a picture, uint8 (H, W, 3), into pixel values (1, 3, h, w)."""

    @abstractmethod
    def _map(self, pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Run the network on the pixel values of a picture of that size, (h, w), and return its depth (h', w')."""


def prepared(picture: npt.NDArray[np.float32], *, longest: int | None) -> npt.NDArray[np.uint8]:
    """Convert a picture to uint8 (H, W, 3) for the processors, at its own size unless that is extreme.

    Args:
        picture: float32 (H, W, 3), 0..1; may reach beyond by rounding.
        longest: bound of the longer side; None leaves only that of the proportions, `STEEPEST`.
    """
    height, width = picture.shape[:2]
    scale = 1.0 if longest is None else min(1.0, longest / max(height, width))
    limit = STEEPEST * max(SHORTEST_SIDE, round(scale * min(height, width)))
    new_width, new_height = (max(SHORTEST_SIDE, min(limit, round(scale * side))) for side in (width, height))
    if (new_width, new_height) != (width, height):
        picture = np.asarray(cv2.resize(picture, (new_width, new_height), interpolation=cv2.INTER_AREA), np.float32)
    done: npt.NDArray[np.uint8] = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return done
