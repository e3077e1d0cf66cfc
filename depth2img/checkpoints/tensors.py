"""Named tensors in files, one at a time: safetensors in and out, `.ckpt` in."""

from __future__ import annotations

import json
import pickle
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError
from ..files import reason, replacing

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

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


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


class Safetensors:
    """One or several safetensors files seen as one; headers are read at once, tensors when asked for.

    Args:
        paths: the files; of a name in two of them the later file's is used.

    Raises:
        CheckpointError: a file is missing, truncated or no safetensors file.
    """

    def __init__(self, *paths: Path) -> None:
        self._files: list[Any] = []
        self._owner: dict[str, Any] = {}
        metadata: dict[str, str] = {}
        for path in paths:
            file = _open(path)
            self._files.append(file)
            metadata.update(file.metadata() or {})
            self._owner.update((key, file) for key in file.keys())
        self._metadata = metadata

    @property
    def metadata(self) -> Mapping[str, str]:
        """See `Tensors.metadata`."""
        return self._metadata

    def keys(self) -> Sequence[str]:
        """See `Tensors.keys`."""
        return list(self._owner)

    def shape(self, key: str) -> tuple[int, ...]:
        """See `Tensors.shape`."""
        return tuple(self._owner[key].get_slice(key).get_shape())

    def dtype(self, key: str) -> torch.dtype:
        """See `Tensors.dtype`."""
        name = str(self._owner[key].get_slice(key).get_dtype())
        for dtype, known in TYPE_NAMES.items():
            if known == name:
                return dtype
        raise CheckpointError(
            f"Tensor '{key[:100]}' has an element type that is not supported.",
            got=name,
            fix="Save the checkpoint in float16 or float32.",
        )

    def get(self, key: str) -> torch.Tensor:
        """See `Tensors.get`."""
        tensor: torch.Tensor = self._owner[key].get_tensor(key)
        return tensor


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError, ValueError) as problem:
        raise CheckpointError(
            f"{path.name} cannot be read as safetensors.",
            got=_size(path),
            fix="It is truncated, missing or another kind of file; download or copy it again.",
        ) from problem


def _size(path: Path) -> str:
    try:
        return f"{path.stat().st_size:,} bytes"
    except OSError as problem:
        return reason(problem)


def open_pickle(path: Path) -> InMemory:
    """The tensors of a `.ckpt`; only tensors and plain containers are unpickled, never code.

    Raises:
        CheckpointError: the file is damaged, names anything else, or holds no tensors by name.
    """
    try:
        with warnings.catch_warnings():  # about pickle protocols that are refused in the same breath
            warnings.simplefilter("ignore", UserWarning)
            loaded: Any = torch.load(str(path), map_location="cpu", weights_only=True, mmap=_mappable(path))
    except pickle.UnpicklingError as problem:
        raise CheckpointError(
            f"{path.name} is no plain checkpoint: it is damaged or wants to run code, and was not loaded.",
            fix="Use the .safetensors file of the same checkpoint.",
        ) from problem
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as problem:
        raise CheckpointError(
            f"{path.name} cannot be read as a PyTorch checkpoint.",
            got=_size(path),
            fix="It is truncated, missing or another kind of file; download or copy it again.",
        ) from problem
    state: Any = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)} if state else {}
    if not tensors or not all(isinstance(key, str) for key in tensors):
        raise CheckpointError(
            f"{path.name} holds no tensors by name.", got=type(loaded).__name__, fix="Choose a Stable Diffusion file."
        )
    return InMemory(tensors)


def _mappable(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


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
        return open_pickle(path)
    raise CheckpointError(
        f"{path.name} is no checkpoint file.",
        got=f"suffix '{suffix}'",
        fix="Give a .safetensors or .ckpt file, or a folder in the layout of diffusers.",
    )


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
        count = 1
        for side in self.shape:
            count *= side
        return count * self.dtype.itemsize


def _header(tensors: Sequence[Lazy], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for tensor in tensors:
        header[tensor.key] = {
            "dtype": TYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, start + tensor.size],
        }
        start += tensor.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def write_safetensors(
    path: Path, tensors: Sequence[Lazy], metadata: Mapping[str, str], progress: Progress | None = None
) -> None:
    """Write tensors one after another, holding one at a time; the file appears whole or not at all.

    The format is that of the safetensors project: an 8-byte little-endian length, a JSON header, the bytes.

    Raises:
        CheckpointError: the folder cannot be written, or a tensor came out other than announced.
    """
    # Larger types first, so that each tensor starts at a multiple of its element's size.
    tensors = sorted(tensors, key=lambda tensor: (-tensor.dtype.itemsize, tensor.key))
    total, done = sum(tensor.size for tensor in tensors), 0
    with replacing(path, CheckpointError, what="The checkpoint") as beside, beside.open("wb") as file:
        file.write(_header(tensors, metadata))
        for tensor in tensors:
            value = tensor.make()
            if value.dtype != tensor.dtype or tuple(value.shape) != tensor.shape:
                raise CheckpointError(
                    f"Tensor '{tensor.key[:100]}' is not what its pair announced.",
                    got=f"{value.dtype} {tuple(value.shape)} for {tensor.dtype} {tensor.shape}",
                    fix="Please report it.",
                )
            file.write(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
            done += tensor.size
            if progress is not None:
                progress(done, total)
