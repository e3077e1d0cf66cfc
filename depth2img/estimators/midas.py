"""MiDaS, as a depth checkpoint contains it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from ..depth.depth_map import DepthMap
from ..errors import EstimatorError
from ..io import images
from .base import maps_of
from .devices import in_float32, or_on_cpu, without_autocast, without_tf32

if TYPE_CHECKING:
    import torch

NET_SIDE: Final = 384
"""Side that MiDaS' transform aims at, in pixels (ldm/modules/midas/api.py, `load_midas_transform`)."""

MULTIPLE: Final = 32
"""Both sides of the network's input are multiples of this, in pixels (same source)."""

LONGEST_SIDE: Final = 3072
"""Bound of the network's input, in pixels. The transform scales the side nearest to 384 and lets the other grow, so
that a 40,000 x 400 picture would ask for 38,400 x 384; beyond this bound the picture is squeezed instead."""


MOST_TOGETHER: Final = 8
"""Pictures in a pass where their number is left open: on a card eight take 0.4 of the time of eight passes."""


def midas_size(width: int, height: int) -> tuple[int, int]:
    """Return (width, height) of the network's input for a picture of that size.

    The rule is "minimal" of MiDaS' `Resize` (ldm/modules/midas/midas/transforms.py): of the two factors that bring a
    side to 384, the one nearer to 1 scales both sides; each is then rounded to a multiple of 32. Where that gives 0
    (2048 x 64 in the original) it is 32 here, and no side exceeds `LONGEST_SIDE`.
    """
    scale_width, scale_height = NET_SIDE / width, NET_SIDE / height
    scale = scale_width if abs(1 - scale_width) < abs(1 - scale_height) else scale_height

    def side(length: int) -> int:
        return min(max(int(np.round(scale * length / MULTIPLE)) * MULTIPLE, MULTIPLE), LONGEST_SIDE)

    return side(width), side(height)


def midas_input(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Apply MiDaS' transform: cubic resize to `midas_size`, then (x - 0.5) / 0.5.

    Numerically the host's own: `AddMiDaS` with "dpt_hybrid" (ldm/data/util.py). Not clipped after the cubic.

    Args:
        picture: float32 (H, W, 3), 0..1.

    Returns:
        float32 (3, h, w), about -1..1.
    """
    width, height = midas_size(picture.shape[1], picture.shape[0])
    resized = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC), np.float64)
    return np.ascontiguousarray(((resized - 0.5) / 0.5).transpose(2, 0, 1)).astype(np.float32)


class MidasEstimator:
    """MiDaS, or any network with its interface, as a depth checkpoint contains it (`depth_model`).

    The network runs in fp32 on the device where its weights are, whatever their type and whether autocast or TF32
    are on; where that device has no memory left, once on the CPU, and the map says so. Afterwards its own weights are
    back in place.

    Args:
        network: maps float32 (B, 3, h, w) in -1..1 to (B, 1, h, w) or (B, h, w), larger = nearer. Its `forward` is
            called directly: forward hooks that move weights between devices do not run.
        key: see `Estimator.key`.
        name: shown to the user as the map's origin.
    """

    # The DPT backbone keeps activations in one module-level dict (ldm/modules/midas/midas/vit.py).
    _lock = threading.Lock()

    def __init__(self, network: torch.nn.Module, *, key: str, name: str = "MiDaS") -> None:
        self.network = network
        self._key = key
        self.name = name

    @property
    def key(self) -> str:
        """See `Estimator.key`."""
        return self._key

    def estimate(self, picture: npt.NDArray[np.float32]) -> DepthMap:
        """See `Estimator.estimate`; the map has the size that `midas_size` gives."""
        return self._forward([midas_input(images.to_float(picture))])[0]

    def estimate_all(self, pictures: Sequence[npt.NDArray[np.float32]], rows: int | None) -> list[DepthMap]:
        """Estimate the maps of several pictures, those of one network size together.

        Args:
            pictures: see `Estimator.estimate`.
            rows: pictures in every pass of the network. A pass that lacks some is filled up: kernels are chosen by the
                shape, so that with it a map would depend in its last bits on how many pictures go along. None: as many
                as there are, `MOST_TOGETHER` at most; a map's last bits depend on that.

        Raises:
            EstimatorError: the estimation failed.
        """
        inputs = [midas_input(images.to_float(picture)) for picture in pictures]
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, network_input in enumerate(inputs):
            groups.setdefault(network_input.shape, []).append(index)
        found: dict[int, DepthMap] = {}
        most = rows or MOST_TOGETHER
        for group in groups.values():
            for begin in range(0, len(group), most):
                part = group[begin : begin + most]
                filled = part if rows is None else [*part, *[part[-1]] * (rows - len(part))]
                found.update(zip(part, self._forward([inputs[index] for index in filled]), strict=False))
        return [found[index] for index in range(len(pictures))]

    def _forward(self, inputs: Sequence[npt.NDArray[np.float32]]) -> list[DepthMap]:
        import torch

        network_input = torch.from_numpy(np.stack(inputs))
        with self._lock:
            output, notice = self._run(network_input)
        return maps_of(output, len(inputs), self.name, notice)

    def _run(self, network_input: torch.Tensor) -> tuple[Any, str]:
        """Return the network's output and a notice; see `or_on_cpu`."""
        try:
            return or_on_cpu(lambda device: self._output(network_input, device))
        except Exception as problem:
            raise self._failed(problem) from problem

    def _output(self, network_input: torch.Tensor, device: torch.device | None) -> Any:
        import torch

        with torch.no_grad(), in_float32(self.network, device) as at, without_autocast(at), without_tf32(at):
            return self.network.forward(network_input.to(at))

    def _failed(self, problem: Exception) -> EstimatorError:
        if isinstance(problem, EstimatorError):
            return problem
        lines = str(problem).strip().splitlines()
        return EstimatorError(
            f"The depth network of {self.name} failed.",
            got=f"{type(problem).__name__}: {lines[0][:160]}" if lines else type(problem).__name__,
            fix="With too little memory, close other programs; else load the checkpoint again.",
        )
