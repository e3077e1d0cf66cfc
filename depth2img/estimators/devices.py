"""Run networks on their device, in float32 regardless of autocast, and on the CPU when a card's memory is full."""

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
"""Notice of a map that was estimated on the CPU for lack of memory."""


def out_of_device_memory(problem: Exception) -> bool:
    """Tell whether an error means that a graphics card is out of memory; MPS has no exception class of its own."""
    import torch

    return isinstance(problem, torch.cuda.OutOfMemoryError) or (
        isinstance(problem, RuntimeError) and "MPS backend out of memory" in str(problem)
    )


def or_on_cpu(run: Callable[[torch.device | None], T]) -> tuple[T, str]:
    """Run a network where its weights are, or on the CPU if the graphics card runs out of memory.

    Args:
        run: runs it on a device; with None, where its weights are.

    Returns:
        Its output, and a notice for the map: empty, or `ON_CPU`.

    Raises:
        Exception: whatever `run` raises, except that the graphics card runs out of memory at the first attempt.
    """
    import torch

    try:
        return run(None), ""
    except Exception as problem:
        if not out_of_device_memory(problem):
            raise
    # Outside the `except` block: the exception keeps all tensors of the first attempt alive.
    release_memory()
    return run(torch.device("cpu")), ON_CPU


def release_memory() -> None:
    """Collect garbage, and empty torch's cache of graphics card memory if torch is loaded."""
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
    """Hold a network's floating weights and buffers in float32, and yield the device they are on.

    The original tensors are put back on leaving, so that nothing is rounded.

    Args:
        network: any.
        device: moves all of its tensors there meanwhile; None leaves them where they are.

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
    """Compute float32 products and convolutions without TF32 in this context.

    torch may round their inputs to TF32's 10 bits on NVIDIA's cards; for convolutions it does so by default.

    Args:
        device: does nothing unless it is CUDA; the setting holds for the whole process.
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
    """Switch autocast off for a device in this context; do nothing where torch has no autocast for it."""
    import torch

    if device.type in ("cpu", "cuda", "xpu"):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()
