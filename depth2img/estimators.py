"""Picture -> DepthMap: the protocol, the registry, and MiDaS as the depth checkpoint carries it."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from . import images
from .depth_map import LARGEST, DepthMap
from .errors import EstimatorError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

NET_SIDE: Final = 384
"""Side that MiDaS' transform aims at, in pixels (ldm/modules/midas/api.py, `load_midas_transform`)."""

MULTIPLE: Final = 32
"""Both sides of the network's input are multiples of this, in pixels (same source)."""

ON_CPU: Final = "Depth was estimated on the CPU, since the graphics card had too little memory left."
"""Notice of a map that was estimated so."""

LONGEST_SIDE: Final = 3072
"""Bound of the network's input, in pixels. The transform scales the side nearest to 384 and lets the other grow, so
that a 40,000 x 400 picture would ask for 38,400 x 384; beyond this bound the picture is squeezed instead."""


class Estimator(Protocol):
    """What estimates depth. Implementations need not be thread-safe; callers share them under their own lock."""

    @property
    def key(self) -> str:
        """Names the estimator and its weights: equal keys give equal maps. Used by the cache."""

    def estimate(self, picture: npt.NDArray[np.float32]) -> DepthMap:
        """Inverse depth of a picture.

        Args:
            picture: float32 (H, W, 3), 0..1, any proportions.

        Returns:
            The raw map at the estimator's own resolution, larger = nearer.

        Raises:
            EstimatorError: no map came out.
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
    """The registered names, in order of registration."""
    return tuple(_REGISTRY)


def get(name: str) -> Estimator:
    """The estimator of that name.

    Raises:
        EstimatorError: there is none.
    """
    if name not in _REGISTRY:
        raise EstimatorError(
            f"There is no depth estimator '{name}'.", fix=f"Registered are: {', '.join(_REGISTRY) or 'none'}."
        )
    return _REGISTRY[name]()


def midas_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of the network's input for a picture of that size.

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
    """MiDaS' transform: cubic resize to `midas_size`, then (x - 0.5) / 0.5.

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
    """MiDaS, or any network with its interface, as a depth checkpoint carries it (`depth_model`).

    The network runs in fp32 on the device where its weights are, whatever their type and whatever autocast is on;
    where that device has no memory left, once on the CPU, and the map says so. Afterwards its own weights are back in
    place.

    Args:
        network: maps float32 (B, 3, h, w) in -1..1 to (B, 1, h, w) or (B, h, w), larger = nearer. Its `forward` is
            called directly: forward hooks that move weights between devices do not run.
        key: see `Estimator.key`.
        name: shown to the user as the map's origin.
    """

    # The DPT backbone keeps activations in one module-level dict (ldm/modules/midas/midas/vit.py).
    _lock = threading.Lock()

    def __init__(self, network: torch.nn.Module, *, key: str, name: str = "MiDaS") -> None:
        self._network = network
        self._key = key
        self._name = name

    @property
    def key(self) -> str:
        """See `Estimator.key`."""
        return self._key

    def estimate(self, picture: npt.NDArray[np.float32]) -> DepthMap:
        """See `Estimator.estimate`; the map has the size that `midas_size` gives."""
        return self._forward([midas_input(images.to_float(picture))])[0]

    def estimate_all(self, pictures: Sequence[npt.NDArray[np.float32]], rows: int) -> list[DepthMap]:
        """The maps of several pictures, those of one network size together.

        Args:
            pictures: see `Estimator.estimate`.
            rows: pictures in every pass of the network. A pass that lacks some is filled up: kernels are chosen by the
                shape, so that with it a map would depend in its last bits on how many pictures go along.

        Raises:
            EstimatorError: no maps came out.
        """
        inputs = [midas_input(images.to_float(picture)) for picture in pictures]
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, network_input in enumerate(inputs):
            groups.setdefault(network_input.shape, []).append(index)
        found: dict[int, DepthMap] = {}
        for group in groups.values():
            for begin in range(0, len(group), rows):
                part = group[begin : begin + rows]
                filled = [*part, *[part[-1]] * (rows - len(part))]
                found.update(zip(part, self._forward([inputs[index] for index in filled]), strict=False))
        return [found[index] for index in range(len(pictures))]

    def _forward(self, inputs: Sequence[npt.NDArray[np.float32]]) -> list[DepthMap]:
        import torch

        network_input = torch.from_numpy(np.stack(inputs))
        with self._lock:
            output, notice = self._run(network_input)
        return maps_of(output, len(inputs), self._name, notice)

    def _run(self, network_input: torch.Tensor) -> tuple[Any, str]:
        """The network's output and a notice, see `or_on_cpu`."""
        try:
            return or_on_cpu(lambda device: self._output(network_input, device))
        except Exception as problem:
            raise self._failed(problem) from problem

    def _output(self, network_input: torch.Tensor, device: torch.device | None) -> Any:
        import torch

        with torch.no_grad(), in_float32(self._network, device) as at, without_autocast(at):
            return self._network.forward(network_input.to(at))

    def _failed(self, problem: Exception) -> EstimatorError:
        if isinstance(problem, EstimatorError):
            return problem
        lines = str(problem).strip().splitlines()
        return EstimatorError(
            f"The depth network of {self._name} failed.",
            got=f"{type(problem).__name__}: {lines[0][:160]}" if lines else type(problem).__name__,
            fix="With too little memory, close other programs; else load the checkpoint again.",
        )


