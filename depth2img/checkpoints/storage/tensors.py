"""Named tensors in files, read one at a time.

Values are read into memory of their own, not mapped: what is held is what was asked for, and a file that shrinks while
it is read ends in a message instead of a crash.
"""

from __future__ import annotations

import io
import json
import math
import os
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from safetensors import SafetensorError, safe_open

from ...errors import CheckpointError
from ...io.atomic import reason

PICKLE_SUFFIXES: Final = (".ckpt", ".pt", ".pth", ".bin")

TYPE_NAMES: Final[Mapping[torch.dtype, str]] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Element types as the safetensors header names them."""

MAX_HEADER: Final = 16 * 1024 * 1024
"""Longest safetensors header that is read, in bytes; a Stable Diffusion checkpoint's is about 0.2 MB."""

READ_BYTES: Final = 1 << 24
"""Bytes asked for at once: some systems refuse more than 2 GB."""

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


def part_of(progress: Progress | None, start: int, whole: int) -> Progress | None:
    """What to tell a step of a longer job, which begins when `start` bytes of `whole` are done."""
    if progress is None:
        return None
    tell: Progress = progress
    return lambda done, _: tell(min(start + done, whole), whole)


class Tensors(Protocol):
    """Named tensors that are read when asked for."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Texts that came with the file."""
        ...

    def keys(self) -> Sequence[str]:
        """All names, in a fixed order."""
        ...

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of one tensor, without reading it where the file allows that."""
        ...

    def dtype(self, key: str) -> torch.dtype:
        """The element type of one tensor, without reading it where the file allows that."""
        ...

    def get(self, key: str) -> torch.Tensor:
        """One tensor, on the CPU, in the type in which it is stored."""
        ...


@dataclass(frozen=True)
class InMemory:
    """Tensors that are in memory already."""

    state: Mapping[str, torch.Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def keys(self) -> Sequence[str]:
        """See `Tensors.keys`."""
        return list(self.state)

    def shape(self, key: str) -> tuple[int, ...]:
        """See `Tensors.shape`."""
        return tuple(self.state[key].shape)

    def dtype(self, key: str) -> torch.dtype:
        """See `Tensors.dtype`."""
        return self.state[key].dtype

    def get(self, key: str) -> torch.Tensor:
        """See `Tensors.get`."""
        return self.state[key]


class Joined:
    """Several sources seen as one; of a name in two of them the later one's is used. Texts are the first one's."""

    def __init__(self, *sources: Tensors) -> None:
        self._owner = {key: source for source in sources for key in source.keys()}
        self._metadata = sources[0].metadata

    @property
    def metadata(self) -> Mapping[str, str]:
        """See `Tensors.metadata`."""
        return self._metadata

    def keys(self) -> Sequence[str]:
        """See `Tensors.keys`."""
        return list(self._owner)

    def shape(self, key: str) -> tuple[int, ...]:
        """See `Tensors.shape`."""
        return self._owner[key].shape(key)

    def dtype(self, key: str) -> torch.dtype:
        """See `Tensors.dtype`."""
        return self._owner[key].dtype(key)

    def get(self, key: str) -> torch.Tensor:
        """See `Tensors.get`."""
        return self._owner[key].get(key)


class Renamed:
    """A view of other tensors under other names.

    Args:
        source: where they are.
        names: name here -> name there.
    """

    def __init__(self, source: Tensors, names: Mapping[str, str]) -> None:
        self._source = source
        self._names = dict(names)

    @property
    def metadata(self) -> Mapping[str, str]:
        """See `Tensors.metadata`."""
        return self._source.metadata

    def keys(self) -> Sequence[str]:
        """See `Tensors.keys`."""
        return list(self._names)

    def shape(self, key: str) -> tuple[int, ...]:
        """See `Tensors.shape`."""
        return self._source.shape(self._names[key])

    def dtype(self, key: str) -> torch.dtype:
        """See `Tensors.dtype`."""
        return self._source.dtype(self._names[key])

    def get(self, key: str) -> torch.Tensor:
        """See `Tensors.get`."""
        return self._source.get(self._names[key])


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a file, little-endian.

    Attributes:
        path: the file.
        start: its first byte.
        kind: its element type, as the safetensors header names it.
        shape: its shape.
        strides: elements from one to the next along each side; None: one after another.
        crc: CRC-32 of its bytes, where the file has one.
    """

    path: Path
    start: int
    kind: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    crc: int | None = None


