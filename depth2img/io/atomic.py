"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..errors import Depth2ImgError

if sys.platform != "win32":
    import fcntl


WRITING: Final = "Check the folder, its permissions and the free space."
"""What to do when something cannot be written."""


def reason(problem: OSError) -> str:
    """What the system says about a failed operation, in a few words."""
    return problem.strerror or str(problem)[:100] or type(problem).__name__


@contextlib.contextmanager
def refusing(
    what: str, error: type[Depth2ImgError] = Depth2ImgError, *, fix: str = "Check its name and permissions."
) -> Iterator[None]:
    """Raises `error` where the block fails to read or write: what could not be done, the system's reason, the remedy.

    Raises:
        error: the block raised `OSError`.
    """
    try:
        yield
    except OSError as problem:
        raise error(what, got=reason(problem), fix=fix) from problem


@contextlib.contextmanager
def replacing(path: Path, error: type[Depth2ImgError] = Depth2ImgError, *, what: str = "The file") -> Iterator[Path]:
    """Yields where to write what will be `path`, and renames it on leaving; after an error nothing is left.

    What a killed process leaves is taken away by `remove_stale`.

    Args:
        path: where the file will be.
        error: raised if it cannot be.
        what: begins the message.

    Raises:
        error: the folder cannot be written.
    """
    with refusing(f"{what} cannot be written to {path.name}.", error, fix=WRITING), _part(path) as beside:
        yield beside
        _sync(beside)
        beside.replace(path)


@contextlib.contextmanager
def publishing(path: Path, error: type[Depth2ImgError] = Depth2ImgError, *, what: str = "The file") -> Iterator[Path]:
    """As `replacing`, but never over a file that is there.

    Raises:
        error: there is one, or the folder cannot be written.
    """
    with refusing(f"{what} cannot be written to {path.name}.", error, fix=WRITING), _part(path) as beside:
        yield beside
        _sync(beside)
        try:
            os.link(beside, path)  # fails where there is a file, which a rename would not
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            beside.rename(path)


@contextlib.contextmanager
def appearing(folder: Path, error: type[Depth2ImgError] = Depth2ImgError) -> Iterator[Path]:
    """Yields a folder that becomes `folder`, which must not exist, on leaving; after an error nothing is left.

    A file in it whose name ends in `NEW` loses that when all are there.

    Raises:
        error: the folder cannot be written.
    """
    with refusing(f"{folder.name} cannot be written.", error, fix=WRITING), _part(folder) as beside:
        beside.mkdir()
        yield beside
        for file in [path for path in beside.rglob("*") if path.is_file()]:
            _sync(file)
            if file.suffix == NEW:
                file.rename(file.with_suffix(""))
        beside.rename(folder)


def _sync(path: Path) -> None:
    """Force a file to the disk: else a power cut may leave its name without the content."""
    with path.open("rb+") as written:  # Windows syncs only what is open for writing
        os.fsync(written.fileno())


PART: Final = ".part"
NEW: Final = ".new"
"""Ends the name of what is still written. The WebUI lists files by their suffix, in hidden folders too: a half-written
model must not have that of one."""
LOCK: Final = "in-use"
FRESH_SECONDS: Final = 60
"""A part without a lock that is younger than this may be another process' that is just beginning."""


def _part_prefix(path: Path) -> str:
    # A checksum, since the name itself may be as long as names can be.
    return f".depth2img-{zlib.crc32(path.name.encode()):08x}-"


@contextlib.contextmanager
def _part(path: Path) -> Iterator[Path]:
    """Yields a place in a folder of its own beside `path`, which is locked meanwhile and removed then."""
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=_part_prefix(path), suffix=PART))
    try:
        with (folder / f"{LOCK}{NEW}").open("wb") as file:
            if sys.platform != "win32":  # there an open file cannot be removed, which is lock enough
                with contextlib.suppress(OSError):  # a network drive without locks
                    fcntl.flock(file, fcntl.LOCK_EX)
                Path(file.name).rename(folder / LOCK)
            yield folder / f"content{NEW}"  # `path`'s own name may be as long as names can be
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_stale(path: Path) -> None:
    """Remove what killed writers of `path` have left beside it. Parts that a living process writes stay."""
    for folder in path.parent.glob(f"{_part_prefix(path)}*{PART}"):
        with contextlib.suppress(OSError):
            _remove_unless_in_use(folder)


def _remove_unless_in_use(folder: Path) -> None:
    if sys.platform == "win32":
        (folder / f"{LOCK}{NEW}").unlink()  # refused while it is open
        shutil.rmtree(folder, ignore_errors=True)
        return
    if not (folder / LOCK).exists():
        if time.time() - folder.stat().st_mtime > FRESH_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
        return
    with (folder / LOCK).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while its writer lives
        shutil.rmtree(folder, ignore_errors=True)


def free_space(folder: Path, error: type[Depth2ImgError] = Depth2ImgError) -> int:
    """Bytes that can still be written to a folder.

    Raises:
        error: there is no such folder, or it cannot be reached.
    """
    with refusing(f"The folder {folder} cannot be used.", error, fix="Create it first."):
        return shutil.disk_usage(folder).free


def write_file(
    path: Path, content: bytes, error: type[Depth2ImgError] = Depth2ImgError, *, what: str = "The file"
) -> None:
    """Write bytes; the file appears whole or not at all.

    Raises:
        error: the folder cannot be written.
    """
    with replacing(path, error, what=what) as beside:
        beside.write_bytes(content)
