"""The exception tree. Every message says what was wrong, what arrived and what to do."""

from __future__ import annotations

import shlex
import subprocess
import sys


class Depth2ImgError(Exception):
    """Base class of all errors that this library raises on purpose.

    Args:
        what: one sentence: what was wrong.
        got: what arrived, without a closing full stop; left out of the message if empty.
        fix: one sentence: what to do about it; left out if empty.
    """

    def __init__(self, what: str, *, got: str = "", fix: str = "") -> None:
        self.what, self.got, self.fix = what, got, fix
        message = " ".join(part for part in (what, f"Got {got}." if got else "", fix) if part)
        # JSON may carry half of a surrogate pair, which cannot be encoded in UTF-8.
        super().__init__(message.encode("utf-8", "backslashreplace").decode("utf-8"))

    def __reduce__(self) -> tuple[object, ...]:
        # By default, unpickling calls the class with the message alone, which does not fit our arguments.
        return type(self).__new__, (type(self), *self.args), self.__dict__


def command(*words: object) -> str:
    """Format a `depth2img` command for an error message: in backquotes, its words quoted for the user's shell."""
    texts = ["depth2img", *map(str, words)]
    return f"`{subprocess.list2cmdline(texts) if sys.platform == 'win32' else shlex.join(texts)}`"


class OptionError(Depth2ImgError, ValueError):
    """An option is unknown, of the wrong type or out of range.

    Args:
        field: the option's name, as in an option table, or the name that was given.
    """

    def __init__(self, field: str, what: str, *, got: str = "", fix: str = "") -> None:
        self.field = field
        super().__init__(what, got=got, fix=fix)


class PictureError(Depth2ImgError, ValueError):
    """A picture cannot be read, or is empty, too large or not a picture."""


class DepthMapError(Depth2ImgError, ValueError):
    """A depth map cannot be read, or is not a finite two-dimensional array."""


class NoDepthError(Depth2ImgError):
    """A depth checkpoint is in use, but there is no source of depth."""


class NoDepthModelError(Depth2ImgError):
    """Depth was requested, but the checkpoint in use has no depth channel."""


class EstimatorError(Depth2ImgError):
    """A depth estimator is unknown, or returned something that is not a depth map."""


class Cancelled(Exception):
    """A job was stopped on purpose: raise it in `on_step`. Not an error of the library, so not a `Depth2ImgError`."""


class LibraryError(Depth2ImgError):
    """An installed library is too old or too new."""


class CheckpointError(Depth2ImgError):
    """A checkpoint file cannot be used as a depth checkpoint."""
