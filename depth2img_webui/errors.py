"""Stop a job whose depth failed, and tell clients of the host's API why."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Mapping
from typing import Any, Final

from depth2img import errors

STATUS: Final[Mapping[type[errors.Depth2ImgError], int]] = {
    errors.OptionError: 422,
    errors.PictureError: 422,
    errors.DepthMapError: 422,
    errors.NoDepthError: 422,
    errors.NoDepthModelError: 422,
    errors.EstimatorError: 500,
    errors.CheckpointError: 500,
    errors.LibraryError: 500,
    errors.Depth2ImgError: 500,
}
"""Exception -> HTTP status: 422 for what the request got wrong, 500 for what failed on the server."""


class JobStopped(BaseException):
    """Carry an error out of a job, through the `except Exception` that the host puts around scripts and callbacks.

    The host ends an interrupted job in the same way (`InterruptedException`, modules/sd_samplers_common.py).
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


_jobs: contextvars.ContextVar[tuple[Any, ...]] = contextvars.ContextVar("depth2img_jobs", default=())


def under_way() -> tuple[Any, ...]:
    """Return the host's jobs that are under way, the outermost first: several where a script runs one within one."""
    return _jobs.get()


@contextlib.contextmanager
def job(p: Any) -> Iterator[None]:
    """Let a job of the host fail with the error that `stops_the_job` sends out of it.

    A job within a job stops the outer one too: the script between them would swallow an ordinary exception.
    """
    outer = _jobs.get()
    token = _jobs.set((*outer, p))
    try:
        yield
    except JobStopped as stopped:
        if outer:
            raise
        raise stopped.error from stopped.__cause__
    finally:
        _jobs.reset(token)


@contextlib.contextmanager
def stops_the_job(where: str) -> Iterator[None]:
    """Stop the host's job when what the host has called fails, instead of letting it make another picture.

    Args:
        where: which call it is, for the message about a defect.

    Raises:
        JobStopped: with an error of the library, which has a sentence and an HTTP status; the error itself where no job
            is under way.
    """
    try:
        yield
    except Exception as error:
        known = isinstance(error, errors.Depth2ImgError)
        told = for_client(error if known else _defect(error, where))
        told.__cause__ = error.__cause__ if known else error
        if not _jobs.get():
            raise told from told.__cause__
        raise JobStopped(told) from told.__cause__


def _defect(error: Exception, where: str) -> errors.Depth2ImgError:
    return errors.Depth2ImgError(
        f"Depth to image failed in {where}. The job was stopped: its picture would not be what was asked for.",
        got=f"{type(error).__name__}: {error}".rstrip("."),
        fix="Please report this with the log and the versions of the WebUI and of other extensions.",
    )


def for_client(error: Exception) -> Exception:
    """Give an error of the library the HTTP status and the sentence that the host's API answers with.

    `handle_exception` in modules/api/api.py reads `status_code` and `detail` from the exception. Other errors are
    returned unchanged.
    """
    if isinstance(error, errors.Depth2ImgError):
        error.__dict__.update(detail=str(error), status_code=STATUS.get(type(error), 500))
    return error
