"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from ..errors import Depth2ImgError

WRITING: Final = "Check the folder, its permissions and the free space."
"""Remedy where something cannot be written."""


def reason(problem: Exception) -> str:
    """Say in a few words why an operation failed: in the system's words, where it has any."""
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    if isinstance(problem, KeyError) and problem.args:
        return f"'{str(problem.args[0])[:80]}' missing"
    if isinstance(problem, RecursionError):
        return "it is nested too deeply"
    return str(problem)[:100] or type(problem).__name__


@contextlib.contextmanager
def refusing(
    what: str,
    error: type[Depth2ImgError] = Depth2ImgError,
    *,
    on: tuple[type[Exception], ...] = (OSError,),
    got: Callable[[Exception], str] = reason,
    fix: str = "Check its name and permissions.",
) -> Iterator[None]:
    """Turn what a library or the system raises in the block into an error of ours, which names the remedy.

    An error of ours that is raised in the block passes unchanged.

    Args:
        what: one sentence that names the failed operation.
        error: the class of the error.
        on: the exceptions that are turned into it.
        got: describes what was raised.
        fix: one sentence: the remedy.

    Raises:
        error: the block raised one of `on`.
    """
    try:
        yield
    except Depth2ImgError:
        raise
    except on as problem:
        raise error(what, got=got(problem), fix=fix) from problem


@contextlib.contextmanager
def replacing(path: Path, error: type[Depth2ImgError] = Depth2ImgError, *, what: str = "The file") -> Iterator[Path]:
    """Yield a temporary path, and rename it to `path` on leaving; after an error nothing is left.

    `remove_stale` removes what a killed process leaves.

    Args:
        path: the file's path.
        error: raised if it cannot be.
        what: begins the message.

    Raises:
        error: the folder cannot be written.
    """
    with refusing(f"{what} cannot be written to {path.name}.", error, fix=WRITING), _temporary(path) as temporary:
        yield temporary
        _sync(temporary)
        temporary.replace(path)


@contextlib.contextmanager
def publishing(path: Path, error: type[Depth2ImgError] = Depth2ImgError, *, what: str = "The file") -> Iterator[Path]:
    """Yield a temporary path that becomes `path` on leaving, as `replacing` does, but never replace a file.

    Raises:
        error: there already is a file, or the folder cannot be written.
    """
    with refusing(f"{what} cannot be written to {path.name}.", error, fix=WRITING), _temporary(path) as temporary:
        yield temporary
        _sync(temporary)
        try:
            os.link(temporary, path)  # fails where there is a file, which a rename would not
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            temporary.rename(path)


@contextlib.contextmanager
def appearing(folder: Path, error: type[Depth2ImgError] = Depth2ImgError) -> Iterator[Path]:
    """Yield a folder that becomes `folder`, which must not exist, on leaving; after an error nothing is left.

    A file in it whose name ends in `NEW` loses that suffix once all are written.

    Raises:
        error: the folder cannot be written.
    """
    with refusing(f"{folder.name} cannot be written.", error, fix=WRITING), _temporary(folder) as temporary:
        temporary.mkdir()
        yield temporary
        for file in [path for path in temporary.rglob("*") if path.is_file()]:
            _sync(file)
            if file.suffix == NEW:
                file.rename(file.with_suffix(""))
        temporary.rename(folder)


def _sync(path: Path) -> None:
    """Force a file to the disk: otherwise a power cut may leave its name without the content."""
    with path.open("rb+") as written:  # Windows syncs only what is open for writing
        os.fsync(written.fileno())


PART: Final = ".part"
LOCK: Final = ".lock"
NEW: Final = ".new"
"""Suffix of a file that is still being written. The WebUI lists files by their suffix, in hidden folders too: a
half-written model must not have a model's."""


def _prefix(path: Path) -> str:
    # A checksum, since the name itself may be as long as names can be.
    return f".depth2img-{zlib.crc32(path.name.encode()):08x}-"


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Yield a path in a folder of its own beside `path`; the folder is locked meanwhile, and removed on leaving.

    The lock lies beside the folder and is created before it: a lock that nobody holds means that the folder is stale.
    """
    from filelock import FileLock

    with contextlib.ExitStack() as leaving:
        # Not inside the folder: Windows cannot remove an open file.
        lock = path.with_name(f"{_prefix(path)}{uuid.uuid4().hex}{LOCK}")
        folder = lock.with_suffix(PART)
        lock.touch(exist_ok=False)  # filelock would create a missing folder
        leaving.callback(_remove, lock)
        with contextlib.suppress(OSError, NotImplementedError):  # a network drive without locks
            leaving.enter_context(FileLock(lock))
        leaving.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        yield folder / f"content{NEW}"  # `path`'s own name may be as long as names can be


def _remove(lock: Path) -> None:
    with contextlib.suppress(OSError):
        lock.unlink(missing_ok=True)


def remove_stale(path: Path) -> None:
    """Remove what killed writers of `path` have left beside it; files of running writers stay."""
    from filelock import FileLock

    for lock in path.parent.glob(f"{_prefix(path)}*{LOCK}"):
        # `Timeout`, which is an OSError: its writer is running. NotImplementedError: no locks here, so it is unknown.
        with contextlib.suppress(OSError, NotImplementedError), FileLock(lock, timeout=0):
            shutil.rmtree(lock.with_suffix(PART), ignore_errors=True)
            _remove(lock)


def free_space(folder: Path, error: type[Depth2ImgError] = Depth2ImgError) -> int:
    """Return the bytes that can still be written to a folder.

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
    with replacing(path, error, what=what) as temporary:
        temporary.write_bytes(content)
