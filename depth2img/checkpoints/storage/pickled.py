"""Checkpoints that PyTorch has pickled, read without running anything in them.

Both forms of the file are those of `torch.save` (torch/serialization.py): a zip archive with the pickle in `data.pkl`
and each storage in `data/<key>`, and, before PyTorch 1.6, five pickles in a row with the storages behind them.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from ...errors import CheckpointError
from ...io.atomic import refusing
from .reading import Contents, StoredTensors, TensorSpan, size_of
from .tensors import TYPES
from .unpickling import BROKEN, MAX_STREAM, Bounded, Reader, Refused, SavedStorage, SavedTensor

LEGACY_MAGIC: Final = 0x1950A86A20F9469CFC6C
"""First value of a file from before PyTorch 1.6."""

WIDTHS: Final = {kind: width for kind, (_, width) in TYPES.items()}
"""Bytes of an element."""

ENCRYPTED: Final = 1
"""Flag of an entry in an archive (PKWARE's APPNOTE 4.4.4)."""

MAX_DEPTH: Final = 6
"""Deepest dictionary in dictionaries that is searched for tensors."""


@dataclass(frozen=True)
class _Bytes:
    start: int
    size: int
    crc: int | None


def read_pickle(path: Path, file: BinaryIO) -> Contents:
    """Find the tensors of a file that `torch.save` wrote; nothing in it is run, and no tensor is read yet.

    Args:
        path: the file.
        file: the file, open for reading.

    Raises:
        CheckpointError: the file is damaged, names what would run code, or holds no tensors by name.
    """
    objects: set[str] = set()
    with (
        refusing(
            f"{path.name} is not a plain checkpoint: it wants to run code, and was not loaded.",
            CheckpointError,
            on=(Refused,),
            got=str,
            fix="Do not load it with another program; get a .safetensors file from somebody you trust.",
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
        loaded, storages = (_from_zip if zipped else _from_legacy)(path, file, objects)
        found: dict[str, tuple[SavedTensor, bool]] = {}
        for name, tensor, inner in _by_name(loaded):
            found.setdefault(name, (tensor, inner))
    if not found:
        raise CheckpointError(
            f"{path.name} holds no tensors by name.",
            got=type(loaded).__name__,
            fix="Choose a Stable Diffusion file; of a whole pickled network, save its state_dict().",
        )
    spans = {name: _span(path, name, tensor, storages) for name, (tensor, _) in found.items()}
    nested = frozenset(name for name, (_, inner) in found.items() if inner)
    return Contents(StoredTensors(spans, {}), nested, tuple(sorted(objects)))


def _by_name(loaded: object) -> Iterator[tuple[str, SavedTensor, bool]]:
    """Yield the name of every tensor, the tensor, and whether it lies in an inner dictionary; outer ones first."""
    level, seen = [("", loaded)], set[int]()
    for depth in range(MAX_DEPTH):
        inner: list[tuple[str, object]] = []
        for prefix, value in level:
            if not isinstance(value, dict) or id(value) in seen:  # one that is named often is visited once
                continue
            seen.add(id(value))
            for key, part in value.items():
                if isinstance(key, str) and isinstance(part, SavedTensor):
                    yield prefix + key, part, depth > 0
                elif isinstance(key, str) and isinstance(part, dict):
                    inner.append((f"{prefix}{key}.", part))
        level = inner


def _span(path: Path, key: str, tensor: SavedTensor, storages: Mapping[str, _Bytes]) -> TensorSpan:
    width = WIDTHS[tensor.kind]
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
    return TensorSpan(path, start, tensor.kind, tensor.shape, tensor.strides, there.crc if whole else None)


def _from_zip(path: Path, file: BinaryIO, objects: set[str]) -> tuple[object, dict[str, _Bytes]]:
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
        return _value(Reader(io.BytesIO(archive.read(stream))), objects), storages


def _value(reader: Reader, objects: set[str]) -> Any:
    value = reader.load()
    objects |= reader.objects
    return value


def _data_start(file: BinaryIO, header: int) -> int:
    """Find where an entry's data begin: behind 30 bytes, its name and an extra field (PKWARE's APPNOTE 4.3.7)."""
    file.seek(header)
    local = file.read(30)
    if local[:4] != b"PK\x03\x04":
        raise ValueError("no header where the archive names one")
    name, extra = struct.unpack("<HH", local[26:30])
    return header + 30 + int(name) + int(extra)


def _from_legacy(path: Path, file: BinaryIO, objects: set[str]) -> tuple[object, dict[str, _Bytes]]:
    kinds: dict[str, str] = {}

    class Noting(Reader):
        def persistent_load(self, saved: Any) -> SavedStorage:
            storage = super().persistent_load(saved)
            kinds[storage.key] = storage.kind
            return storage

    bounded = Bounded(file)
    # the magic number, the version, the machine, the object, the keys of its storages in order
    magic, _, machine, loaded, keys = (_value(Noting(bounded), objects) for _ in range(5))
    if magic != LEGACY_MAGIC or not machine["little_endian"] or not isinstance(keys, list):
        raise ValueError("not a file of torch.save")
    storages: dict[str, _Bytes] = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        size = int(count) * WIDTHS[kinds[str(key)]]
        if count < 0:
            raise ValueError("a storage of negative length")
        storages[str(key)] = _Bytes(file.tell(), size, None)
        file.seek(size, io.SEEK_CUR)
    if file.tell() > path.stat().st_size:
        raise ValueError("storages behind the file's end")
    return loaded, storages
