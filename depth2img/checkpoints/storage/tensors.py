"""Named tensors, read one at a time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ...errors import CheckpointError

if TYPE_CHECKING:
    import torch

TYPES: Final[Mapping[str, tuple[str, int]]] = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
"""Element types as the safetensors header names them -> torch's name, and bytes."""

EIGHT_BITS: Final = ("F8_E4M3", "F8_E5M2")
"""Floats of one byte: they are read as float16, which holds every value of both exactly."""

KINDS: Final[Mapping[str, str]] = {name: kind for kind, (name, _) in TYPES.items()}


def kind_of(dtype: torch.dtype) -> str:
    """Return the name of an element type in the safetensors header, a key of `TYPES`."""
    return KINDS[str(dtype).removeprefix("torch.")]


def bytes_of(dtype: torch.dtype) -> int:
    """Return the bytes of an element; torch 2.0 has no `dtype.itemsize`."""
    return TYPES[kind_of(dtype)][1]


Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


def part_of(progress: Progress | None, start: int, whole: int) -> Progress | None:
    """Wrap a progress callback so that a sub-step reports its offset within the whole job.

    Args:
        progress: the job's callback, if it has one.
        start: bytes of the job that are done when the sub-step begins.
        whole: bytes of the job.
    """
    if progress is None:
        return None
    tell: Progress = progress
    return lambda done, _: tell(min(start + done, whole), whole)


class Tensors(ABC):
    """Named tensors that are read when asked for."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Texts that came with the file."""
        return {}

    @abstractmethod
    def keys(self) -> Sequence[str]:
        """Return all names, in a fixed order."""

    @abstractmethod
    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of one tensor, without reading it where the file allows that."""

    @abstractmethod
    def dtype(self, key: str) -> torch.dtype:
        """Return the element type of one tensor, without reading it where the file allows that."""

    def kind(self, key: str) -> str:
        """Return the element type that a tensor is stored in, a key of `TYPES`; of a file without torch."""
        return kind_of(self.dtype(key))

    @abstractmethod
    def get(self, key: str) -> torch.Tensor:
        """Read one tensor, on the CPU, in the type that `dtype` says."""


@dataclass(frozen=True)
class InMemory(Tensors):
    """Tensors that are in memory already."""

    state: Mapping[str, torch.Tensor]

    def keys(self) -> Sequence[str]:
        return list(self.state)

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self.state[key].shape)

    def dtype(self, key: str) -> torch.dtype:
        return self.state[key].dtype

    def get(self, key: str) -> torch.Tensor:
        return self.state[key]


class View(Tensors):
    """Tensors of other sources, under names of its own. See `renamed`, `selected` and `joined`.

    Args:
        origins: name here -> source, and the name there.
        metadata: texts.
    """

    def __init__(self, origins: Mapping[str, tuple[Tensors, str]], metadata: Mapping[str, str]) -> None:
        self._origins = dict(origins)
        self._metadata = metadata

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._metadata

    def keys(self) -> Sequence[str]:
        return list(self._origins)

    def shape(self, key: str) -> tuple[int, ...]:
        source, name = self._origins[key]
        return source.shape(name)

    def dtype(self, key: str) -> torch.dtype:
        source, name = self._origins[key]
        return source.dtype(name)

    def kind(self, key: str) -> str:
        source, name = self._origins[key]
        return source.kind(name)

    def get(self, key: str) -> torch.Tensor:
        source, name = self._origins[key]
        return source.get(name)


def renamed(source: Tensors, names: Mapping[str, str]) -> Tensors:
    """View tensors under other names; `names` maps the name here to the name in `source`, and leaves out the rest."""
    return View({here: (source, there) for here, there in names.items()}, source.metadata)


def selected(source: Tensors, keep: Callable[[str], bool]) -> Tensors:
    """View those tensors whose names `keep` accepts."""
    return renamed(source, {key: key for key in source.keys() if keep(key)})


def joined(*sources: Tensors) -> Tensors:
    """View several sources as one; the later source wins a name that two have. The texts are the first one's."""
    return View({key: (source, key) for source in sources for key in source.keys()}, sources[0].metadata)


@dataclass(frozen=True)
class Lazy:
    """A tensor that is still to be made: its name, type and shape, and how to get it."""

    key: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    make: Callable[[], torch.Tensor]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * bytes_of(self.dtype)


def as_type(lazy: Lazy, dtype: torch.dtype) -> Lazy:
    """Convert a tensor to another element type when it is made.

    Making it raises `CheckpointError` where a finite value is too large for that type.
    """
    if lazy.dtype == dtype:
        return lazy
    import torch

    def make() -> torch.Tensor:
        value = lazy.make()
        if value.numel() and torch.finfo(dtype).max < torch.finfo(value.dtype).max:
            low, high = (float(extreme) for extreme in torch.aminmax(value))  # `isfinite` would need memory
            extreme = max(-low, high)
            if math.isfinite(extreme) and math.isinf(float(torch.tensor(extreme).to(dtype))):
                raise CheckpointError(
                    f"Tensor '{lazy.key[:100]}' does not fit into {kind_of(dtype)}.",
                    got=f"values up to {extreme:.3g}",
                    fix="Keep the checkpoint in its own precision.",
                )
        return value.to(dtype)

    return Lazy(lazy.key, dtype, lazy.shape, make)
