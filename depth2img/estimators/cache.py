"""A bounded cache of estimated depth maps, by picture content and estimator."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from ..depth.depth_map import DepthMap
from ..io.images import FloatPicture
from .base import Estimator

DEFAULT_BYTES: Final = 256 * 1024 * 1024
"""Default bound: some four hundred maps of MiDaS' usual 384 x 384."""


class DepthCache:
    """Least-recently-used cache; safe to use from several threads.

    The key is the content of the picture (BLAKE2b over its bytes, its shape and type) and the estimator's `key`, so
    the cache need not be notified when a picture or a checkpoint changes.

    Args:
        max_bytes: bound of the cached maps together; 0 caches nothing.
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._maps: OrderedDict[tuple[str, bytes], DepthMap] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._maps)

    def get_or_estimate(self, picture: FloatPicture, estimator: Estimator) -> DepthMap:
        """Return the depth map of a picture, from the cache or estimated.

        Args:
            picture: float32 (H, W, 3), 0..1.
            estimator: used if the map is not in the cache.

        Raises:
            EstimatorError: from the estimator.
        """
        return self.get_or_estimate_all([picture], estimator.key, lambda missing: [*map(estimator.estimate, missing)])[
            0
        ]

    def get_or_estimate_all(
        self,
        pictures: Sequence[FloatPicture],
        key: str,
        estimate: Callable[[list[FloatPicture]], Sequence[DepthMap]],
    ) -> list[DepthMap]:
        """Return the depth maps of several pictures; those not in the cache are estimated, equal pictures once.

        Args:
            pictures: float32 (H, W, 3), 0..1.
            key: the estimator's `key`.
            estimate: called with the pictures whose maps are missing, if any.

        Raises:
            EstimatorError: from `estimate`.
        """
        wanted = [(key, _digest(picture)) for picture in pictures]
        with self._lock:
            known = {one: self._maps[one] for one in wanted if one in self._maps}
            for one in known:
                self._maps.move_to_end(one)
        missing = {one: picture for one, picture in zip(wanted, pictures, strict=True) if one not in known}
        if missing:
            found = dict(zip(missing, estimate([*missing.values()]), strict=True))
            known |= found
            with self._lock:
                for one, depth in found.items():
                    if one not in self._maps and depth.values.nbytes <= self._max_bytes:
                        self._maps[one] = depth
                        self._bytes += depth.values.nbytes
                self._shrink()
        return [known[one] for one in wanted]

    def resize(self, max_bytes: int) -> None:
        """Change the bound, and drop the least recently used maps that no longer fit."""
        with self._lock:
            self._max_bytes = max_bytes
            self._shrink()

    def clear(self) -> None:
        """Drop all maps."""
        with self._lock:
            self._maps.clear()
            self._bytes = 0

    def _shrink(self) -> None:
        while self._bytes > self._max_bytes:
            _, depth = self._maps.popitem(last=False)
            self._bytes -= depth.values.nbytes


def _digest(picture: FloatPicture) -> bytes:
    content = hashlib.blake2b(f"{picture.shape}{picture.dtype}".encode(), digest_size=16)
    content.update(np.ascontiguousarray(picture).data)
    return content.digest()
