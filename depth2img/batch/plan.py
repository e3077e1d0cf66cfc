"""The plan of a batch: items to make, in groups that go through the networks together, and items already made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .. import __version__
from ..depth.reading import is_numbers
from ..diffusion.job import Job
from ..diffusion.library import Library
from ..diffusion.loader import TINY
from ..diffusion.results import result_paths
from ..embedded import WEIGHTS
from ..errors import Depth2ImgError
from ..io.atomic import refusing, write_file
from ..io.images import open_image, read_file
from ..options import OPTIONS
from .items import Item
from .manifest import refuse

RECORDS: Final = ".depth2img"
"""Folder in the folder of results: one JSON file per finished item, written last."""

FORMAT: Final = 2
"""Version of the records; after a change, all items are made again."""

WHOLE_BYTES: Final = 256 * 1024 * 1024
SAMPLES: Final = 64
SAMPLE_BYTES: Final = 65_536
"""Of a model, files up to `WHOLE_BYTES` are read, of larger ones so many places with so many bytes each."""

Record = dict[str, Any]
"""One line of `results.jsonl`: plain data, see docs/batch.md."""


@dataclass(frozen=True)
class Work:
    """An item that is to be made.

    Attributes:
        item: what.
        key: digest of everything that its result follows from: options, settings, the content of its files, the model.
    """

    item: Item
    key: str


@dataclass(frozen=True)
class Plan:
    """The work of a run.

    Attributes:
        items: all of them.
        groups: what is to be made; what may go through the networks together stands together.
        done: records of what is finished already, by name.
        failed: records of what cannot even be read, by name.
        anchor: the first item whose range is shared, whose range the others take. None where no item shares.
    """

    items: Sequence[Item]
    groups: Sequence[Sequence[Work]]
    done: Mapping[str, Record]
    failed: Mapping[str, Record]
    anchor: Item | None

    @property
    def pending(self) -> int:
        """The number of items to make."""
        return sum(map(len, self.groups))


def make_plan(
    items: Sequence[Item],
    out: Path,
    *,
    suffix: str,
    batch_size: int,
    model: str,
    dtype: str,
    library: Library | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> Plan:
    """Read and digest what items are made from, and leave out what is finished.

    Args:
        items: from `find_items`.
        out: folder of results; nothing is written.
        suffix: of the results.
        batch_size: items that go through the networks together at most.
        model, dtype: as in `loader.load`.
        library: where LoRAs and learned words are.
        tell: told the items looked at and the items in all.

    Raises:
        OptionError: two results would be one file, or a result would overwrite what it is made from.
    """
    _check_targets(items, out, suffix)
    library = Library() if library is None else library
    fixed = {"format": FORMAT, "version": __version__, "model": fingerprint(model), "dtype": dtype, "suffix": suffix}
    digests: dict[Path, tuple[str, Hashable]] = {}
    done: dict[str, Record] = {}
    failed: dict[str, Record] = {}
    together: dict[Hashable, list[Work]] = {}
    anchor: tuple[Item, str] | None = None
    for index, item in enumerate(items):
        try:
            seen = {field: _read(path, digests, shared=field != "picture") for field, path in item.files().items()}
            used = library.fingerprint(item.settings.prompt, item.settings.negative_prompt)
        except Depth2ImgError as problem:
            failed[item.name] = describe(item, out, suffix, status="failed", error=str(problem))
            continue
        parts = {field: digest for field, (digest, _) in seen.items()} | ({"library": used} if used else {})
        if item.options.range == "shared" and item.options.enabled:
            anchor = anchor or (item, parts["picture"])
            parts["anchor"] = anchor[1]
        work = Work(item, _key(item, fixed, parts))
        found = finished(work, out, suffix)
        if found is not None:
            done[item.name] = found
        else:
            size = seen["picture"][1] if not (item.settings.width and item.settings.height) else None
            kind = Job(item.picture, item.settings, item.options, item.mask).kind
            together.setdefault((kind, size), []).append(work)
        if tell is not None:
            tell(index + 1, len(items))
    groups = [
        works[begin : begin + batch_size] for works in together.values() for begin in range(0, len(works), batch_size)
    ]
    return Plan(items, groups, done, failed, None if anchor is None else anchor[0])


def _check_targets(items: Sequence[Item], out: Path, suffix: str) -> None:
    out = out.resolve()
    sources = {path.resolve() for item in items for path in item.files().values()}
    owners: dict[Path, Item] = {}
    faults: list[str] = []
    for item in items:
        for path in result_paths(target(out, item.name, suffix), item.options):
            if not path.parent.resolve().is_relative_to(out):
                faults.append(f"{item.where}: the result {path} would lie outside of {out}")
            elif path in owners:
                faults.append(f"{item.where}: its result would be {path.name}, as that of {owners[path].where}")
            elif path in sources:
                faults.append(f"{item.where}: its result would overwrite {path}")
            owners.setdefault(path, item)
    refuse("Results would get in each other's way.", faults)


def target(out: Path, name: str, suffix: str) -> Path:
    """Return the path of a result's picture."""
    return out / f"{name}{suffix}"


