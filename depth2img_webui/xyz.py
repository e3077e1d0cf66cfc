"""An axis of the X/Y/Z script for every option that a text can carry, by the option's name in the infotext."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from modules import scripts

from depth2img import OPTIONS, Depth2ImgError
from depth2img.table import Option

from . import estimators

VALUES: Final = "_depth2img_xyz"
"""On the copy of `p` that a cell runs: name -> value of the options that axes have set."""

SWITCHES: Final = {
    "off": False,
    "on": True,
    "false": False,
    "true": True,
    "no": False,
    "yes": True,
    "0": False,
    "1": True,
}


def add() -> None:
    """Add the axes to the host's X/Y/Z script; safe to call twice, and where that script is missing."""
    for module in _modules():
        known = {axis.label for axis in module.axis_options}
        module.axis_options.extend(
            _axis(module, option) for option in OPTIONS.values() if option.infotext and option.infotext not in known
        )


def values(p: Any) -> dict[str, Any]:
    """Return the options that axes have set for this cell."""
    return dict(getattr(p, VALUES, {}))


def parse(option: Option, value: object) -> Any:
    """Read the value of one cell from a number or a text of the host.

    Raises:
        OptionError: the option cannot have this value.
    """
    if option.kind == "switch" and isinstance(value, str):
        value = SWITCHES.get(value.strip().lower(), value)
    return option.check(value.strip() if isinstance(value, str) else value)


def _modules() -> list[Any]:
    # A "Reload UI" makes a new module. `script_class` may be any class that the file imports, the path is always right.
    found = {id(data.module): data.module for data in scripts.scripts_data if _is_xyz(data)}
    return list(found.values())


def _is_xyz(data: Any) -> bool:
    return os.path.basename(str(data.path)) == "xyz_grid.py" and hasattr(data.module, "axis_options")


def _axis(module: Any, option: Option) -> Any:
    choices: Callable[[], list[str]] | None = None
    if option.kind == "switch":
        choices = lambda: ["off", "on"]  # noqa: E731
    elif option.kind == "choice":
        choices = lambda: list(option.choices)  # noqa: E731
    elif estimators.suggestions(option):
        choices = lambda: estimators.suggestions(option)  # noqa: E731
    kind = float if option.kind == "number" else str
    return module.AxisOption(option.infotext, kind, _apply(option), confirm=_confirm(option), choices=choices)


def _apply(option: Option) -> Callable[[Any, Any, Any], None]:
    def apply(p: Any, x: Any, xs: Any) -> None:
        # A new dictionary: the cells are shallow copies of one `p`.
        setattr(p, VALUES, {**values(p), option.name: parse(option, x)})

    return apply


def _confirm(option: Option) -> Callable[[Any, Any], None]:
    def confirm(p: Any, xs: Any) -> None:
        for x in xs:
            try:
                estimators.check(option, parse(option, x))
            except Depth2ImgError as error:
                raise RuntimeError(f"{option.infotext}: {error}") from error

    return confirm
