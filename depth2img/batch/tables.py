"""CSV as spreadsheets write it: any of their encodings, separators and habits."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

SEPARATORS: Final = (",", ";", "\t", "|")
"""Cell separators that Excel writes, depending on the system's language, and that of "Text (Tab delimited)"."""

SEPARATOR_LINE: Final = re.compile(r'"?sep=(.)"?\r?\n')
"""Excel's own line that names the separator."""

BOMS: Final = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))

LEGACY: Final = "cp1252"
"""Encoding of Excel's "CSV" in western Europe and America."""


class TableError(ValueError):
    """A table is not one; the message says what is wrong with it."""


class HeadingError(TableError):
    """A heading is not a field.

    Args:
        heading: as it stands there.
    """

    def __init__(self, heading: str) -> None:
        self.heading = heading
        super().__init__(f"the heading '{heading[:40]}'")


def decoded(content: bytes) -> str:
    """Decode UTF-8 or UTF-16, with or without a byte order mark, or else Windows-1252.

    Raises:
        UnicodeDecodeError: it is none of them.
    """
    for mark, encoding in BOMS:
        if content.startswith(mark):
            return content.decode(encoding)
    if content[1:2] == b"\0":
        return content.decode("utf-16-le")
    if content[:1] == b"\0":
        return content.decode("utf-16-be")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode(LEGACY)


def rows(text: str, field: Callable[[str], str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield the line number and the cells, field -> text, of each row; empty cells, rows and columns are left out.

    Args:
        text: the table, its first row the headings.
        field: heading -> name of a field; empty if it is none.

    Raises:
        HeadingError: a heading is not a field.
        TableError: it is not a table, a heading is there twice, or a row has another length.
    """
    first = SEPARATOR_LINE.match(text)
    skipped = 1 if first else 0
    text = text[first.end() :] if first else text
    separators = (first[1],) if first else SEPARATORS
    separator = max(separators, key=lambda one: _known(text, one, field))  # of equals the first
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    fields: list[str] = []
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if not fields:
                fields = _fields(row, field)
                continue
            yield reader.line_num + skipped, _cells(row, fields, reader.line_num + skipped)
    except csv.Error as problem:
        raise TableError(f"line {reader.line_num + skipped}: {problem}") from problem


def _known(text: str, separator: str, field: Callable[[str], str]) -> int:
    """Count the fields among the headings, if this is the separator."""
    head = next((line for line in text.split("\n") if line.strip()), "")
    try:
        cells = next(csv.reader([head], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return 0
    return sum(bool(field(cell)) for cell in cells)


def _fields(headings: Sequence[str], field: Callable[[str], str]) -> list[str]:
    """Name of each column's field; empty for a column without a heading.

    Raises:
        HeadingError: a heading is not a field.
        TableError: two are the same.
    """
    fields = [field(heading) for heading in headings]
    for heading, name in zip(headings, fields, strict=True):
        if heading.strip() and not name:
            raise HeadingError(heading.strip())
        if name and fields.count(name) > 1:
            raise TableError(f"the heading '{name}' is there twice")
    return fields


def _cells(row: Sequence[str], fields: Sequence[str], line: int) -> dict[str, str]:
    """Field -> text of a row.

    Raises:
        TableError: it has fewer cells than there are headings, or something below or behind none.
    """
    if len(row) < len(fields):
        raise TableError(f"line {line} has {len(row)} cells for {len(fields)} headings")
    for at, cell in enumerate(row):
        if cell.strip() and (at >= len(fields) or not fields[at]):
            raise TableError(f"line {line} has '{cell.strip()[:40]}' in column {at + 1}, which has no heading")
    return {name: cell for name, cell in zip(fields, row, strict=False) if name and cell != ""}