def maps_of(output: Any, count: int, name: str, notice: str = "") -> list[DepthMap]:
    """The depth maps that a network has returned.

    Args:
        output: a tensor (count, 1, h, w) or (count, h, w) of any floating type.
        count: how many there must be.
        name: of the network: the maps' origin, and for messages.
        notice: of the maps.

    Raises:
        EstimatorError: it is something else, or not finite.
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


def out_of_device_memory(problem: Exception) -> bool:
    """Whether an error says that a graphics card has no memory left; MPS has no class of its own for it."""
    import torch

    return isinstance(problem, torch.cuda.OutOfMemoryError) or (
        isinstance(problem, RuntimeError) and "MPS backend out of memory" in str(problem)
    )


def or_on_cpu(run: Callable[[torch.device | None], T]) -> tuple[T, str]:
    """What a network gives, and a notice of its map: where its weights are, or, if no memory is left there, on the CPU.

    Args:
        run: runs it, on a device or, with None, where its weights are.

    Raises:
        Exception: whatever `run` raises, but for the first lack of memory on a graphics card.
    """
    import torch

    try:
        return run(None), ""
    except Exception as problem:
        if not out_of_device_memory(problem):
            raise
    # Only here, since the exception holds on to all that the first attempt had made.
    release_memory()
    return run(torch.device("cpu")), ON_CPU


def release_memory() -> None:
    """Give back what nothing refers to any more, and what torch, if it is loaded, holds on a graphics card unused."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


@contextlib.contextmanager
def in_float32(network: torch.nn.Module, device: torch.device | None = None) -> Iterator[torch.device]:
    """Holds a network's floating weights and buffers in float32, and yields the device they are on.

    The original tensors are kept aside and put back on leaving, so that nothing is rounded.

    Args:
        network: any.
        device: where to hold all of its tensors meanwhile; None for where they are.

    Raises:
        EstimatorError: the network has no weights, or they lie on several devices or on `meta`.
    """
    import torch

    tensors = [*network.parameters(), *network.buffers()]
    devices = {t.device for t in tensors if t.is_floating_point()}
    if len(devices) != 1 or next(iter(devices)).type == "meta":
        raise EstimatorError(
            "The weights of the depth network are not on one device.",
            got=", ".join(sorted(map(str, devices))) or "no weights",
            fix="Load the checkpoint again.",
        )
    at, moves = device or next(iter(devices)), device is not None
    originals = [
        (tensor, tensor.data)
        for tensor in tensors
        if (tensor.is_floating_point() and tensor.dtype != torch.float32) or (moves and tensor.device != at)
    ]
    try:
        for tensor, data in originals:
            tensor.data = data.to(at, torch.float32 if tensor.is_floating_point() else tensor.dtype)
        yield at
    finally:
        for tensor, data in originals:
            tensor.data = data


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """A context in which autocast is off for a device; does nothing where torch has no autocast for it."""
    import torch

    if device.type in ("cpu", "cuda", "xpu"):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()
