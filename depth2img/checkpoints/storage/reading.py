"""Tensors that lie in files, and the header of a safetensors file.

Values are read into memory of their own, not mapped: what is held is what was asked for, and a file that shrinks while
it is read ends in a message instead of a crash.
"""

from __future__ import annotations

import io
import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from safetensors import SafetensorError, safe_open

from ...errors import CheckpointError
from ...io.atomic import reason, refusing
from .tensors import EIGHT_BITS, TYPES, Tensors, bytes_of

if TYPE_CHECKING:
    import torch

MAX_HEADER: Final = 16 * 1024 * 1024
"""Longest safetensors header that is read, in bytes; a Stable Diffusion checkpoint's is about 0.2 MB."""

READ_BYTES: Final = 1 << 24
"""Bytes asked for at once: some systems refuse more than 2 GB."""


@dataclass(frozen=True)
class TensorSpan:
    """The bytes of a tensor in a file, little-endian.

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


class StoredTensors(Tensors):
    """Tensors that lie in files and are read when asked for.

    Args:
        spans: name -> its bytes.
        metadata: texts that came with the files.
    """

    def __init__(self, spans: Mapping[str, TensorSpan], metadata: Mapping[str, str]) -> None:
        self._spans = dict(spans)
        self._metadata = dict(metadata)
        self._states = {path: _state(path) for path in {span.path for span in spans.values()}}

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._metadata

    def keys(self) -> Sequence[str]:
        return list(self._spans)

    def shape(self, key: str) -> tuple[int, ...]:
        return self._spans[key].shape

    def dtype(self, key: str) -> torch.dtype:
        """Return the element type in which a tensor is read: float16 where 8-bit floats are stored.

        Raises:
            CheckpointError: the file has a type that is not supported.
        """
        import torch

        kind = self.kind(key)
        dtype: torch.dtype = torch.float16 if kind in EIGHT_BITS else getattr(torch, TYPES[kind][0])
        return dtype

    def kind(self, key: str) -> str:
        kind = self._spans[key].kind
        if kind not in TYPES:
            raise CheckpointError(
                f"Tensor '{key[:100]}' has an element type that is not supported.",
                got=kind,
                fix="Save the checkpoint in float16 or float32.",
            )
        return kind

    def _stored(self, key: str) -> torch.dtype:
        import torch

        name = TYPES[self.kind(key)][0]
        if not hasattr(torch, name):
            raise CheckpointError(
                f"Tensor '{key[:100]}' is of a type that PyTorch {torch.__version__} does not know.",
                got=name,
                fix="Convert the file with PyTorch 2.1 or later, or get it in float16.",
            )
        dtype: torch.dtype = getattr(torch, name)
        return dtype

    def get(self, key: str) -> torch.Tensor:
        """Read one tensor, which is the caller's own.

        Raises:
            CheckpointError: the file has become shorter or another one since it was opened, or is damaged.
        """
        import torch

        span, dtype = self._spans[key], self._stored(key)
        strides = span.strides or _row_major(span.shape)
        count = 1 + sum(step * (side - 1) for step, side in zip(strides, span.shape, strict=True))
        if 0 in span.shape:
            return torch.empty(span.shape, dtype=self.dtype(key))
        raw = torch.empty(count * bytes_of(dtype), dtype=torch.uint8)
        try:
            with span.path.open("rb", buffering=0) as file:
                if _identity(os.fstat(file.fileno())) != self._states[span.path]:
                    raise _damaged(span.path, "it was changed while it was read")
                file.seek(span.start)
                _read_into(file, raw.numpy().data, span.path)
        except OSError as problem:
            raise _damaged(span.path, reason(problem)) from problem
        if span.crc is not None and zlib.crc32(raw.numpy().data) != span.crc:
            raise _damaged(span.path, f"the bytes of '{key[:80]}' do not give their checksum")
        return raw.view(dtype).as_strided(span.shape, strides).to(self.dtype(key))


@dataclass(frozen=True)
class Contents:
    """The contents of a file.

    Attributes:
        tensors: all that have a name; of dictionaries in dictionaries the names are joined by dots.
        nested: those of the names that come from inner dictionaries.
        objects: names of classes whose objects are in the file and were left out.
    """

    tensors: StoredTensors
    nested: frozenset[str] = frozenset()
    objects: tuple[str, ...] = ()


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


def read_safetensors(path: Path, file: BinaryIO) -> StoredTensors:
    """Read the header of a safetensors file; tensors are read when asked for.

    Args:
        path: the file.
        file: the file, open for reading.

    Raises:
        CheckpointError: it is truncated, damaged or not a safetensors file.
    """
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER:
        raise CheckpointError(
            f"The header of {path.name} is too long.",
            got=f"{length:,} bytes",
            fix=f"At most {MAX_HEADER:,} are read; the file is damaged, or not meant to be read.",
        )
    text = file.read(length)
    with refusing(
        f"{path.name} cannot be read as safetensors.",
        CheckpointError,
        on=(SafetensorError, OSError, ValueError, RecursionError),
        got=lambda _: size_of(path) + _announced(path, text),
        fix="It is truncated, missing or another kind of file; download or copy it again.",
    ):
        with safe_open(path, framework="numpy"):  # checks every offset and size, and reads no value
            pass
        header: dict[str, Any] = json.loads(text)
    metadata = header.pop("__metadata__", None) or {}
    spans = {
        key: TensorSpan(path, 8 + length + entry["data_offsets"][0], entry["dtype"], tuple(entry["shape"]))
        for key, entry in header.items()
    }
    return StoredTensors(spans, metadata)


def _announced(path: Path, text: bytes) -> str:
    """Say how long a file must be according to its header, if it is shorter and its header can be read."""
    try:
        entries = json.loads(text)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        whole = 8 + len(text) + max(ends)
        return f" of {whole:,}" if whole > path.stat().st_size else ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return ""


def size_of(path: Path) -> str:
    """Format a file's size, or say why it has none."""
    try:
        return f"{path.stat().st_size:,} bytes"
    except OSError as problem:
        return reason(problem)
