"""Which depth map or mask of a folder belongs to which picture: by the name.

The Batch tab of the WebUI and `depth2img batch` both ask here, so that a folder means the same to both.
"""

from __future__ import annotations

import dataclasses
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from ..errors import OptionError
from .atomic import refusing

PICTURES: Final = frozenset(
    (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".heic", ".heif", ".avif")
)
"""Suffixes of the files in a folder that are taken for pictures, in small letters; others are left alone."""

PICTURE_KINDS: Final = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""Suffix -> Pillow's name of the format, of the pictures that are written; see `saving.save_picture`."""

SHOWN: Final = 10
"""Most names that a sentence lists."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of files that belong to pictures.

    Attributes:
        field: what an error names.
        what: one of them, in a sentence.
        ending: what may stand behind the picture's name; or a pattern of the whole name, in which "*" stands for the
            picture's name and "#" for the number in it, the last one.
        suffixes: of the files, in small letters.
    """

    field: str
    what: str
    ending: str
    suffixes: frozenset[str]

    def ended(self, ending: str) -> Kind:
        """Return the kind with another ending or pattern; an empty one changes nothing.

        Raises:
            OptionError: no file can be named so, or every one is.
        """
        if not ending:
            return self
        if ending in ("*", "#") or "/" in ending or "\\" in ending or len(re.findall(r"[*#]", ending)) > 1:
            raise OptionError(
                f"{self.field}_ending",
                f"This is not an ending of the names of {self.what}s.",
                got=repr(ending)[:60],
                fix="Give what stands behind the picture's name (_depth), or a pattern with one * for the picture's "
                "name (depth_*) or one # for its number (Depth#), without a suffix.",
            )
        return dataclasses.replace(self, ending=ending)

    def name_for(self, name: str) -> str:
        """Name the file that belongs to a picture, without suffix; empty if the pattern needs a number that is missing.

        Args:
            name: of the picture, without suffix, as in `pair`.
        """
        folder, slash, last = name.rpartition("/")
        if "#" in self.ending:
            numbers = re.findall(r"[0-9]+", last)
            return folder + slash + self.ending.replace("#", numbers[-1]) if numbers else ""
        return folder + slash + (self.ending.replace("*", last) if "*" in self.ending else last + self.ending)


MAPS: Final = Kind("depth_map", "depth map", "-depth", PICTURES | {".npy", ".npz", ".exr", ".pfm"})
"""The ending is what `depth2img estimate` and "Save map beside picture" write."""

MASKS: Final = Kind("mask", "mask", "-mask", PICTURES)

UNMATCHED: Final = ("stop", "without", "skip")
"""Choices of `depth2img batch` for pictures without a partner: run nothing, make them without, or leave them out."""


@dataclasses.dataclass(frozen=True)
class Pairing:
    """Pictures and what belongs to them.

    Attributes:
        kind: what that is.
        partners: name of the picture -> file.
        missing: names of the pictures without one.
        unused: files without a picture.
    """

    kind: Kind
    partners: Mapping[str, str]
    missing: Sequence[str]
    unused: Sequence[str]

    def lacking(self) -> str:
        """Describe the pictures without a partner in a sentence; empty if all have one."""
        if not self.missing:
            return ""
        count = len(self.missing) + len(self.partners)
        return (
            f"{len(self.missing)} of {count} pictures have no {self.kind.what} in the folder: {listed(self.missing)}."
        )

    def left_over(self) -> str:
        """Describe the files without a picture in a sentence; empty if there are none."""
        return f"{self.kind.what.capitalize()}s without a picture: {listed(self.unused)}." if self.unused else ""

    def check(self, *, otherwise: str = "") -> None:
        """Refuse pictures without a partner.

        Args:
            otherwise: a sentence about what else can be done than to name files alike.

        Raises:
            OptionError: there are; the message names the pictures, and the files that are left over.
        """
        if self.missing:
            photo = "photo001" if "#" in self.kind.ending else "photo"
            fix = (
                f"Name each {self.kind.what} like its picture: {photo}.png or {self.kind.name_for(photo)}.png for "
                f"{photo}.jpg."
            )
            said = " ".join(filter(None, (self.lacking(), self.left_over())))
            raise OptionError(self.kind.field, said, fix=f"{fix} {otherwise}".rstrip())