def record_path(out: Path, name: str) -> Path:
    """Return the path of a finished item's record."""
    return out / RECORDS / f"{name}.json"


def finished(work: Work, out: Path, suffix: str) -> Record | None:
    """Return the record of an item that is finished: made from the same inputs, with all its files present."""
    try:
        record: Any = json.loads(record_path(out, work.item.name).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("key") != work.key:
        return None
    files = result_paths(target(out, work.item.name, suffix), work.item.options)
    return record if all(path.is_file() and path.stat().st_size for path in files) else None


def describe(item: Item, out: Path, suffix: str, *, status: str, **more: Any) -> Record:
    """Make the record of an item."""
    options = {
        name: str(getattr(item.options, name)) if option.kind == "image" else getattr(item.options, name)
        for name, option in OPTIONS.items()
        if getattr(item.options, name) != option.default
    }
    paths = result_paths(target(out, item.name, suffix), item.options) if status == "done" else []
    return {
        "name": item.name,
        "status": status,
        "picture": str(item.picture),
        "mask": None if item.mask is None else str(item.mask),
        "files": [path.relative_to(out).as_posix() for path in paths],
        "settings": dataclasses.asdict(item.settings),
        "options": options,
        **more,
    }


def write_record(record: Record, out: Path) -> None:
    """Write the record of a finished item; from then on it is not made again.

    Raises:
        Depth2ImgError: the folder cannot be written.
    """
    path = record_path(out, record["name"])
    with refusing(f"The folder {path.parent} cannot be created."):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, json.dumps(record).encode(), what="The record")


def _read(path: Path, known: dict[Path, tuple[str, Hashable]], *, shared: bool) -> tuple[str, Hashable]:
    """Digest of a file's content and the size of the picture in it; files that many items share are read once."""
    if path in known:
        return known[path]
    content = read_file(path)
    size = None if is_numbers(content) else open_image(content).size
    found = hashlib.blake2b(content, digest_size=20).hexdigest(), size
    if shared:
        known[path] = found
    return found


def _key(item: Item, fixed: Mapping[str, Any], digests: Mapping[str, str]) -> str:
    options = {name: getattr(item.options, name) for name, option in OPTIONS.items() if option.kind != "image"}
    parts = [fixed, digests, dataclasses.asdict(item.settings), options]
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=20).hexdigest()


def fingerprint(model: str) -> str:
    """Digest what identifies a model: names, sizes and content of its files; for a model on the hub, its name.

    Of checkpoints of gigabytes, samples are read: two trainings of one network differ nearly everywhere.
    """
    path = WEIGHTS if model == TINY else Path(model)
    digest = hashlib.blake2b(digest_size=20)
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    if not path.exists():
        return model
    with refusing(f"The model {model} cannot be read."):
        for file in files:
            size = file.stat().st_size
            digest.update(f"{file.relative_to(path.parent).as_posix() if path.is_dir() else ''}:{size};".encode())
            if size <= WHOLE_BYTES:
                digest.update(file.read_bytes())
                continue
            with file.open("rb") as content:
                for place in range(SAMPLES):
                    content.seek((size - SAMPLE_BYTES) * place // (SAMPLES - 1))
                    digest.update(content.read(SAMPLE_BYTES))
    return digest.hexdigest()
