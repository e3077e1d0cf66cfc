"""Make a node's widgets from the option table: same names, ranges, defaults and tooltips as everywhere else."""

from __future__ import annotations

from typing import Any, Final

from depth2img import OPTIONS
from depth2img.table import Option

Widget = tuple[Any, dict[str, Any]]
"""Type and settings of an input, as `INPUT_TYPES` lists them."""

FINEST: Final = 0.001
"""Step of a number that the table shows as a plain field."""


def widget(option: Option) -> Widget:
    """Make the widget of an option.

    Raises:
        ValueError: it is a picture, which is a connection between nodes here.
    """
    settings: dict[str, Any] = {"default": option.default, "tooltip": option.help}
    if option.kind == "switch":
        return "BOOLEAN", settings
    if option.kind == "text":
        return "STRING", settings
    if option.kind == "choice":
        return [*option.choices], settings
    if option.kind == "number":
        step = option.step or FINEST
        settings |= {"min": option.minimum, "max": option.maximum, "step": step, "round": FINEST}
        return "FLOAT", settings | ({"display": "slider"} if option.step else {})
    raise ValueError(f"option '{option.name}' has no widget")


def widgets(*names: str) -> dict[str, Widget]:
    """Make the widgets of depth options, by name."""
    return {name: widget(OPTIONS[name]) for name in names}
