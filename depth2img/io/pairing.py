"""Which depth map or mask of a folder belongs to which picture: by the name.

The Batch tab of the WebUI and `depth2img batch` both ask here, so that a folder means the same to both.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from ..errors import OptionError
from .atomic import refusing

PICTURES: Final = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"))
"""Suffixes of the files in a folder that are taken for pictures, in small letters; others are left alone."""

SHOWN: Final = 10
"""How many names a sentence lists."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """What belongs to pictures.

    Attributes:
        field: what an error names.
        what: one of them, in a sentence.
        ending: what may stand behind the picture's name.
        suffixes: of the files, in small letters.
    """

    field: str
    what: str
    ending: str
    suffixes: frozenset[str]


MAPS: Final = Kind("depth_map", "depth map", "-depth", PICTURES | {".npy", ".exr"})
"""The ending is what `depth2img estimate` and "Save map beside picture" write."""

MASKS: Final = Kind("mask", "mask", "-mask", PICTURES)

UNMATCHED: Final = ("stop", "without", "skip")
"""What `depth2img batch` does with pictures without a partner: it runs nothing; makes them without; leaves them out."""


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
        """A sentence about the pictures without a partner; empty if all have one."""
        if not self.missing:
            return ""
        count = len(self.missing) + len(self.partners)
        return (
            f"{len(self.missing)} of {count} pictures have no {self.kind.what} in the folder: {listed(self.missing)}."
        )

    def left_over(self) -> str:
        """A sentence about the files without a picture; empty if there are none."""
        return f"{self.kind.what.capitalize()}s without a picture: {listed(self.unused)}." if self.unused else ""

    def check(self, *, otherwise: str = "") -> None:
        """Refuse pictures without a partner.

        Args:
            otherwise: a sentence about what else can be done than to name files alike.

        Raises:
            OptionError: there are; the message names the pictures, and the files that are left over.
        """
        if self.missing:
            fix = (
                f"Name each {self.kind.what} like its picture: photo.png or photo{self.kind.ending}.png for photo.jpg."
            )
            said = " ".join(filter(None, (self.lacking(), self.left_over())))
            raise OptionError(self.kind.field, said, fix=f"{fix} {otherwise}".rstrip())


def pair(pictures: Iterable[str], files: Iterable[str], kind: Kind, own: Collection[str] = ()) -> Pairing:
    """Pairs pictures with files.

    A file is named like its picture, whatever its suffix, or like it with the ending of its kind, which goes before the
    plain name: so results, or the pictures themselves, may lie beside it. Capitals and small letters are different.
    Pictures of one name have one partner; no file is the partner of two names.

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
        by_stem.setdefault(stem(file), []).append(file)
    names = [*dict.fromkeys(pictures)]
    found = {name: by_stem[name + kind.ending] for name in names if name + kind.ending in by_stem}
    with_ending = {name + kind.ending for name in found}
    for name in names:
        plain = [file for file in by_stem.get(name, ()) if file not in own]
        if plain and name not in with_ending:
            found.setdefault(name, plain)
    several = [f"{name} ({', '.join(some)})" for name, some in found.items() if len(some) > 1]
    if several:
        raise OptionError(
            kind.field,
            f"Several {kind.what}s belong to one picture.",
            got=listed(several),
            fix=f"Leave one for each picture, or end its name with {kind.ending}.",
        )
    known = {*names, *with_ending}
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
    partners = {stem(name) + kind.ending for name in pictures}
    return [name for name in pictures if stem(name) not in partners]


def stem(name: str) -> str:
    """A relative name with slashes, without its suffix."""
    return PurePosixPath(name).with_suffix("").as_posix()


def listed(names: Sequence[str]) -> str:
    """Names as part of a sentence, not more than `SHOWN`."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
