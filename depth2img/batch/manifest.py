"""A manifest: CSV with a header, or JSON Lines; one row per picture to make."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from ..diffusion.settings import SETTINGS, Settings
from ..errors import Depth2ImgError, OptionError
from ..io.images import read_file
from ..options import OPTIONS, WEBUI_ONLY
from ..table import Option

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
SWITCH: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


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
        text = read_file(path, Depth2ImgError).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise _error(f"The manifest {path.name} is not UTF-8.", got=f"byte {problem.start}") from problem
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


def _csv(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        unknown = [name for name in header if name not in FIELDS]
        if unknown or "picture" not in header or len(set(header)) < len(header):
            raise _error(
                f"The header of {path.name} is not a manifest's.",
                got=", ".join(header)[:120] or "no header",
                fix=f"It names 'picture' and others of: {', '.join(FIELDS)}; each once.",
            )
        for row in reader:
            if None in row or None in row.values():
                raise _error(f"Line {reader.line_num} of {path.name} does not have as many fields as the header.")
            yield reader.line_num, {name: value for name, value in row.items() if value != ""}
    except csv.Error as problem:
        raise _error(
            f"The manifest {path.name} is not a CSV file.", got=f"line {reader.line_num}: {problem}"
        ) from problem


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
    for name in raw:
        if name not in FIELDS:
            raise OptionError(name, f"There is no field '{name[:40]}'.", fix=f"The fields are: {', '.join(FIELDS)}.")
    if not raw.get("picture"):
        raise OptionError("picture", "There is no 'picture'.", fix="Name the file.")
    return {name: _value(name, value) for name, value in raw.items()}


def _value(name: str, value: Any) -> Any:
    if name in FILES or name == "name":
        if not isinstance(value, str) or not value or "\0" in value:
            raise OptionError(name, f"'{name}' must be a path.", got=repr(value)[:60])
        return value
    option = TABLE[name]
    if isinstance(value, str):
        value = _from_text(option, value)
    checked = option.check(value)
    return getattr(Settings(**{name: value}), name) if name in SETTINGS else checked


def _from_text(option: Option, text: str) -> Any:
    """Read a field of a CSV as its type; text that is not a value of it is left to the check."""
    if option.kind == "switch":
        return SWITCH.get(text.strip().lower(), text)
    if option.kind == "number":
        with contextlib.suppress(ValueError):
            return int(text) if option.whole else float(text)
    return text
