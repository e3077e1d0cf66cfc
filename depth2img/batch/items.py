"""Items of a batch: pictures of a folder or rows of a manifest, with the maps and masks that belong to them."""

from __future__ import annotations

import dataclasses
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from ..diffusion.settings import LARGEST_SEED, SETTINGS, Settings
from ..errors import OptionError
from ..io.pairing import MAPS, MASKS, PICTURES, UNMATCHED, Kind, files_in, find_partners, listed, stem, without_partners
from ..options import OPTIONS, SOURCE_OF_PAYLOAD, DepthOptions
from .manifest import FILES, SUFFIXES, Row, read_manifest, refuse

ENDINGS: Final = {MAPS.field: "--depth-ending", MASKS.field: "--mask-ending"}
"""Flags that say how partners' names end."""

ILLEGAL: Final = '\\:*?"<>|'
"""Letters that Windows has not in names of files."""

DEVICES: Final = frozenset(
    ("CON", "PRN", "AUX", "NUL", *(f"{kind}{n}" for kind in ("COM", "LPT") for n in range(1, 10)))
)
"""Names that mean devices on Windows, with any suffix."""

LONGEST_PART: Final = 200
"""Of a result's name, in bytes between slashes: file systems allow 255, suffixes and temporary names included."""


@dataclass(frozen=True)
class Item:
    """One picture to make.

    Attributes:
        name: relative path of the result, without a suffix and with slashes; unique.
        picture: the file.
        settings: its own, its seed among them.
        options: its own; images are absolute paths.
        mask: the file, None repaints all of it.
        where: file and line, or the file's name, for messages.
    """

    name: str
    picture: Path
    settings: Settings
    options: DepthOptions
    mask: Path | None
    where: str

    def files(self) -> dict[str, Path]:
        """Field -> file of everything that goes into it."""
        images = {name: getattr(self.options, name) for name, option in OPTIONS.items() if option.kind == "image"}
        given = {"picture": self.picture, "mask": self.mask, **images}
        return {name: Path(path) for name, path in given.items() if path is not None}


@dataclass(frozen=True)
class Sources:
    """The sources of items.

    Attributes:
        given: a folder, or a manifest (.csv, .jsonl).
        recursive: folders in the folder, too.
        depth_folder, mask_folder: maps and masks, see `pairing.pair`.
        allowed: folders beside the manifest's own that it may name files in.
        unmatched: one of `pairing.UNMATCHED`.
        depth_ending, mask_ending: how their names end, or a pattern, see `pairing.Kind`; empty for the usual one.
        one_seed: every item has the seed of the settings, instead of one of its own.

    Raises:
        OptionError: `unmatched` is something else, or an ending is not one.
    """

    given: Path
    recursive: bool = False
    depth_folder: Path | None = None
    mask_folder: Path | None = None
    allowed: Sequence[Path] = ()
    unmatched: str = "stop"
    one_seed: bool = False
    depth_ending: str = ""
    mask_ending: str = ""

    def __post_init__(self) -> None:
        if self.unmatched not in UNMATCHED:
            raise OptionError(
                "unmatched", f"'unmatched' must be one of: {', '.join(UNMATCHED)}.", got=repr(self.unmatched)[:60]
            )
        _ = self.partners  # which checks the endings

    @property
    def partners(self) -> dict[Kind, Path | None]:
        """The folder of each kind of thing that belongs to pictures."""
        return {
            MAPS.ended(self.depth_ending): self.depth_folder,
            MASKS.ended(self.mask_ending): self.mask_folder,
        }

    def apart(self, folder: Path) -> set[Path]:
        """Return those folders of maps and masks that differ from the given one."""
        return {one.resolve() for one in self.partners.values() if one is not None} - {folder.resolve()}


@dataclass(frozen=True)
class Found:
    """The items, and what was left over.

    Attributes:
        items: in order of their names, or of the manifest.
        notes: a sentence for each kind of thing that does not match.
    """

    items: Sequence[Item]
    notes: Sequence[str]


def item_seed(seed: int, name: str) -> int:
    """Derive an item's seed: (seed + CRC-32 of its name in UTF-8) mod 2^32.

    It depends on no other item, so that adding and removing pictures changes nothing for the rest.
    """
    return (seed + zlib.crc32(name.encode())) % (LARGEST_SEED + 1)