class Stored:
    """Tensors that lie in files and are read when asked for.

    Args:
        places: where each is.
        metadata: texts that came with the files.
    """

    def __init__(self, places: Mapping[str, Place], metadata: Mapping[str, str]) -> None:
        self._places = dict(places)
        self._metadata = dict(metadata)
        self._states = {path: _state(path) for path in {place.path for place in places.values()}}

    @property
    def metadata(self) -> Mapping[str, str]:
        """See `Tensors.metadata`."""
        return self._metadata

    def keys(self) -> Sequence[str]:
        """See `Tensors.keys`."""
        return list(self._places)

    def shape(self, key: str) -> tuple[int, ...]:
        """See `Tensors.shape`."""
        return self._places[key].shape

    def dtype(self, key: str) -> torch.dtype:
        """See `Tensors.dtype`."""
        kind = self._places[key].kind
        for dtype, known in TYPE_NAMES.items():
            if known == kind:
                return dtype
        raise CheckpointError(
            f"Tensor '{key[:100]}' has an element type that is not supported.",
            got=kind,
            fix="Save the checkpoint in float16 or float32.",
        )

    def get(self, key: str) -> torch.Tensor:
        """See `Tensors.get`; the tensor is the caller's own.

        Raises:
            CheckpointError: the file has become shorter or another one since it was opened, or is damaged.
        """
        place, dtype = self._places[key], self.dtype(key)
        strides = place.strides or _row_major(place.shape)
        count = 1 + sum(step * (side - 1) for step, side in zip(strides, place.shape, strict=True))
        if 0 in place.shape:
            return torch.empty(place.shape, dtype=dtype)
        raw = torch.empty(count * dtype.itemsize, dtype=torch.uint8)
        try:
            with place.path.open("rb", buffering=0) as file:
                if _identity(os.fstat(file.fileno())) != self._states[place.path]:
                    raise _damaged(place.path, "it was changed while it was read")
                file.seek(place.start)
                _read_into(file, raw.numpy().data, place.path)
        except OSError as problem:
            raise _damaged(place.path, reason(problem)) from problem
        if place.crc is not None and zlib.crc32(raw.numpy().data) != place.crc:
            raise _damaged(place.path, f"the bytes of '{key[:80]}' do not give their checksum")
        return raw.view(dtype).as_strided(place.shape, strides)


def _row_major(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[side + 1 :]) for side in range(len(shape)))


def _identity(state: os.stat_result) -> tuple[int, ...]:
    return state.st_ino, state.st_size, state.st_mtime_ns


def _state(path: Path) -> tuple[int, ...]:
    try:
        return _identity(path.stat())
    except OSError as problem:
        raise _damaged(path, reason(problem)) from problem


def _read_into(file: io.FileIO, target: memoryview, path: Path) -> None:
    done = 0
    while done < len(target):
        count = file.readinto(target[done : done + READ_BYTES])
        if not count:
            raise _damaged(path, "it ends early")
        done += count


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path.name} cannot be read to its end.", got=why, fix="Get or copy the file again.")


class Safetensors(Stored):
    """A safetensors file; its header is read at once, tensors when asked for.

    Raises:
        CheckpointError: the file is missing, truncated or no safetensors file.
    """

    def __init__(self, path: Path) -> None:
        header, start = _read_header(path)
        metadata = header.pop("__metadata__", None) or {}
        places = {
            key: Place(path, start + entry["data_offsets"][0], entry["dtype"], tuple(entry["shape"]))
            for key, entry in header.items()
        }
        super().__init__(places, metadata)


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """A safetensors file's header, and where its data begin."""
    try:
        with safe_open(path, framework="numpy"):  # checks every offset and size, and reads no value
            pass
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > MAX_HEADER:
                raise ValueError("a header that is too long")
            return json.loads(file.read(length)), 8 + length
    except (SafetensorError, OSError, ValueError, RecursionError, struct.error) as problem:
        raise CheckpointError(
            f"{path.name} cannot be read as safetensors.",
            got=size_of(path) + _announced(path),
            fix="It is truncated, missing or another kind of file; download or copy it again.",
        ) from problem


def _announced(path: Path) -> str:
    """How long a file should be that its header can be read of, in words."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            entries = json.loads(file.read(length)) if length <= MAX_HEADER else {}
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        whole = 8 + length + max(ends)
        return f" of {whole:,}" if whole > path.stat().st_size else ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, struct.error):
        return ""


def size_of(path: Path) -> str:
    """A file's size in words, or why it has none."""
    try:
        return f"{path.stat().st_size:,} bytes"
    except OSError as problem:
        return reason(problem)


def open_file(path: Path) -> Tensors:
    """The tensors of a `.safetensors` or `.ckpt` file.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path.name}.", got=str(path), fix="Check the path.")
    if suffix == ".safetensors":
        return Safetensors(path)
    if suffix in PICKLE_SUFFIXES:
        from .pickled import open_pickle

        return open_pickle(path)
    raise CheckpointError(
        f"{path.name} is no checkpoint file.",
        got=f"suffix '{suffix}'",
        fix="Give a .safetensors or .ckpt file, or a folder in the layout of diffusers.",
    )
