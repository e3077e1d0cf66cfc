"""The exception tree. Every message says what was wrong, what arrived and what to do."""

from __future__ import annotations

import shlex
import subprocess
import sys


class Depth2ImgError(Exception):
    """Base of everything this library raises on purpose.

    Args:
        what: one sentence: what was wrong.
        got: what arrived, without a closing full stop. Left out of the message when empty.
        fix: one sentence: what to do about it. Left out when empty.
    """

    def __init__(self, what: str, *, got: str = "", fix: str = "") -> None:
        self.what, self.got, self.fix = what, got, fix
        message = " ".join(part for part in (what, f"Got {got}." if got else "", fix) if part)
        # JSON may carry half of a surrogate pair, which no answer in UTF-8 could give back.
        super().__init__(message.encode("utf-8", "backslashreplace").decode("utf-8"))

    def __reduce__(self) -> tuple[object, ...]:
        # Pickled (between processes) an exception is called again with its message alone, which is not what we take.
        return type(self).__new__, (type(self), *self.args), self.__dict__


def command(*words: object) -> str:
    """A command of the command line as a remedy names it: between backquotes, quoted for the user's shell."""
    texts = ["depth2img", *map(str, words)]
    return f"`{subprocess.list2cmdline(texts) if sys.platform == 'win32' else shlex.join(texts)}`"


class OptionError(Depth2ImgError, ValueError):
    """An option is unknown, of the wrong type or out of range.

    Args:
        field: the option's name, as in `depth2img.options.OPTIONS`, or what was taken for one.
    """

    def __init__(self, field: str, what: str, *, got: str = "", fix: str = "") -> None:
        self.field = field
        super().__init__(what, got=got, fix=fix)


class PictureError(Depth2ImgError, ValueError):
    """A picture cannot be read, or is empty, too large or of a kind that is no picture."""


class DepthMapError(Depth2ImgError, ValueError):
    """A depth map cannot be read, or is not a finite two-dimensional array."""


class NoDepthError(Depth2ImgError):
    """A depth checkpoint is to generate, but there is nothing to take depth from."""


class NoDepthModelError(Depth2ImgError):
    """Depth was asked for, but the checkpoint in use has no place for it."""


class EstimatorError(Depth2ImgError):
    """A depth estimator is unknown or returned something that is no depth map."""


class CheckpointError(Depth2ImgError):
    """A checkpoint file cannot be used as a depth checkpoint."""
