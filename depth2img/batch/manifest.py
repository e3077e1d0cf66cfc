"""A manifest: CSV with a header, or JSON Lines; one row per picture to make."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from ..diffusion.settings import SETTINGS, Settings
from ..errors import Depth2ImgError, OptionError
from ..io.images import read_file
from ..options import OPTIONS, WEBUI_ONLY
from ..table import Option
from . import tables

SUFFIXES: Final = (".csv", ".jsonl")
MOST_ROWS: Final = 1_000_000
MOST_FAULTS: Final = 10
"""Faults that one message names."""

FILES: Final = ("picture", "mask", *(name for name, option in OPTIONS.items() if option.kind == "image"))
"""Fields that hold a path."""

TABLE: Final[Mapping[str, Option]] = {
    **SETTINGS,
    **{name: option for name, option in OPTIONS.items() if name not in WEBUI_ONLY},
}
"""Name -> option, of the settings and depth options that a row may give."""

FIELDS: Final = ("picture", "name", "mask", *TABLE)

LABELS: Final = {"_".join(option.label.casefold().split()): name for name, option in TABLE.items()}
"""An option's label, as a heading is compared -> its field."""

SWITCH: Final = {
    **dict.fromkeys(("wahr", "vrai", "verdadero", "vero"), True),
    **dict.fromkeys(("falsch", "faux", "falso"), False),
}
"""Switches as Excel writes them in German, French, Spanish and Italian."""

COMMA: Final = re.compile(r"[+-]?\d*,\d+")
"""A number with a decimal comma."""

THOUSANDS: Final = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
"""A number whose comma may as well divide thousands."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        where: file and line, for messages.
        values: field -> value of its type; files are texts. What a row leaves out or leaves empty is not there.
    """

    where: str
    values: Mapping[str, Any]


def read_manifest(path: Path) -> list[Row]:
    """Read the rows of a manifest.

    Fields are `picture` (needed), `name` (of the result), `mask`, the names of `Settings` and those of the depth
    options.

    Raises:
        OptionError: the file is not a manifest, or rows are wrong; the message names at most ten of them.
    """
    try:
        text = tables.decoded(read_file(path, Depth2ImgError))
    except UnicodeDecodeError as problem:
        raise _error(
            f"The manifest {path.name} is not a text.",
            got=f"byte {problem.start} is none of {problem.encoding}",
            fix="Save it as CSV UTF-8.",
        ) from problem
    rows: list[Row] = []
    faults: list[str] = []
    for line, raw in (_csv if path.suffix.lower() == ".csv" else _json_lines)(path, text):
        try:
            rows.append(Row(f"{path.name}, line {line}", _checked(raw)))
        except OptionError as problem:
            faults.append(f"line {line}: {problem}")
        if len(rows) > MOST_ROWS:
            raise _error(f"The manifest {path.name} is too long.", got=f"more than {MOST_ROWS:,} rows")
    refuse(f"The manifest {path.name} has faults.", faults)
    if not rows:
        raise _error(f"The manifest {path.name} has no rows.", fix=f"Give at least the field 'picture' of {FIELDS}.")
    return rows


def refuse(what: str, faults: list[str]) -> None:
    """Raise one error that lists faults, if there are any.

    Raises:
        OptionError: there are.
    """
    if faults:
        shown = [f"\n  {fault}" for fault in faults[:MOST_FAULTS]]
        rest = f"\n  and {len(faults) - MOST_FAULTS} more" if len(faults) > MOST_FAULTS else ""
        raise _error(what + "".join(shown) + rest + "\n", fix="Nothing was run.")


def _error(what: str, *, got: str = "", fix: str = "Correct it and start again.") -> OptionError:
    return OptionError("manifest", what, got=got, fix=fix)


def field_of(heading: str) -> str:
    """Find the field that a heading names, whatever its capitals and spaces, or by label; empty if there is none."""
    name = "_".join(re.findall(r"\w+", heading.casefold()))
    return name if name in FIELDS else LABELS.get(name, "")


def nearest(heading: str) -> str:
    """Make a sentence that names the field most like a heading, or all of them."""
    name = "_".join(re.findall(r"\w+", heading.casefold()))
    close = difflib.get_close_matches(name, FIELDS, 1)
    return f"Did you mean '{close[0]}'?" if close else f"The fields are: {', '.join(FIELDS)}."


def _csv(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        yield from tables.rows(text, field_of)
    except tables.HeadingError as problem:
        raise _error(
            f"The header of {path.name} is not a manifest's.", got=str(problem), fix=nearest(problem.heading)
        ) from problem
    except tables.TableError as problem:
        raise _error(f"The manifest {path.name} is not a table.", got=str(problem)) from problem


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content, parse_constant=_no_number)
        except (ValueError, RecursionError) as problem:
            raise _error(f"Line {line} of {path.name} is not JSON.", got=str(problem)[:80]) from problem
        if not isinstance(row, dict):
            raise _error(f"Line {line} of {path.name} is not a JSON object.", got=type(row).__name__)
        yield line, {name: value for name, value in row.items() if value is not None}


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _checked(raw: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for heading, value in raw.items():
        name = field_of(heading)
        if not name or name in values:
            wrong = f"There is no field '{heading[:40]}'." if not name else f"The field '{name}' is there twice."
            raise OptionError(heading, wrong, fix="" if name else nearest(heading))
        values[name] = value
    if not values.get("picture"):
        raise OptionError("picture", "There is no 'picture'.", fix="Name the file.")
    return {name: _value(name, value) for name, value in values.items()}


def _value(name: str, value: Any) -> Any:
    if name in FILES or name == "name":
        if not isinstance(value, str) or not value or "\0" in value:
            raise OptionError(name, f"'{name}' must be a path.", got=repr(value)[:60])
        return value
    option = TABLE[name]
    checked = option.check(_from_text(option, value) if isinstance(value, str) else value)
    return getattr(Settings(**{name: checked}), name) if name in SETTINGS else checked


def _from_text(option: Option, text: str) -> Any:
    """Read a field of a CSV as a spreadsheet writes it; text that is not a value of it is left to the check.

    Raises:
        OptionError: a number with a comma can be read in two ways.
    """
    if option.kind == "switch":
        return SWITCH.get(text.strip().casefold(), text)
    if option.kind != "number":
        return text
    if THOUSANDS.fullmatch(text.strip()):
        raise OptionError(
            option.name,
            f"The comma in '{option.name}' may be a decimal comma or separate thousands.",
            got=repr(text),
            fix="Write a decimal point, and nothing between thousands.",
        )
    return text.replace(",", ".") if COMMA.fullmatch(text.strip()) else text
