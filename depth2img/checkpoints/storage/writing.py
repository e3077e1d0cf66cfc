"""Safetensors files written tensor by tensor, and read again before they appear."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import torch

from ...errors import CheckpointError
from ...io.atomic import replacing
from .hashes import sha256_of
from .opening import open_checkpoint
from .tensors import Lazy, Progress, bytes_of, kind_of

ALIGNMENT: Final = 8
"""The data begin at a multiple of this, in bytes."""


def write_safetensors(
    path: Path,
    tensors: Sequence[Lazy],
    metadata: Mapping[str, str],
    progress: Progress | None = None,
    before: Callable[[], object] | None = None,
) -> str:
    """Write tensors one after another, holding one at a time; the file appears whole or not at all.

    The format is that of the safetensors project: an 8-byte little-endian length, a JSON header, the bytes. What was
    written is read back, and compared by names, shapes, types and SHA-256, before it gets its name.

    Args:
        path: the file.
        tensors: in any order.
        metadata: texts for the header.
        progress: called with the bytes done and the bytes in all; writing and reading back count half each.
        before: called when all is written and checked, right before the file gets its name.

    Returns:
        The file's SHA-256.

    Raises:
        CheckpointError: the folder cannot be written, a tensor came out other than announced, or what was written
            reads back differently.
    """
    # Larger types first, so that each tensor starts at a multiple of its element's size.
    tensors = sorted(tensors, key=lambda tensor: (-bytes_of(tensor.dtype), tensor.key))
    tell = _halves(progress, sum(tensor.size for tensor in tensors))
    with replacing(path, CheckpointError, what="The checkpoint") as temporary:
        with temporary.open("wb") as file:
            written = _stream(file, tensors, metadata, tell)
            file.flush()
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):  # so that it is the disk that is read back, and others keep their cache
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        _check(temporary, path.name, tensors, written, tell)
        if before is not None:
            before()
    return written


Tell = Callable[[int], None]


def _halves(progress: Progress | None, total: int) -> Tell:
    done = 0

    def tell(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress(min(done // 2, total), total)

    return tell


def _stream(file: BinaryIO, tensors: Sequence[Lazy], metadata: Mapping[str, str], tell: Tell) -> str:
    header = _header(tensors, metadata)
    digest = hashlib.sha256(header)
    file.write(header)
    for tensor in tensors:
        value = tensor.make()
        if value.dtype != tensor.dtype or tuple(value.shape) != tensor.shape:
            raise CheckpointError(
                f"Tensor '{tensor.key[:100]}' is not what was announced.",
                got=f"{value.dtype} {tuple(value.shape)} for {tensor.dtype} {tensor.shape}",
                fix="Please report it.",
            )
        content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
        digest.update(content)
        file.write(content)
        tell(tensor.size)
    return digest.hexdigest()


def _header(tensors: Sequence[Lazy], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for tensor in tensors:
        header[tensor.key] = {
            "dtype": kind_of(tensor.dtype),
            "shape": list(tensor.shape),
            "data_offsets": [start, start + tensor.size],
        }
        start += tensor.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _check(temporary: Path, name: str, tensors: Sequence[Lazy], written: str, tell: Tell) -> None:
    again = open_checkpoint(temporary)
    same = set(again.keys()) == {lazy.key for lazy in tensors}
    same = same and all(again.shape(t.key) == t.shape and again.dtype(t.key) == t.dtype for t in tensors)
    before = 0

    def told(done: int, _: int) -> None:
        nonlocal before
        tell(done - before)
        before = done

    if not same or sha256_of(temporary, told) != written:
        raise CheckpointError(
            f"{name} was written, but reads back differently; it was not kept.",
            fix="Check the disk, or choose another one.",
        )
