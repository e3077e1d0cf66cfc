"""Depth networks read from checkpoint files, for hosts that do not build them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import torch
from modules import devices, paths

from depth2img import CheckpointError, DepthMap, Estimator

from . import headers

if TYPE_CHECKING:
    from depth2img.checkpoints import Model
    from depth2img.diffusion.berth import Berth

MIDAS_FILE: Final = Path("midas", "dpt_hybrid-midas-501f0c75.pt")
"""MiDaS' own file below the folder of models, for checkpoints that lack its weights."""


class CheckpointNetwork:
    """The depth network of one checkpoint file, in host memory; it is on the card only while it computes.

    Only `depth_model.*` of the file is read. The network is in float32.

    Args:
        path: the checkpoint.
    """

    def __init__(self, path: Path) -> None:
        from depth2img.diffusion.berth import Berth, Visitor
        from depth2img.diffusion.networks import build_estimator

        self.inner = build_estimator(_open(path), device=torch.device("cpu"))
        self.key = f"{path}|{headers.changed(str(path))}"
        self._berth: Berth | None = None
        if devices.device.type != "cpu":
            self._berth = Berth(devices.device)
            self.inner.network = Visitor(self.inner.network, self._berth)

    @property
    def network(self) -> torch.nn.Module:
        """The network itself, in host memory between estimates."""
        return self.inner.network

    def estimate(self, picture: npt.NDArray[np.float32]) -> DepthMap:
        """See `Estimator.estimate`."""
        try:
            return self.inner.estimate(picture)
        finally:
            if self._berth is not None:
                self._berth.clear()


class Networks:
    """The network that was used last."""

    def __init__(self) -> None:
        self._kept: tuple[tuple[str, int], CheckpointNetwork] | None = None

    def of(self, filename: str) -> Estimator:
        """Return the depth network of a checkpoint file.

        Raises:
            CheckpointError: it cannot be read, or lacks MiDaS and MiDaS' own file is not there either.
        """
        key = (filename, headers.changed(filename))
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # its memory is free before the next one is read
            self._kept = key, CheckpointNetwork(Path(filename))
        return self._kept[1]

    def forget(self) -> None:
        """Free the network."""
        self._kept = None


def _open(path: Path) -> Model:
    from depth2img.checkpoints import open_checkpoint
    from depth2img.checkpoints.model import open_midas, open_single_file

    file = open_checkpoint(path)
    if any(name.startswith("depth_model.") for name in file.keys()):
        return open_single_file(file)
    midas = Path(paths.models_path) / MIDAS_FILE
    if not midas.is_file():
        raise CheckpointError(
            f"The depth checkpoint {path.name} holds no depth_model weights (MiDaS), and there is no "
            f"{MIDAS_FILE.name} in models/midas either.",
            fix="Use the original checkpoint, which holds them, or put that file there; 'Inspect' under 'Depth "
            "checkpoint' in the panel names the command that puts them in.",
        )
    return open_single_file(file, depth=open_midas(midas))
