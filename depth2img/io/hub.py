"""Files from the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ..errors import Depth2ImgError

NAME: Final = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
"""`owner/name`, optionally followed by `@revision`."""


def fetch(name: str, patterns: Sequence[str], error: type[Depth2ImgError], *, what: str) -> Path:
    """Fetch a repository into the hub's own cache, unless it is there already, and return its folder.

    Args:
        name: see `NAME`.
        patterns: the only files that are fetched.
        error: raised if they cannot be.
        what: the noun for messages, such as "model".

    Raises:
        error: there is no such repository, or it cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(patterns)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as problem:
        raise error(
            f"The {what} '{name}' cannot be fetched from the hub.",
            got=str(problem).strip().splitlines()[0][:120] if str(problem).strip() else type(problem).__name__,
            fix="Check the name and the network, or give a folder or file on this machine.",
        ) from problem
