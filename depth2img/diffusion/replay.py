"""Record a network's kernels on a card once and replay them: one launch by the CPU instead of a thousand."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import torch

from ..estimators.devices import out_of_device_memory, release_memory

PLAIN_CALLS: Final = 1
"""Calls of one shape that run unrecorded, since libraries initialise themselves at the first."""

MOST: Final = 4
"""Bound of the recordings that are held: two passes, each with and without classifier-free guidance."""


class Recording(NamedTuple):
    """Recorded kernels, and the tensors that they read and write."""

    play: Callable[[], None]
    inputs: tuple[torch.Tensor, ...]
    output: torch.Tensor


class Sample(NamedTuple):
    """Output of the UNet, with the attribute of diffusers' own."""

    sample: torch.Tensor


class Replayed:
    """A UNet whose calls are recorded and replayed.

    A recording holds the memory that its steps need; `forget` releases it.

    Args:
        unet: on a card.
        record: records a call; by default as a CUDA graph.
    """

    def __init__(
        self,
        unet: Any,
        record: Callable[[Callable[..., torch.Tensor], tuple[torch.Tensor, ...]], Recording] | None = None,
    ) -> None:
        self.unet = unet
        self._record = record or Recorder()
        self._calls: dict[tuple[torch.Size, ...], int] = {}
        self._recordings: dict[tuple[torch.Size, ...], Recording] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unet, name)

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor) -> Sample:
        """See `UNet2DConditionModel`."""
        inputs = latents, timestep, encoder_hidden_states
        key = tuple(one.shape for one in inputs)
        recording = self._recordings.get(key)
        if recording is None:
            self._calls[key] = self._calls.get(key, 0) + 1
            if self._calls[key] <= PLAIN_CALLS:
                return Sample(self._run(*inputs))
            recording = self._recorded(key, inputs)
        for own, given in zip(recording.inputs, inputs, strict=True):
            own.copy_(given)
        recording.play()
        return Sample(recording.output.clone())

    def forget(self) -> None:
        """Drop all recordings, and release their memory."""
        self._recordings.clear()
        self._calls.clear()
        release_memory()

    def _run(self, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.unet(latents, timestep, encoder_hidden_states=text, return_dict=False)[0]
        return made

    def _recorded(self, key: tuple[torch.Size, ...], inputs: tuple[torch.Tensor, ...]) -> Recording:
        while len(self._recordings) >= MOST:
            self._recordings.pop(next(iter(self._recordings)))
        try:
            made = self._record(self._run, inputs)
        except Exception as problem:
            if not out_of_device_memory(problem):
                raise
            made = None
        if made is None:  # outside the `except` block: the exception keeps all tensors of the first attempt alive
            self.forget()
            made = self._record(self._run, inputs)
        self._recordings[key] = made
        return made


class Recorder:
    """Recorder of calls as CUDA graphs. They share one memory pool, since only one is replayed at a time."""

    def __init__(self) -> None:
        self._last: Callable[[], Any] = lambda: None

    def __call__(self, run: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...]) -> Recording:
        """Record one call, without running it."""
        kept = tuple(one.clone() for one in inputs)
        graph = torch.cuda.CUDAGraph()
        last = self._last()  # a pool lives as long as one of its graphs
        pool = None if last is None else last.pool()
        # Other threads may go on using the card.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            output = run(*kept)
        self._last = weakref.ref(graph)
        return Recording(graph.replay, kept, output)
