"""Pasting: infotext -> values of the panel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from depth2img import OptionError
from depth2img.options import OPTIONS, value_from_infotext

from .hosts.compat import log


def paste_fields(components: dict[str, Any]) -> list[tuple[Any, Callable[[dict[str, Any]], Any]]]:
    """Pairs for `Script.infotext_fields`: component, function from the parsed infotext to its value.

    Functions, not keys: the host leaves a component unchanged where a key is missing, so that an option of an earlier
    picture would survive, and its API turns the text "False" into True.
    """
    return [(component, _reader(name)) for name, component in components.items() if OPTIONS[name].infotext]


def _reader(name: str) -> Callable[[dict[str, Any]], Any]:
    def read(params: dict[str, Any]) -> Any:
        try:
            return value_from_infotext(name, params)
        except OptionError as error:
            log.warning("Infotext: %s", error)
            return OPTIONS[name].default

    return read
