"""Make the tables of docs/options.md from the option tables. `python -m tools.options_table` renews them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from depth2img.diffusion.settings import SETTINGS
from depth2img.options import OPTIONS
from depth2img.table import Option

GUIDE: Final = Path(__file__).parents[1] / "docs" / "options.md"

TABLES: Final[Mapping[str, Mapping[str, Option]]] = {"options": OPTIONS, "settings": SETTINGS}
"""Name in the guide's markers -> option table."""


def table(options: Iterable[Option]) -> str:
    """Return a table as Markdown, one row per option in the given order."""
    head = "| label | name | values | default | what it does |\n| --- | --- | --- | --- | --- |\n"
    return head + "".join(
        f"| {option.label} | `{option.name}` | {_values(option)} | {_default(option)} | {option.help} |\n"
        for option in options
    )


def renewed(text: str) -> str:
    """Return a guide with every table put between its markers.

    Raises:
        ValueError: a marker is missing.
    """
    for name, options in TABLES.items():
        start, end = f"<!-- {name}: written by tools/options_table.py -->\n", f"<!-- end of {name} -->\n"
        before, rest = text.split(start)
        _, after = rest.split(end)
        text = f"{before}{start}\n{table(options.values())}\n{end}{after}"
    return text


def _values(option: Option) -> str:
    if option.kind == "switch":
        return "true, false"
    if option.kind == "number":
        return f"{option.span}, whole" if option.whole and option.multiple == 1 else option.span
    if option.kind == "choice":
        return ", ".join(
            f"`{name}`" if label.lower() == name else f"`{name}` ({label})" for name, label in option.choices.items()
        )
    return "text" if option.kind == "text" else "base64, data URL"


def _default(option: Option) -> str:
    if option.unset:
        return option.unset
    if option.kind == "switch":
        return str(option.default).lower()
    if option.kind == "number":
        return f"{option.default:g}"
    return f"`{option.default}`" if option.kind in ("choice", "text") and option.default else "none"


if __name__ == "__main__":
    GUIDE.write_text(renewed(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
