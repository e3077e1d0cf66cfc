"""Where a network runs: its device, float32 whatever autocast says, and the CPU when a card is full."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..errors import EstimatorError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


ON_CPU: Final = "Depth was estimated on the CPU, since the graphics card had too little memory left."
"""Notice of a map that was estimated so."""


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


@contextlib.contextmanager
def without_tf32(device: torch.device) -> Iterator[None]:
    """A context in which float32 products and convolutions are made in float32.

    torch rounds what enters them to TF32's 10 bits on NVIDIA's cards where it is told to, convolutions by default.

    Args:
        device: only for CUDA anything is done; the setting is the process's.
    """
    import torch

    if device.type != "cuda":
        yield
        return
    kinds: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [kind.allow_tf32 for kind in kinds]
    try:
        for kind in kinds:
            kind.allow_tf32 = False
        yield
    finally:
        for kind, allowed in zip(kinds, before, strict=True):
            kind.allow_tf32 = allowed


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """A context in which autocast is off for a device; does nothing where torch has no autocast for it."""
    import torch

    if device.type in ("cpu", "cuda", "xpu"):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()
