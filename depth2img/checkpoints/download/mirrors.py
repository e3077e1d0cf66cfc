"""The table of published checkpoints and depth estimators and their mirrors: the package's, and the user's own.

A table is YAML: file name -> known facts about the file. See `mirrors.yaml` beside this module, and
docs/checkpoints.md. A table of the user's may also name local folders, `file://` and plain `http://`.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, get_args
from urllib.parse import urlsplit
from urllib.request import url2pathname

import yaml

from ...errors import CheckpointError
from ...io.atomic import refusing
from ..layout.keys import MIDAS_FILE

PACKAGE_TABLE: Final = Path(__file__).with_name("mirrors.yaml")
MAX_TABLE_BYTES: Final = 1024 * 1024
MAX_SOURCES: Final = 32

HUB: Final = "https://huggingface.co/"
HUB_VARIABLE: Final = "HF_ENDPOINT"
"""Environment variable that names another address of the Hugging Face hub, as for huggingface_hub itself."""

FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.+-]{0,120}\.(?:safetensors|ckpt)")
SIZE: Final = re.compile(r"(\d{1,6}(?:\.\d{1,6})?) ?(kB|MB|GB)")
UNITS: Final[Mapping[str, int]] = {"kB": 10**3, "MB": 10**6, "GB": 10**9}
FIELDS: Final = ("kind", "about", "precision", "size", "sha256", "licence", "urls")

Kind = Literal["checkpoint", "estimator"]

MIDAS_FILES: Final[Mapping[str, str]] = {
    "501f0c75b3bca7daec6b3682c5054c09b366765aef6fa3a09d03a5cb4b230853": MIDAS_FILE,
}
"""SHA-256 -> name of published files that are not checkpoints."""

MODEL_HASHES: Final[Mapping[str, str]] = {"d0522d12": "512-depth-ema.ckpt"}
"""The WebUI's old short hash -> name."""

Source = str | Path
"""An https or http address, or a file of this machine."""


@dataclass(frozen=True)
class Size:
    """The size of a file, as far as it is known.

    Attributes:
        text: for people.
        low, high: bytes at least and at most; equal where the size is known exactly.
    """

    text: str
    low: int
    high: int

    def __contains__(self, count: int) -> bool:
        return self.low <= count <= self.high


@dataclass(frozen=True)
class RemoteFile:
    """A published file that can be fetched.

    Attributes:
        file: its name, without a folder.
        about: one line for people.
        precision: of its weights, such as `fp16`; may be empty.
        size: its size.
        sha256: 64 hexadecimal digits in lower case, None where no source states them.
        licence: may be empty.
        sources: addresses and files to get it from, tried in this order.
        kind: what it is used as.
    """

    file: str
    about: str
    precision: str
    size: Size
    sha256: str | None
    licence: str
    sources: tuple[Source, ...]
    kind: Kind = "checkpoint"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data; `bytes` are at least and at most."""
        values = {"file": self.file, "about": self.about, "precision": self.precision, "sha256": self.sha256}
        size = {"size": self.size.text, "bytes": [self.size.low, self.size.high]}
        return {**values, **size, "licence": self.licence, "urls": [str(source) for source in self.sources]}

    def rows(self) -> list[tuple[str, str]]:
        """List what to show before it is fetched: what, how large, from where, under which licence."""
        return [
            ("File", self.file),
            *([("What it is", self.about)] if self.about else []),
            ("Size", self.size.text),
            ("From", ", then ".join(dict.fromkeys(map(location, self.sources))) or "nowhere"),
            ("SHA-256", self.sha256 or "not known: the file cannot be checked"),
            ("Licence", self.licence or "not stated"),
        ]

    def lines(self) -> list[str]:
        """Format the rows as lines of text."""
        return [f"{label:<13} {value}" for label, value in self.rows()]


def location(source: Source) -> str:
    """Name where a source lies, for people: the host's name, or the path."""
    return str(source) if isinstance(source, Path) else urlsplit(source).netloc


