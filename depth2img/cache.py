"""Estimated depth maps by picture content and estimator, bounded."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Final

import numpy as np

from .depth_map import DepthMap
from .estimators import Estimator
from .images import FloatPicture

DEFAULT_BYTES: Final = 256 * 1024 * 1024
"""Default bound: some four hundred maps of MiDaS' usual 384 x 384."""


class DepthCache:
    """Least-recently-used cache; safe to use from several threads.

    The key is the content of the picture (BLAKE2b over its bytes, its shape and type) and the estimator's `key`, so
    nothing has to be told when a picture or a checkpoint changes.

    Args:
        max_bytes: what the kept maps may weigh together; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._maps: OrderedDict[tuple[str, bytes], DepthMap] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._maps)

    def get_or_estimate(self, picture: FloatPicture, estimator: Estimator) -> DepthMap:
        """The depth map of a picture, estimated only if this content was not seen with this estimator.

        Args:
            picture: float32 (H, W, 3), 0..1.
            estimator: what to ask when the map is not kept.

        Raises:
            EstimatorError: from the estimator.
        """
        key = (estimator.key, _digest(picture))
        with self._lock:
            if key in self._maps:
                self._maps.move_to_end(key)
                return self._maps[key]
        depth = estimator.estimate(picture)
        with self._lock:
            if key not in self._maps and depth.values.nbytes <= self._max_bytes:
                self._maps[key] = depth
                self._bytes += depth.values.nbytes
            self._shrink()
        return depth

    def resize(self, max_bytes: int) -> None:
        """Change the bound; drops the least recently used maps that no longer fit."""
        with self._lock:
            self._max_bytes = max_bytes
            self._shrink()

    def clear(self) -> None:
        """Forget everything."""
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
