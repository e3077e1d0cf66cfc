"""The options table of docs/options.md, from `depth2img.options.OPTIONS`. `python -m tools.options_table` renews it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from depth2img.options import OPTIONS, Option

GUIDE: Final = Path(__file__).parents[1] / "docs" / "options.md"
START: Final = "<!-- options: written by tools/options_table.py -->\n"
END: Final = "<!-- end of options -->\n"


def table() -> str:
    """The table as Markdown, one row per option in the order of the API's positional list."""
    head = "| panel | API field | values | default | what it does |\n| --- | --- | --- | --- | --- |\n"
    return head + "".join(
        f"| {option.label} | `{option.name}` | {_values(option)} | {_default(option)} | {option.help} |\n"
        for option in OPTIONS.values()
    )


def renewed(text: str) -> str:
    """A guide with the table put between its markers.

    Raises:
        ValueError: the markers are not there.
    """
    before, rest = text.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n{table()}\n{END}{after}"


def _values(option: Option) -> str:
    if option.kind == "switch":
        return "true, false"
    if option.kind == "number":
        return f"{option.minimum:g} to {option.maximum:g}"
    if option.kind == "choice":
        return ", ".join(f"`{name}` ({label})" for name, label in option.choices.items())
    return "text" if option.kind == "text" else "base64, data URL"


def _default(option: Option) -> str:
    if option.kind == "switch":
        return str(option.default).lower()
    if option.kind == "number":
        return f"{option.default:g}"
    return f"`{option.default}`" if option.kind in ("choice", "text") and option.default else "none"


if __name__ == "__main__":
    GUIDE.write_text(renewed(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
