"""Checkpoints that PyTorch has pickled, read without running anything in them.

The stream of a pickle names the things to call. Here every name stands for something inert: a container, a note of
where a tensor lies, or nothing at all; a file with any other name in it is refused. `torch.load` is not used: its
`weights_only` had a hole before PyTorch 2.6, and it holds a whole file where one tensor is wanted.

Both forms of the file are those of `torch.save` (torch/serialization.py): a zip archive with the pickle in `data.pkl`
and each storage in `data/<key>`, and, before PyTorch 1.6, five pickles in a row with the storages behind them.
"""

from __future__ import annotations

import collections
import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

from ...errors import CheckpointError
from ...io.atomic import refusing
from ...text import printable
from .reading import StoredTensors, TensorSpan, size_of

MAX_STREAM: Final = 1 << 26
"""Longest pickle that is read, in bytes; a Stable Diffusion checkpoint's is about 0.3 MB."""

LEGACY_MAGIC: Final = 0x1950A86A20F9469CFC6C
"""First value of a file from before PyTorch 1.6."""

STORAGES: Final[Mapping[str, str]] = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
"""Classes of storages -> element types as the safetensors header names them."""

WIDTHS: Final = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes of an element."""


class Inert:
    """Stand-in for objects that training scripts save with the weights; accepts any arguments and does nothing."""

    def __new__(cls, *_: object, **__: object) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass


@dataclass(frozen=True)
class _Storage:
    kind: str
    key: str


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: object, offset: object, shape: object, strides: object, *_: object) -> _Tensor:
    if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise ValueError("a tensor without storage, shape or strides")
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or any(not isinstance(n, int) or n < 0 for n in numbers):
        raise ValueError("a tensor with a negative or broken shape")
    return _Tensor(storage, int(offset), shape, strides)  # type: ignore[call-overload]


def _rebuild_parameter(data: object, *_: object) -> object:
    return data


_NAMES: Final[Mapping[tuple[str, str], Callable[..., object]]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    # What the WebUI lets through too (modules/safe.py); nothing of it is needed.
    **dict.fromkeys(
        [
            ("__builtin__", "set"),
            ("_codecs", "encode"),
            ("numpy", "dtype"),
            ("numpy", "ndarray"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy.core.multiarray", "scalar"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "scalar"),
            ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),
            ("torch", "Size"),
            ("torch", "device"),
        ],
        Inert,
    ),
}
"""All that a pickle may name, and what it gets."""


ENCRYPTED: Final = 1
"""Flag of an entry in an archive (PKWARE's APPNOTE 4.4.4)."""

BROKEN: Final = (
    OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OverflowError,
    struct.error, pickle.UnpicklingError, zipfile.BadZipFile, NotImplementedError,
)  # fmt: skip
"""Exceptions that a damaged file leads to."""

MAX_FOREIGN: Final = 1000
MAX_SHOWN: Final = 20
LONGEST: Final = 120
"""Of names that a pickle may not use: the number kept, the number shown, and the letters of one."""


class Refused(Exception):
    """A pickle names something that no checkpoint needs.

    Args:
        names: all that it names.
    """

    def __init__(self, names: Collection[str]) -> None:
        shown = sorted(names)[:MAX_SHOWN]
        more = " and more" if len(names) > len(shown) else ""
        super().__init__(f"{'a call' if len(names) == 1 else 'calls'} of {', '.join(shown)}{more}")


_LEFT_OUT: Final = frozenset(
    code[0]
    for code in (pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.EXT1, pickle.EXT2, pickle.EXT4)
)
"""Opcodes that `torch.save` never writes: memory for bytes that are not there, and names by number."""


def _without_attributes(reader: Any) -> None:
    """Skip the opcode that sets attributes: none is needed, on an object or on what is called here."""
    reader.stack.pop()


# The Python implementation: of the one in C a number in the stream can ask for any amount of memory.
class _Plain(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Callable[[pickle.Unpickler], None]]] = {
        **{code: do for code, do in pickle._Unpickler.dispatch.items() if code not in _LEFT_OUT},
        pickle.BUILD[0]: _without_attributes,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._foreign: set[str] = set()

    def load(self) -> Any:
        """Read the value in the stream.

        Raises:
            Refused: it names what it may not; it is followed to its end, so that all such names are known.
        """
        try:
            value = super().load()
        except BROKEN as problem:  # it may be so because of what stands for a foreign name
            if not self._foreign:
                raise
            raise Refused(self._foreign) from problem
        if self._foreign:
            raise Refused(self._foreign)
        return value

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return name
        if (module, name) in _NAMES:
            return _NAMES[module, name]
        if len(self._foreign) < MAX_FOREIGN:
            self._foreign.add(printable(f"{module}.{name}"[:LONGEST]))
        return Inert

    def persistent_load(self, saved: Any) -> _Storage:
        # ("storage", class, key, device, elements), and in old files a view
        if not isinstance(saved, tuple) or len(saved) < 3 or saved[0] != "storage" or saved[1] not in STORAGES:
            raise ValueError("a storage of an unknown kind")
        return _Storage(STORAGES[saved[1]], str(saved[2]))


class _Bounded:
    """The first bytes of a stream: a pickle that goes on is refused."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, MAX_STREAM

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._left:
            raise ValueError("a stream that is too long")
        self._left -= size
        return self._file.read(size)

    def readline(self) -> bytes:
        line = self._file.readline(self._left)
        self._left -= len(line)
        return line


@dataclass(frozen=True)
class _Bytes:
    start: int
    size: int
    crc: int | None


def read_pickle(path: Path, file: BinaryIO) -> StoredTensors:
    """Find the tensors of a file that `torch.save` wrote; nothing in it is run, and no tensor is read yet.