def table(own: Sequence[Path] = (), *, kind: Kind = "checkpoint") -> dict[str, RemoteFile]:
    """Return all published files of a kind by file name, the recommended one first.

    Args:
        own: tables of the user's, or folders. What they say of a file in the package's table is tried first; a folder
            is one more source of each file that lies in it.
        kind: checkpoints, or depth estimators.

    Raises:
        CheckpointError: a table is missing, malformed, or contradicts the package's.
    """
    entries = _read(PACKAGE_TABLE, {}, own=False)
    for path in own:
        with _reading(path):
            is_folder = path.is_dir()
        if is_folder:
            entries = {name: _first(entry, _in_folder(path, name)) for name, entry in entries.items()}
        else:
            entries |= _read(path, entries, own=True)
    return {
        name: dataclasses.replace(entry, sources=tuple(map(_other_hub, entry.sources)))
        for name, entry in entries.items()
        if entry.kind == kind
    }


@lru_cache(maxsize=1)
def published() -> Mapping[str, str]:
    """Return the names of published files by their SHA-256, as the publishing pages state them; see `mirrors.yaml`."""
    entries = _read(PACKAGE_TABLE, {}, own=False).values()
    return {**{entry.sha256: entry.file for entry in entries if entry.sha256 is not None}, **MIDAS_FILES}


def find(name: str | None, entries: Mapping[str, RemoteFile]) -> RemoteFile:
    """Find the entry of a file name, of its stem where that is enough, or the recommended one.

    Raises:
        CheckpointError: there is none.
    """
    if name is None:
        return next(iter(entries.values()))
    kind = next((entry.kind for entry in entries.values()), "checkpoint")
    if name in entries:
        return entries[name]
    matching = [entry for file, entry in entries.items() if Path(file).stem == name]
    if matching:
        return matching[0]
    raise CheckpointError(
        f"No such {kind} is in the table.", got=f"'{name[:80]}'", fix=f"Choose one of {', '.join(entries)}."
    )


def _first(entry: RemoteFile, sources: Sequence[Source]) -> RemoteFile:
    return dataclasses.replace(entry, sources=tuple(dict.fromkeys([*sources, *entry.sources])))


def _in_folder(folder: Path, name: str) -> list[Source]:
    with _reading(folder):
        return [folder / name] if (folder / name).is_file() else []


def _reading(path: Path) -> AbstractContextManager[None]:
    what = f"{path.name[:80]} cannot be read as a table of mirrors, or a place that one names."
    return refusing(what, CheckpointError, fix="Check the path.")


def _read(path: Path, known: Mapping[str, RemoteFile], *, own: bool) -> dict[str, RemoteFile]:
    try:
        with _reading(path), path.open("rb") as file:
            content = file.read(MAX_TABLE_BYTES + 1)
        if len(content) > MAX_TABLE_BYTES:
            raise _bad(path, "it is larger than a megabyte")
        values = yaml.safe_load(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, ValueError, RecursionError, yaml.YAMLError) as problem:
        raise _bad(path, f"not YAML: {' '.join(str(problem).split())[:120]}") from problem
    if not isinstance(values, dict):
        raise _bad(path, "no file names with what is known of them")
    return {name: _entry(path, name, fields, known.get(name), own=own) for name, fields in values.items()}


def _bad(path: Path, detail: str) -> CheckpointError:
    return CheckpointError(
        f"The table of mirrors {path.name} cannot be used.", got=detail, fix="See docs/checkpoints.md for its form."
    )


