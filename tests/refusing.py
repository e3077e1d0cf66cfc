"""Errors as the house wants them: what was wrong, what arrived, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from depth2img.errors import Depth2ImgError


@contextmanager
def refused(
    kind: type[Depth2ImgError], *, got: str = "", fix: bool = True, field: str | None = None
) -> Iterator[pytest.ExceptionInfo[Depth2ImgError]]:
    """Expect this error from the block.

    Args:
        kind: the error's own class.
        got: what arrived, as the message says it.
        fix: whether the message says what to do.
        field: the option at fault, of an `OptionError`.
    """
    with pytest.raises(kind) as caught:
        yield caught
    error = caught.value
    assert type(error) is kind
    assert isinstance(error.what, str) and error.what
    assert error.got == got
    assert isinstance(error.fix, str) and bool(error.fix) == fix
    assert getattr(error, "field", None) == field