    Args:
        path: the file.
        file: the file, open for reading.

    Raises:
        CheckpointError: the file is damaged, names anything but tensors, or holds no tensors by name.
    """
    with (
        refusing(
            f"{path.name} is not a plain checkpoint: it wants to run code, and was not loaded.",
            CheckpointError,
            on=(Refused,),
            got=str,
            fix="Use the .safetensors file of the same checkpoint.",
        ),
        refusing(
            f"{path.name} cannot be read as a PyTorch checkpoint.",
            CheckpointError,
            on=BROKEN,
            got=lambda _: size_of(path),
            fix="It is truncated, missing or another kind of file; download or copy it again.",
        ),
    ):
        file.seek(0)
        zipped = file.read(2) == b"PK"
        file.seek(0)
        loaded, storages = _from_zip(path, file) if zipped else _from_legacy(file)
        tensors = _by_name(loaded)
    if not tensors:
        raise CheckpointError(
            f"{path.name} holds no tensors by name.", got=type(loaded).__name__, fix="Choose a Stable Diffusion file."
        )
    return StoredTensors({key: _span(path, key, tensor, storages) for key, tensor in tensors.items()}, {})


def _by_name(loaded: object) -> dict[str, _Tensor]:
    inner = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if isinstance(inner, dict) and "optimizer" in inner and isinstance(inner.get("model"), dict):
        inner = inner["model"]  # as some of MiDaS' files are
    if isinstance(inner, dict) and isinstance(inner.get("string_to_param"), dict):
        inner = inner["string_to_param"]  # a learned word (textual inversion)
    if not isinstance(inner, dict):
        return {}
    return {key: value for key, value in inner.items() if isinstance(key, str) and isinstance(value, _Tensor)}


def _span(path: Path, key: str, tensor: _Tensor, storages: Mapping[str, _Bytes]) -> TensorSpan:
    kind, width = tensor.storage.kind, WIDTHS[tensor.storage.kind]
    there = storages.get(tensor.storage.key)
    last = sum(step * (side - 1) for step, side in zip(tensor.strides, tensor.shape, strict=True))
    if there is None or (0 not in tensor.shape and (tensor.offset + last + 1) * width > there.size):
        raise CheckpointError(
            f"{path.name} is damaged: tensor '{key[:100]}' lies outside of the file.",
            got=size_of(path),
            fix="Download or copy it again.",
        )
    whole = tensor.offset == 0 and (last + 1) * width == there.size
    start = there.start + tensor.offset * width
    return TensorSpan(path, start, kind, tensor.shape, tensor.strides, there.crc if whole else None)


def _from_zip(path: Path, file: BinaryIO) -> tuple[object, dict[str, _Bytes]]:
    size = path.stat().st_size
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        [stream] = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
        folder = stream.filename[: -len("data.pkl")] + "data/"
        storages: dict[str, _Bytes] = {}
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & ENCRYPTED:
                raise ValueError("a compressed or encrypted archive")
            if entry.filename.startswith(folder):
                start = _data_start(file, entry.header_offset)
                if start + entry.file_size > size:
                    raise ValueError("an entry that ends behind the file")
                storages[entry.filename[len(folder) :]] = _Bytes(start, entry.file_size, entry.CRC)
            elif entry.filename.endswith("/byteorder"):
                with archive.open(entry) as order:
                    if order.read(3) == b"big":
                        raise ValueError("big-endian")
        if stream.file_size > MAX_STREAM:
            raise ValueError("a stream that is too long")
        return _Plain(io.BytesIO(archive.read(stream)), encoding="utf-8").load(), storages


def _data_start(file: BinaryIO, header: int) -> int:
    """Find where an entry's data begin: behind 30 bytes, its name and an extra field (PKWARE's APPNOTE 4.3.7)."""
    file.seek(header)
    local = file.read(30)
    if local[:4] != b"PK\x03\x04":
        raise ValueError("no header where the archive names one")
    name, extra = struct.unpack("<HH", local[26:30])
    return header + 30 + int(name) + int(extra)


def _from_legacy(file: BinaryIO) -> tuple[object, dict[str, _Bytes]]:
    kinds: dict[str, str] = {}

    class Noting(_Plain):
        def persistent_load(self, saved: Any) -> _Storage:
            storage = super().persistent_load(saved)
            kinds[storage.key] = storage.kind
            return storage

    bounded = _Bounded(file)
    # the magic number, the version, the machine, the object, the keys of its storages in order
    magic, _, machine, loaded, keys = (Noting(bounded, encoding="utf-8").load() for _ in range(5))
    if magic != LEGACY_MAGIC or not machine["little_endian"] or not isinstance(keys, list):
        raise ValueError("no file of torch.save")
    storages: dict[str, _Bytes] = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        size = int(count) * WIDTHS[kinds[str(key)]]
        if count < 0:
            raise ValueError("a storage of negative length")
        storages[str(key)] = _Bytes(file.tell(), size, None)
        file.seek(size, io.SEEK_CUR)
    end = file.tell()
    if end > file.seek(0, io.SEEK_END):
        raise ValueError("storages behind the file's end")
    return loaded, storages
