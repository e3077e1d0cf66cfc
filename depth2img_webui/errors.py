"""Tell clients of the host's API why a job or a request failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from depth2img import errors

STATUS: Final[Mapping[type[errors.Depth2ImgError], int]] = {
    errors.OptionError: 422,
    errors.PictureError: 422,
    errors.DepthMapError: 422,
    errors.NoDepthError: 422,
    errors.NoDepthModelError: 422,
    errors.EstimatorError: 500,
    errors.CheckpointError: 500,
    errors.Depth2ImgError: 500,
}
"""Exception -> HTTP status: 422 for what the request got wrong, 500 for what failed on the server."""


def for_client(error: Exception) -> Exception:
    """Give an error of the library the HTTP status and the sentence that the host's API answers with.

    `handle_exception` in modules/api/api.py reads `status_code` and `detail` from the exception. Other errors are
    returned unchanged.
    """
    if isinstance(error, errors.Depth2ImgError):
        error.__dict__.update(detail=str(error), status_code=STATUS.get(type(error), 500))
    return error