def _entry(path: Path, name: Any, fields: Any, known: RemoteFile | None, *, own: bool) -> RemoteFile:
    if not isinstance(name, str) or FILE_NAME.fullmatch(name) is None:
        raise _bad(path, f"{str(name)[:80]!r} for a file name; it must be a plain .safetensors or .ckpt name")
    if not isinstance(fields, dict) or set(fields) - {*FIELDS}:
        wrong = ", ".join(sorted(str(key)[:40] for key in set(fields) - {*FIELDS})) if isinstance(fields, dict) else ""
        raise _bad(path, f"{name}: {f'unknown field {wrong}' if wrong else 'no fields'}; there are {', '.join(FIELDS)}")

    def text(field: str, default: str = "") -> str:
        value = fields.get(field, default)
        if not isinstance(value, str) or len(value) > 500 or not value.isprintable():
            raise _bad(path, f"{name}: {field} is not a line of text; put it into quotes")
        return value

    urls = fields.get("urls", [])
    if not isinstance(urls, list) or not (urls or known) or len(urls) > MAX_SOURCES:
        raise _bad(path, f"{name}: urls is not a list of 1 to {MAX_SOURCES} addresses")
    sha256 = text("sha256").lower() or None
    if sha256 is not None and re.fullmatch(r"[0-9a-f]{64}", sha256) is None:
        raise _bad(path, f"{name}: sha256 is not 64 hexadecimal digits")
    sources = [source for url in urls for source in _source(path, name, url, own=own, hashed=bool(sha256 or known))]
    kind = text("kind", "checkpoint" if known is None else known.kind)
    if kind not in get_args(Kind) or (known is not None and kind != known.kind):
        raise _bad(path, f"{name}: kind {kind[:40]!r}; it is {' or '.join(get_args(Kind))}")
    if known is not None:
        if sha256 not in (None, known.sha256):
            raise _bad(path, f"{name}: another sha256 than the package's; give the file another name")
        return _first(known, sources)
    if "size" not in fields:
        raise _bad(path, f"{name}: no size")
    return RemoteFile(
        file=name,
        about=text("about"),
        precision=text("precision"),
        size=_size(path, name, fields["size"]),
        sha256=sha256,
        licence=text("licence"),
        sources=tuple(dict.fromkeys(sources)),
        kind="estimator" if kind == "estimator" else "checkpoint",
    )


def _size(path: Path, name: str, value: Any) -> Size:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**12:
        return Size(text=f"{value:,} bytes", low=value, high=value)
    match = SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None or Decimal(match[1]) == 0:
        raise _bad(path, f"{name}: size is neither a number of bytes nor like '2.85 GB'")
    number, unit = Decimal(match[1]), UNITS[match[2]]
    # One unit of the last digit: sources round, or cut off.
    slack = Decimal(1).scaleb(number.as_tuple().exponent)  # type: ignore[arg-type]
    return Size(text=value, low=max(1, int((number - slack) * unit)), high=int((number + slack) * unit))


def _source(path: Path, name: str, value: Any, *, own: bool, hashed: bool) -> list[Source]:
    """Read a source, as a list that is empty for a folder without the file."""
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 2000:
        raise _bad(path, f"{name}: an address is not a line of text")
    try:
        parts = urlsplit(value)
    except ValueError as problem:
        raise _bad(path, f"{name}: not an address: {value[:80]}") from problem
    if parts.scheme == "https" or (own and parts.scheme == "http"):
        if not parts.hostname or parts.username is not None:
            raise _bad(path, f"{name}: an address without a host, or with a user's name")
        if parts.scheme == "http" and not hashed:
            raise _bad(path, f"{name}: a plain http address needs a sha256, since anyone on the way could change it")
        return [value]
    if not own or ("://" in value and parts.scheme != "file"):
        raise _bad(path, f"{name}: an address that is neither https, http, file nor a path: {value[:80]}")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise _bad(path, f"{name}: a file:// address of another machine; mount it and give the path")
        value = url2pathname(parts.path)
    try:
        local = path.parent / Path(value).expanduser()
    except RuntimeError as problem:
        raise _bad(path, f"{name}: a path in the home folder of nobody: {value[:80]}") from problem
    with _reading(local):
        is_folder = local.is_dir()
    return _in_folder(local, name) if is_folder else [local]


def _other_hub(source: Source) -> Source:
    """Replace the hub's address by the one that the environment names."""
    hub = os.environ.get(HUB_VARIABLE, "").strip().rstrip("/")
    if not hub or isinstance(source, Path) or not source.startswith(HUB):
        return source
    if urlsplit(hub).scheme != "https" or not urlsplit(hub).hostname:
        raise CheckpointError(
            f"The environment variable {HUB_VARIABLE} does not name an https address.",
            got=f"'{hub[:80]}'",
            fix="Unset it.",
        )
    return f"{hub}/{source[len(HUB) :]}"