def find_items(sources: Sources, settings: Settings, options: DepthOptions) -> Found:
    """Find the items of a folder or a manifest.

    Args:
        sources: where to look.
        settings: used unless a row of the manifest says otherwise; its seed is the base of `item_seed`.
        options: likewise; images are paths.

    Raises:
        OptionError: inputs are wrong; the message names everything that can be known before generating.
    """
    given = Path(os.path.abspath(sources.given))
    if given.is_dir():
        rows = _rows(given, sources)
        if not rows:
            raise OptionError(
                "input", f"There is no picture in {given}.", fix=f"Known are {', '.join(sorted(PICTURES))}."
            )
        root, allowed = given, None
    elif given.suffix.lower() in SUFFIXES:
        root = given.parent
        rows, allowed = read_manifest(given), [root, *sources.allowed]
    else:
        raise OptionError("input", f"{given} is neither a folder nor a manifest.", fix="Give a folder, .csv or .jsonl.")
    options = _absolute(options)
    items: list[Item] = []
    faults: list[str] = []
    for row in rows:
        try:
            items.append(_item(row, root, allowed, sources, settings, options))
        except OptionError as problem:
            faults.append(f"{row.where}: {problem}")
    refuse(f"{given.name} cannot be used.", faults)
    if sources.depth_folder is not None and not any(item.options.enabled for item in items):
        raise OptionError(
            "depth_map",
            "A folder of depth maps is given, but would have no effect.",
            got="enabled False",
            fix="Switch depth on, or leave the folder out.",
        )
    notes = _renamed(items, root)
    for kind in sources.partners:
        items = _paired(items, root, kind, sources, notes)
    if not items:
        raise OptionError("input", "No picture is left.", got="; ".join(notes), fix="Name the files alike.")
    return Found(items, notes)


def _renamed(items: Sequence[Item], root: Path) -> list[str]:
    """Name the results whose names had to differ from their pictures'."""
    changed = []
    for item in items:
        name = _stem(str(item.picture), root, item.picture)
        if item.name != name and item.name == cleaned(name):
            changed.append(f"{name} -> {item.name}")
    return [f"Names that some systems cannot write are changed in the results: {listed(changed)}."] if changed else []


def _rows(folder: Path, sources: Sources) -> list[Row]:
    """Make a row for each picture of a folder, leaving out maps and masks that lie among them."""
    names = files_in(folder, PICTURES, "input", below=sources.recursive, apart=sources.apart(folder))
    for kind, partners in sources.partners.items():
        if partners is not None and partners.resolve() == folder.resolve():
            names = without_partners(names, kind)
    return [Row(name, {"picture": name}) for name in names]


def _item(
    row: Row,
    root: Path,
    allowed: Sequence[Path] | None,
    sources: Sources,
    settings: Settings,
    options: DepthOptions,
) -> Item:
    values = dict(row.values)
    files = {name: _inside(root, values.pop(name), allowed) for name in FILES if name in values}
    given = values.pop("name", None)
    name = _name(given) if given else cleaned(_stem(row.values["picture"], root, files["picture"]))
    own = {key: value for key, value in values.items() if key in SETTINGS}
    if "seed" not in own and not sources.one_seed:
        own["seed"] = item_seed(settings.seed, name)
    picture, mask = files.pop("picture"), files.pop("mask", None)
    depth = {key: value for key, value in values.items() if key in OPTIONS}
    return Item(
        name=name,
        picture=picture,
        settings=dataclasses.replace(settings, **own),
        options=_options(options, {**depth, **files}),
        mask=mask,
        where=row.where,
    )


def _options(base: DepthOptions, own: Mapping[str, Any]) -> DepthOptions:
    """Merge the options of all items with one item's own; a file of its own decides where depth comes from."""
    if not own:
        return base
    given = {name: getattr(base, name) for name, option in OPTIONS.items() if getattr(base, name) != option.default}
    given.pop("source", None)
    if any(name in own for name in ("source", *SOURCE_OF_PAYLOAD)):
        for name in SOURCE_OF_PAYLOAD:
            given.pop(name, None)
    return DepthOptions.from_mapping({**given, **own})


