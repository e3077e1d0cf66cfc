"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from .errors import Depth2ImgError, OptionError

PICTURE_KINDS: Final = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""Suffix -> kind of picture that is written."""


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
    """Yields a file beside `path` and renames it to `path` on leaving; after an error nothing is left.

    Args:
        path: where the file will be.
        error: raised if it cannot be.
        what: begins the message.

    Raises:
        error: the folder cannot be written.
    """
    with refusing(f"{what} cannot be written to {path.name}.", error, fix=WRITING):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        beside = Path(name)
        try:
            yield beside
            beside.chmod(0o644)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


@contextlib.contextmanager
def appearing(folder: Path, error: type[Depth2ImgError] = Depth2ImgError) -> Iterator[Path]:
    """Yields a folder beside `folder`, which must not exist, and renames it on leaving; after an error nothing is left.

    Raises:
        error: the folder cannot be written.
    """
    with refusing(f"{folder.name} cannot be written.", error, fix=WRITING):
        beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            yield beside
            beside.chmod(0o755)
            beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


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


def picture_path(path: Path) -> Path:
    """The path, if it is one of a picture that can be written.

    Raises:
        OptionError: its suffix is another.
    """
    if path.suffix.lower() not in PICTURE_KINDS:
        raise OptionError(
            "output", "A picture is written as .png, .jpg or .webp.", got=f"'{path.name}'", fix="Change the suffix."
        )
    return path


def save_picture(picture: npt.NDArray[np.uint8] | Image.Image, path: Path) -> None:
    """Write a picture, uint8 (H, W), (H, W, 3) or a Pillow image, as its suffix says.

    Raises:
        OptionError: the suffix is none of `PICTURE_KINDS`.
        Depth2ImgError: the folder cannot be written.
    """
    kind = PICTURE_KINDS[picture_path(path).suffix.lower()]
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    content = io.BytesIO()
    image.save(content, kind, quality=95)
    write_file(path, content.getvalue(), what="The picture")
