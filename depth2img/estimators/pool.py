"""Estimators by name: registered ones, depth models in a folder, on the hub; at most one of them in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..depth.depth_map import DepthMap
from ..errors import EstimatorError, OptionError
from ..io import hub
from ..options import CHECKPOINT
from . import base, files
from .base import Estimator
from .devices import release_memory
from .hub_folder import PATTERNS

if TYPE_CHECKING:
    import torch

IDLE_SECONDS: Final = 300.0
"""Time without use after which an estimator is unloaded."""

Open = Callable[[], Estimator]


class _Loaded(NamedTuple):
    name: Hashable
    estimator: Estimator


class _Pooled:
    """An estimator that is loaded when a map is asked for; its key is known before."""

    def __init__(self, pool: EstimatorPool, name: Hashable, key: str, open_: Open) -> None:
        self._pool, self._name, self._open = pool, name, open_
        self.key: Final = key

    def estimate(self, picture: npt.NDArray[np.float32]) -> DepthMap:
        """See `Estimator.estimate`."""
        return self._pool.run(self._name, self._open, picture)


class EstimatorPool:
    """The estimators other than the checkpoint's own, by name.

    Safe to use from several threads: one map is estimated at a time.

    Args:
        folder: each depth model in it, a folder or a file, is an estimator by its name; see `files`.
        paths: whether a name may also be the path of such a model. Only for names from the user's own command line or
            program, never for names from a page, a request or a picture's infotext.
        downloads: whether a name may also be `owner/name` on the hub, to be fetched at its first use.
        device: called for the device when an estimator is loaded.
        idle: seconds without use after which the loaded one is unloaded; 0 at once.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        paths: bool = False,
        downloads: bool = False,
        device: Callable[[], torch.device | str] = lambda: "cpu",
        idle: float = IDLE_SECONDS,
    ) -> None:
        self.folder, self.paths, self.downloads, self.idle = folder, paths, downloads, idle
        self._device = device
        self._lock = threading.RLock()
        self._loaded: _Loaded | None = None
        self._timer: threading.Timer | None = None
        self._used = 0.0
        self._fetched: dict[str, Path] = {}

    def on(self, device: Callable[[], torch.device | str]) -> EstimatorPool:
        """Return a pool with the same estimators that loads them onto another device."""
        return EstimatorPool(self.folder, paths=self.paths, downloads=self.downloads, device=device, idle=self.idle)

    def names(self) -> list[str]:
        """List `checkpoint`, then the registered ones, then those in the folder; nothing is loaded."""
        registered = base.names()
        found = [CHECKPOINT, *registered]
        return found + [name for name in sorted(files.found_in(self.folder)) if name not in found]

    @property
    def loaded(self) -> bool:
        """True if an estimator is in memory."""
        return self._loaded is not None

    def get(self, name: str) -> Estimator:
        """Find the estimator of that name; a depth model is not loaded before its first map.

        Raises:
            OptionError: there is none, or the name is not allowed here.
            EstimatorError: it cannot be fetched or made.
        """
        if name in base.names():
            slot = ("registered", name)
            with self._lock:
                made = self._take(slot, lambda: base.get(name))
                self._rest()
            return _Pooled(self, slot, made.key, lambda: base.get(name))
        path = files.found_in(self.folder).get(name)
        if path is None and self.paths and files.is_given(Path(name)):
            path = Path(name)
        if path is None:
            path = self._from_hub(name)
        key, found = files.key_of(path), path
        title = path.stem if path.is_file() else Path(name).name
        return _Pooled(self, key, key, lambda: files.open_estimator(found, device=self._device(), name=title))

    def run(self, name: Hashable, open_: Open, picture: npt.NDArray[np.float32]) -> DepthMap:
        """Estimate a map with the estimator of that name, which replaces the one in memory."""
        with self._lock:
            try:
                return self._take(name, open_).estimate(picture)
            finally:
                self._rest()

    def unload(self) -> None:
        """Unload the estimator in memory."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None
            if self._loaded is not None:
                self._loaded = None
                release_memory()

    def _take(self, name: Hashable, open_: Open) -> Estimator:
        if self._timer is not None:
            self._timer.cancel()
        if self._loaded is None or self._loaded.name != name:
            self.unload()
            self._loaded = _Loaded(name, open_())
        return self._loaded.estimator

    def _rest(self) -> None:
        """Start to count idle time; called when the estimator has finished or failed."""
        if self._loaded is None:
            return
        self._used = time.monotonic()
        if self.idle <= 0:
            self.unload()
            return
        self._timer = threading.Timer(self.idle, self._expire, [self._used])
        self._timer.daemon = True
        self._timer.start()

    def _expire(self, used: float) -> None:
        with self._lock:
            if used == self._used:  # else it was used while this timer waited for the lock
                self.unload()

    def _from_hub(self, name: str) -> Path:
        if not hub.NAME.fullmatch(name):
            where = "" if self.folder is None else f" Put the folder or file of a depth model into {self.folder.name}."
            raise OptionError(
                "estimator",
                "There is no such depth estimator.",
                got=f"'{name[:60]}'",
                fix=f"There are: {', '.join(self.names())}.{where}",
            )
        if not self.downloads:
            raise OptionError(
                "estimator",
                "Depth estimators are not fetched from the hub here.",
                got=f"'{name[:60]}'",
                fix="Allow it in the settings, or use one of: " + ", ".join(self.names()) + ".",
            )
        if name not in self._fetched:
            self._fetched[name] = hub.fetch(name, PATTERNS, EstimatorError, what="depth estimator")
        return self._fetched[name]
