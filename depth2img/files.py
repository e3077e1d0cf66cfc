"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import Depth2ImgError


@contextlib.contextmanager
def replacing(path: Path, error: type[Depth2ImgError] = Depth2ImgError, *, what: str = "The file") -> Iterator[Path]:
    """Yields a file beside `path` and renames it to `path` on leaving; after an error nothing is left.

    Args:
        path: where the file will be.
        error: raised if it cannot be.
        what: begins the message.

    Raises:
        error: the folder cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        beside = Path(name)
        try:
            yield beside
            beside.chmod(0o644)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as problem:
        raise error(
            f"{what} cannot be written to {path.name}.",
            got=problem.strerror or type(problem).__name__,
            fix="Check the folder, its permissions and the free space.",
        ) from problem


def write_file(
    path: Path, content: bytes, error: type[Depth2ImgError] = Depth2ImgError, *, what: str = "The file"
) -> None:
    """Write bytes; the file appears whole or not at all.

    Raises:
        error: the folder cannot be written.
    """
    with replacing(path, error, what=what) as beside:
        beside.write_bytes(content)
