"""Published files by what they contain: SHA-256, and the short hashes that the WebUI shows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

import yaml

from ..errors import CheckpointError
from ..io.atomic import refusing
from .download.mirrors import PACKAGE_TABLE
from .layout.config import MIDAS_FILE
from .storage.tensors import Progress

MIDAS_FILES: Final[Mapping[str, str]] = {
    "501f0c75b3bca7daec6b3682c5054c09b366765aef6fa3a09d03a5cb4b230853": MIDAS_FILE,
}
"""SHA-256 -> name of files that are no checkpoints."""

MODEL_HASHES: Final[Mapping[str, str]] = {"d0522d12": "512-depth-ema.ckpt"}
"""The WebUI's old short hash -> name."""


@lru_cache(maxsize=1)
def published() -> Mapping[str, str]:
    """SHA-256 -> name of published files, as the publishing pages state them; see `mirrors.yaml`."""
    entries = yaml.safe_load(PACKAGE_TABLE.read_text(encoding="utf-8"))
    return {**{entry["sha256"]: name for name, entry in entries.items()}, **MIDAS_FILES}


CHUNK: Final = 1024 * 1024


def model_hash(path: Path) -> str:
    """The WebUI's old short hash (`modules.sd_models.model_hash`): of 64 kB at 1 MB, 8 digits. Many files share one.

    Raises:
        CheckpointError: the file cannot be read.
    """
    with refusing(f"{path.name} cannot be read.", CheckpointError), path.open("rb") as file:
        file.seek(0x100000)
        return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]


def sha256_of(path: Path, progress: Progress | None = None) -> str:
    """The SHA-256 of a file, 64 digits; its first ten are the WebUI's short hash.

    Args:
        progress: told the bytes done and the bytes in all.

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
