"""Hashes of files: SHA-256, and the short hash that older WebUIs show."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO, Final

from ...errors import CheckpointError
from ...io.atomic import refusing
from .tensors import Progress

CHUNK: Final = 1024 * 1024


def model_hash(file: BinaryIO) -> str:
    """Return the WebUI's old short hash (`modules.sd_models.model_hash`): of 64 kB at 1 MB, 8 digits.

    Many files share one. `file` is open for reading.
    """
    file.seek(0x100000)
    return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]


def sha256_of(path: Path, progress: Progress | None = None) -> str:
    """Return the SHA-256 of a file, 64 digits; its first ten are the WebUI's short hash.

    Args:
        path: the file.
        progress: called with the bytes done and the bytes in all.

    Raises:
        CheckpointError: the file cannot be read.
    """
    digest, done = hashlib.sha256(), 0
    with refusing(f"{path.name} cannot be read.", CheckpointError), path.open("rb") as file:
        total = path.stat().st_size
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, total)
    return digest.hexdigest()
