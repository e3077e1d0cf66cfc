"""The host's own seams: what it has, how it loads a depth checkpoint. It is chosen once, by what it has."""

from __future__ import annotations

import importlib.util
from typing import Final

from depth2img import Depth2ImgError

from .base import Host

NO_HOST: Final = (
    "This WebUI cannot run Stable Diffusion 2, and depth checkpoints are Stable Diffusion 2 checkpoints. "
    "Use AUTOMATIC1111 1.6.0 to 1.10.1, Forge or reForge with a depth checkpoint."
)


def _has(name: str) -> bool:
    """Tell whether a module exists, without importing it; the packages that it is in are imported."""
    parts = name.split(".")
    return all(importlib.util.find_spec(".".join(parts[: count + 1])) is not None for count in range(len(parts)))


def choose() -> Host | None:
    """Return the adapter for this host; None where it has no Stable Diffusion 2."""
    if _has("backend.diffusion_engine.sd20"):
        from .forge import Forge

        return Forge()
    if _has("ldm_patched") and _has("ldm"):
        from .reforge import ReForge

        return ReForge()
    if _has("ldm") and not _has("backend"):
        import depth2img_webui.hosts.a1111 as automatic1111

        return automatic1111
    return None


HOST: Final = choose()


def host() -> Host:
    """Return this host's adapter.

    Raises:
        Depth2ImgError: it has none.
    """
    if HOST is None:
        raise Depth2ImgError(NO_HOST)
    return HOST