def _absolute(options: DepthOptions) -> DepthOptions:
    """Make the paths in options absolute, for other processes."""
    images = [name for name, option in OPTIONS.items() if option.kind == "image"]
    files: dict[str, Any] = {
        name: Path(os.path.abspath(value)) for name in images if (value := getattr(options, name)) is not None
    }
    return dataclasses.replace(options, **files)


def _inside(root: Path, text: str, allowed: Sequence[Path] | None) -> Path:
    """Resolve a path; it must lie in an allowed folder, links followed. None allows everything."""
    path = Path(os.path.abspath(root / text))
    try:
        real = path.resolve()
    except (OSError, RuntimeError, ValueError) as problem:
        raise OptionError("manifest", f"'{text[:80]}' is not a path.", got=str(problem)[:80]) from problem
    if allowed is not None and not any(real.is_relative_to(folder.resolve()) for folder in allowed):
        raise OptionError(
            "manifest",
            f"'{text[:80]}' lies outside of the manifest's folder.",
            fix="If you trust the manifest, name its folder with --allow.",
        )
    return path


def _stem(text: str, root: Path, path: Path) -> str:
    """Derive a result's name from its picture: path below the root, or else file name, without the suffix."""
    relative = PurePosixPath(text.replace("\\", "/") if os.name == "nt" else text)
    if relative.is_absolute() or ".." in relative.parts:
        found = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
        relative = PurePosixPath(found.as_posix())
    return stem(relative.as_posix())


def cleaned(name: str) -> str:
    """Turn a picture's name into one that every system can write: what some cannot becomes "_".

    Args:
        name: relative, with slashes, without a suffix.
    """
    return "/".join(_cleaned_part(part) for part in name.split("/"))


def _cleaned_part(part: str) -> str:
    part = re.sub(f"[{re.escape(ILLEGAL)}\0-\x1f]", "_", part)
    part = part.encode()[:LONGEST_PART].decode(errors="ignore")
    part = re.sub(r"^\.|[. ]$", "_", part)
    return f"_{part}" if part.partition(".")[0].upper() in DEVICES else part or "_"


def _name(text: str) -> str:
    """Check that a result's name stays inside the output folder on every system.

    Raises:
        OptionError: it would not.
    """
    if cleaned(text) != text or len(text) > 4 * LONGEST_PART:
        raise OptionError(
            "name",
            f"'{text[:80]}' cannot be the name of a result.",
            fix='Use a relative path with slashes whose parts begin with no dot, hold none of \\ : * ? " < > | and are '
            "not the name of a Windows device.",
        )
    return text


def _paired(items: list[Item], root: Path, kind: Kind, sources: Sources, notes: list[str]) -> list[Item]:
    """Pair items with the files of a folder that are named after their pictures; `notes` gets what has no partner."""
    folder = sources.partners[kind]
    if folder is None:
        return items
    folder = Path(os.path.abspath(folder))
    stems = [None if _needs_no(item, kind) else _stem(str(item.picture), root, item.picture) for item in items]
    pairing = find_partners(
        [one for one in stems if one is not None],
        folder,
        kind,
        own=[item.picture for item in items],
        apart=sources.apart(folder),
    )
    if sources.unmatched == "stop":
        pairing.check(
            otherwise=f"Or say with {ENDINGS[kind.field]} how their names end, or choose --unmatched without or skip."
        )
    elif pairing.missing:
        done = "made without one" if sources.unmatched == "without" else "left out"
        notes.append(f"{pairing.lacking()} They are {done}.")
    if pairing.unused:
        notes.append(pairing.left_over())
    found: list[Item] = []
    for item, name in zip(items, stems, strict=True):
        partner = None if name is None else pairing.partners.get(name)
        if partner is not None:
            found.append(_with(item, kind, folder / partner))
        elif name is None or sources.unmatched == "without":
            found.append(item)
    return found


def _needs_no(item: Item, kind: Kind) -> bool:
    """Return whether an item has its own map or mask already, so that it takes none from a folder."""
    return item.mask is not None if kind.field == MASKS.field else not item.options.lacks_own_map


def _with(item: Item, kind: Kind, path: Path) -> Item:
    if kind.field == MASKS.field:
        return dataclasses.replace(item, mask=path)
    return dataclasses.replace(item, options=item.options.with_own_map(path))