def pair(pictures: Iterable[str], files: Iterable[str], kind: Kind, own: Collection[str] = ()) -> Pairing:
    """Pairs pictures with files.

    A file is named like its picture, whatever its suffix, or like it with the ending of its kind, which goes before the
    plain name: so results, or the pictures themselves, may lie beside it. Capitals and small letters are different;
    composed and decomposed letters (as macOS packs them into archives) are not. Pictures of one name have one partner;
    no file is the partner of two names, unless a pattern leaves out what they differ in.

    Args:
        pictures: names without suffix (`stem`).
        files: names with suffix, as `files_in` lists them. Both are relative to their folders.
        kind: what the files are.
        own: the files that are the pictures themselves: none is a partner by its plain name.

    Raises:
        OptionError: several files belong to one picture; the message names them.
    """
    by_stem: dict[str, list[str]] = {}
    for file in sorted(files):
        by_stem.setdefault(composed(stem(file)), []).append(file)
    names = [*dict.fromkeys(pictures)]
    wanted = {name: composed(kind.name_for(name)) for name in names}
    found = {name: by_stem[one] for name, one in wanted.items() if one in by_stem}
    with_ending = {wanted[name] for name in found}
    for name in names:
        plain = [file for file in by_stem.get(composed(name), ()) if file not in own]
        if plain and composed(name) not in with_ending:
            found.setdefault(name, plain)
    several = [f"{name} ({', '.join(some)})" for name, some in found.items() if len(some) > 1]
    if several:
        raise OptionError(
            kind.field,
            f"Several {kind.what}s belong to one picture.",
            got=listed(several),
            fix=f"Leave one for each picture, or name it {kind.name_for('NAME') or kind.ending}.",
        )
    known = {*map(composed, names), *with_ending}
    return Pairing(
        kind,
        {name: some[0] for name, some in found.items()},
        [name for name in names if name not in found],
        [file for one, some in by_stem.items() if one not in known for file in some],
    )


def find_partners(
    pictures: Sequence[str], folder: Path, kind: Kind, *, own: Collection[Path], apart: Collection[Path] = ()
) -> Pairing:
    """Pairs pictures with the files of a folder, and of folders in it if pictures lie in folders.

    Args:
        pictures: names without suffix, as in `pair`.
        folder: where the files are; only names are read.
        kind: what they are.
        own: the pictures, as in `pair`.
        apart: as in `files_in`.

    Raises:
        OptionError: there is no such folder, or `pair` refuses.
        Depth2ImgError: the folder cannot be read.
    """
    files = files_in(folder, kind.suffixes, kind.field, below=any("/" in name for name in pictures), apart=apart)
    themselves = {path.resolve() for path in own}
    return pair(pictures, files, kind, {name for name in files if (folder / name).resolve() in themselves})


def files_in(
    folder: Path, suffixes: Collection[str], field: str, *, below: bool = False, apart: Collection[Path] = ()
) -> list[str]:
    """Files of a folder, relative to it and with slashes, in order of their names; hidden ones are left out.

    Args:
        folder: any.
        suffixes: which files, in small letters; the files' own may be in capitals.
        field: what an error names.
        below: in folders of the folder, too.
        apart: folders that are left out, resolved.

    Raises:
        OptionError: there is no such folder.
        Depth2ImgError: it cannot be read.
    """
    if not folder.is_dir():
        raise OptionError(field, "There is no such folder.", got=str(folder)[:200], fix="Check its name.")

    def stop(problem: OSError) -> None:
        raise problem

    found: list[str] = []
    with refusing(f"The folder {str(folder)[:200]} cannot be read."):
        for name, folders, files in os.walk(folder, onerror=stop):
            here = Path(name)
            folders[:] = sorted(
                one for one in folders if below and one[0] != "." and (here / one).resolve() not in apart
            )
            wanted = (one for one in sorted(files) if one[0] != "." and Path(one).suffix.lower() in suffixes)
            found += ((here / one).relative_to(folder).as_posix() for one in wanted)
    return found


def without_partners(pictures: Sequence[str], kind: Kind) -> list[str]:
    """Of the files of a folder that holds pictures and their partners, the pictures.

    Args:
        pictures: names with suffix.
        kind: of the partners. What has its ending behind the name of another picture is one.
    """
    partners = {composed(kind.name_for(stem(name))) for name in pictures}
    return [name for name in pictures if composed(stem(name)) not in partners]


def stem(name: str) -> str:
    """Return a relative name with slashes, without its suffix."""
    return PurePosixPath(name).with_suffix("").as_posix()


def composed(name: str) -> str:
    """Compose the accents of a name (NFC), for comparisons."""
    return unicodedata.normalize("NFC", name)


def listed(names: Sequence[str]) -> str:
    """Names as part of a sentence, not more than `SHOWN`."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
