"""Picture -> DepthMap: the protocol and the registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..depth.depth_map import LARGEST, DepthMap
from ..errors import EstimatorError


class Estimator(Protocol):
    """A depth estimator. Implementations need not be thread-safe; callers share them under their own lock."""

    @property
    def key(self) -> str:
        """Name of the estimator and its weights for the cache: equal keys give equal maps."""

    def estimate(self, picture: npt.NDArray[np.float32]) -> DepthMap:
        """Estimate the inverse depth of a picture.

        Args:
            picture: float32 (H, W, 3), 0..1, any proportions.

        Returns:
            The raw map at the estimator's own resolution, larger = nearer.

        Raises:
            EstimatorError: the estimation failed.
        """


_REGISTRY: dict[str, Callable[[], Estimator]] = {}


def register_estimator(name: str, factory: Callable[[], Estimator], *, replace: bool = False) -> None:
    """Make an estimator available by name; nothing is loaded before `get` is called.

    Raises:
        EstimatorError: the name is taken and `replace` is False.
    """
    if name in _REGISTRY and not replace:
        raise EstimatorError(f"There already is an estimator '{name}'.", fix="Choose another name.")
    _REGISTRY[name] = factory


def names() -> tuple[str, ...]:
    """Return the registered names, in order of registration."""
    return tuple(_REGISTRY)


def get(name: str) -> Estimator:
    """Make the registered estimator of that name.

    Raises:
        EstimatorError: there is none.
    """
    if name not in _REGISTRY:
        raise EstimatorError(
            f"There is no depth estimator '{name}'.", fix=f"Registered are: {', '.join(_REGISTRY) or 'none'}."
        )
    return _REGISTRY[name]()


def maps_of(output: Any, count: int, name: str, notice: str = "") -> list[DepthMap]:
    """Check the output of a depth network, and return its maps.

    Args:
        output: a tensor (count, 1, h, w) or (count, h, w) of any floating type.
        count: how many there must be.
        name: of the network: the maps' origin, and for messages.
        notice: of the maps.

    Raises:
        EstimatorError: it has another shape, or is not finite.
    """
    import torch

    maps = isinstance(output, torch.Tensor) and output.ndim in (3, 4)
    if not maps or not 0 < output.numel() == count * output.shape[-2] * output.shape[-1]:
        raise EstimatorError(
            f"The depth network of {name} returned no depth map.",
            got=f"shape {tuple(output.shape)}" if isinstance(output, torch.Tensor) else type(output).__name__,
            fix="Check that the checkpoint is a depth checkpoint.",
        )
    values = output.detach().reshape(count, *output.shape[-2:]).float().cpu().numpy()
    if not np.isfinite(values).all() or float(np.abs(values).max()) > LARGEST:
        raise EstimatorError(
            f"The depth network of {name} returned NaN or infinity.",
            fix="The weights of the depth network are damaged; get the file again.",
        )
    return [DepthMap(values=one, origin=name, notice=notice) for one in values]
