r"""Put a checkpoint and its YAML where the WebUI looks: make a plan that can be shown, then carry it out.

    plan = plan_setup(Path("512-depth-ema.safetensors"), webui_folders(webui=Path("stable-diffusion-webui")))
    print(*plan.lines(), sep="\n")
    carry_out(plan)

Nothing that is there is ever overwritten: a wrong YAML is kept under another name, and a file of the same name stops
the plan.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ..errors import CheckpointError
from ..io.atomic import WRITING, free_space, publishing, refusing, remove_stale, replacing
from ..text import size
from .inspection.inspect import config_of, inspect
from .inspection.report import Report
from .inspection.sidecar import judge
from .layout.config import read_text
from .layout.ldm_yaml import to_yaml
from .storage.opening import CheckpointFile, open_checkpoint
from .storage.tensors import Progress, Tensors

How = Literal["auto", "link", "copy", "move"]
Way = Literal["stays", "link", "copy", "move"]
YamlWay = Literal["keep", "write", "replace"]

SUBFOLDER: Final = "Stable-diffusion"
"""The WebUI's folder of checkpoints below its folder of models."""

CURABLE: Final = ("yaml-wrong", "yaml-unreadable", "yaml-hostile", "yaml-none", "midas-missing")
"""Faults that do not keep a checkpoint from being set up; all but the last are cured by it."""

WARNED: Final = ("midas-missing", "suffix")
"""Faults that a plan mentions."""

CHUNK: Final = 4 * 1024 * 1024
MAX_BACKUPS: Final = 1000


@dataclass(frozen=True)
class SetupPlan:
    """The steps of setting up one checkpoint.

    Attributes:
        source: the checkpoint.
        target: its path then.
        way: its way there: `link` is a hard link: the same bytes under two names, which takes no room.
        yaml: the fate of the YAML beside the target.
        text: the YAML that is written; empty where one is kept.
        why: the fault of a YAML that is replaced.
        backup: the path where that one is kept.
        bytes: size of the checkpoint.
        warnings: sentences that the user should read first.
    """

    source: Path
    target: Path
    way: Way
    yaml: YamlWay
    text: str
    why: str
    backup: Path | None
    bytes: int
    warnings: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        """True if there is nothing to do."""
        return self.way == "stays" and self.yaml == "keep"

    def lines(self) -> list[str]:
        """Say what will be done, one sentence a line."""
        name, folder, yaml = self.target.name, self.target.parent, self.target.with_suffix(".yaml").name
        ways = {
            "stays": f"{name} stays where it is, in {folder}.",
            "link": f"{name} will be linked into {folder}: the same file under two names, without taking more room; or "
            f"copied ({size(self.bytes)}), if the disk cannot do that.",
            "copy": f"{name} will be copied into {folder} ({size(self.bytes)}).",
            "move": f"{name} will be moved into {folder}.",
        }
        yamls = {
            "keep": f"{yaml} beside it is right and stays.",
            "write": f"{yaml} will be written beside it.",
            "replace": f"{yaml} will be replaced, since {self.why}; the old one is kept as "
            f"{self.backup.name if self.backup else ''}.",
        }
        return [*self.warnings, ways[self.way], yamls[self.yaml]]


# --- where ------------------------------------------------------------------------------------------------------------


def webui_folders(
    webui: Path | None = None,
    *,
    data_dir: Path | None = None,
    models_dir: Path | None = None,
    ckpt_dir: Path | None = None,
) -> tuple[Path, ...]:
    """Return the folders in which a WebUI looks for checkpoints; new ones belong into the first.

    Args:
        webui: the WebUI's own folder; found by itself where this package lies in its extensions.
        data_dir, models_dir, ckpt_dir: the flags that the WebUI is started with, if any: `--data-dir` and so on.

    Raises:
        CheckpointError: there is no such WebUI, or a folder is missing.
    """
    webui = webui or _around()
    if webui is None and not (data_dir or models_dir or ckpt_dir):
        raise CheckpointError(
            "It is not known where the WebUI is.",
            fix="Name its folder with --webui, or its --ckpt-dir or --models-dir.",
        )
    if webui is not None and not _is(webui / "webui.py", Path.is_file):
        raise CheckpointError(
            f"{webui} is not a WebUI.", got="no webui.py in it", fix="Name the folder that the WebUI was cloned into."
        )
    models = models_dir or (data_dir or webui or Path()) / "models"
    folders = [ckpt_dir] if ckpt_dir is not None else []
    if models_dir or data_dir or webui:
        folders.append(models / SUBFOLDER)
        if not _is(models, Path.is_dir):
            raise CheckpointError(f"There is no folder {models}.", fix="Start the WebUI once, or check the path.")
    if ckpt_dir is not None and not _is(ckpt_dir, Path.is_dir):
        raise CheckpointError(f"There is no folder {ckpt_dir}.", fix="Check the path.")
    return tuple(Path(os.path.abspath(folder)) for folder in folders)


def _is(path: Path, kind: Callable[[Path], bool]) -> bool:
    with refusing(f"{path} cannot be reached.", CheckpointError):
        return kind(path)


def _around() -> Path | None:
    """Find the WebUI in whose extensions this package lies."""
    extensions = Path(__file__).parents[3]
    return extensions.parent if extensions.name == "extensions" and (extensions.parent / "webui.py").is_file() else None


def within(path: Path, folders: Sequence[Path]) -> bool:
    """Tell whether a path lies below one of the folders by its name; links in them lead where their owner wanted."""
    return any(Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder)) for folder in folders)


# --- what -------------------------------------------------------------------------------------------------------------


def plan_setup(source: Path | CheckpointFile, folders: Sequence[Path], *, how: How = "auto") -> SetupPlan:
    """Plan the steps of setting up a checkpoint; nothing is done yet.

    Args:
        source: a depth checkpoint, opened or not. One that lies in one of the folders stays there.
        folders: see `webui_folders`.
        how: its way into the first folder; `auto` links on the same disk and copies from another.

    Raises:
        CheckpointError: it is not a depth checkpoint, it is broken, or another file has its place.
    """
    file = open_checkpoint(source)
    path, report = Path(os.path.abspath(file.path)), inspect(file)
    broken = [fault for fault in report.faults if fault.serious and fault.code not in CURABLE]
    if broken:
        raise CheckpointError(f"{path.name} is not set up: {broken[0].what}", fix=broken[0].fix)
    target = path if within(path, folders) else folders[0] / path.name
    way = _way(path, target, how)
    yaml, text, why, backup = _yaml(report, target, file)
    warnings = tuple(f"{fault.what} {fault.fix}" for fault in report.faults if fault.code in WARNED)
    return SetupPlan(path, target, way, yaml, text, why, backup, report.bytes, warnings)


def _way(path: Path, target: Path, how: How) -> Way:
    with refusing(f"The folder {target.parent} cannot be used.", CheckpointError):
        if path == target or (target.exists() and path.samefile(target)):
            return "stays"
        if target.exists():
            if how != "move" and _equal(path, target):
                return "stays"
            raise CheckpointError(
                f"There is another {target.name} in {target.parent}.",
                got=f"{size(path.stat().st_size)} and {size(target.stat().st_size)}",
                fix="Rename one of them; nothing is overwritten.",
            )
        if how == "move" and path.is_symlink():
            raise CheckpointError(f"{path.name} is a link.", fix="Copy or link it, or move the file that it leads to.")
        if how != "auto":
            return how
        folder = target.parent if target.parent.is_dir() else target.parent.parent
        return "link" if path.stat().st_dev == folder.stat().st_dev else "copy"


def _equal(one: Path, two: Path) -> bool:
    """Tell whether two files have the same bytes."""
    if one.stat().st_size != two.stat().st_size:
        return False
    with one.open("rb") as first, two.open("rb") as second:
        while chunk := first.read(CHUNK):
            if chunk != second.read(CHUNK):
                return False
    return True


def _yaml(report: Report, target: Path, tensors: Tensors) -> tuple[YamlWay, str, str, Path | None]:
    """Choose the fate of the YAML beside the target; see `SetupPlan.yaml`, `text`, `why` and `backup`."""
    there, own = judge(target, tensors), report.sidecar
    way = YAML_WAYS[there.is_bad, there.state == "none"]
    if way == "keep":
        return way, "", there.detail, None
    # A correct YAML of the owner's contains more than shapes show, such as v-prediction.
    brought = own is not None and own.state == "right" and Path(os.path.abspath(own.path)) != there.path
    text = read_text(own.path) if own and brought else to_yaml(config_of(tensors))
    return way, text, there.detail, _free_name(there.path) if way == "replace" else None


YAML_WAYS: Final[dict[tuple[bool, bool], YamlWay]] = {
    (True, False): "replace",
    (False, True): "write",
    (False, False): "keep",
}
"""(The YAML there is bad, there is none) -> its fate."""


def _free_name(path: Path) -> Path:
    for number in range(MAX_BACKUPS):
        name = path.with_name(f"{path.name}.bak{number or ''}")
        if not os.path.lexists(name):
            return name
    raise CheckpointError(
        f"The YAML beside {path.stem} cannot be kept under another name.",
        got=f"{MAX_BACKUPS} copies of it already",
        fix=f"Remove {path.name}.bak and its like.",
    )


# --- doing it ---------------------------------------------------------------------------------------------------------


def carry_out(plan: SetupPlan, folders: Sequence[Path], *, progress: Progress | None = None) -> Report:
    """Carry out a plan, and report on the result.

    Args:
        plan: see `plan_setup`.
        folders: those it was made for.
        progress: called with the bytes copied and the bytes in all.

    Returns:
        The report on `plan.target`.

    Raises:
        CheckpointError: something has changed since the plan was made, or a file cannot be written; what was there
            before is there.
    """
    how: How = "auto" if plan.way == "stays" else plan.way
    if plan_setup(plan.source, folders, how=how) != plan:
        raise CheckpointError(
            "Something has changed since this was planned; nothing was done.", fix="Look at the new plan."
        )
    with refusing(f"The folder {plan.target.parent} cannot be created.", CheckpointError, fix=WRITING):
        plan.target.parent.mkdir(exist_ok=True)
    yaml = plan.target.with_suffix(".yaml")
    for path in (plan.target, yaml, yaml.with_name(f"{yaml.name}.bak")):
        remove_stale(path)
    with contextlib.ExitStack() as undone:
        # The YAML first: when the checkpoint appears in the list, it can be loaded.
        _write_yaml(plan)
        if plan.yaml == "write":
            undone.callback(plan.target.with_suffix(".yaml").unlink, missing_ok=True)
        if plan.way != "stays":
            _bring(plan, progress)
        undone.pop_all()
    return inspect(plan.target)


def _write_yaml(plan: SetupPlan) -> None:
    path = plan.target.with_suffix(".yaml")
    if plan.yaml == "keep":
        return
    if plan.backup is not None:
        with publishing(plan.backup, CheckpointError, what="The copy of the YAML") as temporary:
            shutil.copyfile(path, temporary)
        with replacing(path, CheckpointError, what="The YAML") as temporary:
            temporary.write_text(plan.text, encoding="utf-8")
        return
    with publishing(path, CheckpointError, what="The YAML") as temporary:
        temporary.write_text(plan.text, encoding="utf-8")


def _bring(plan: SetupPlan, progress: Progress | None) -> None:
    source = Path(os.path.realpath(plan.source))  # a hard link of a link would be one that dangles some day
    if plan.way in ("link", "move") and _linked(source, plan.target):
        if plan.way == "move":
            _remove(plan)
        return
    room = free_space(plan.target.parent, CheckpointError)
    if room < plan.bytes:
        raise CheckpointError(
            f"There is not enough room for {plan.target.name}.",
            got=f"{size(room)} free, {size(plan.bytes)} needed",
            fix="Free some space, or link it instead.",
        )
    with publishing(plan.target, CheckpointError, what="The checkpoint") as temporary:
        _copy(source, temporary, plan.bytes, progress)
    if plan.way == "move":
        _remove(plan)


def _linked(source: Path, target: Path) -> bool:
    """Make a hard link, and tell whether that was possible: not between disks, and not on every file system."""
    try:
        os.link(source, target)
    except FileExistsError as problem:
        raise CheckpointError(f"There is another {target.name} now.", fix="Rename one of them.") from problem
    except OSError:
        return False
    return True


def _copy(source: Path, target: Path, total: int, progress: Progress | None) -> None:
    done = 0
    with source.open("rb") as reading, target.open("wb") as writing:
        while chunk := reading.read(CHUNK):
            writing.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, total)
    if done != total:
        raise CheckpointError(f"{source.name} changed while it was copied.", got=f"{done:,} bytes", fix="Try again.")


def _holds(path: Path, text: str) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(len(text) + 1) == text


def _remove(plan: SetupPlan) -> None:
    """Remove the old file, and its YAML if that was brought along."""
    sidecar = plan.source.with_suffix(".yaml")
    with refusing(f"{plan.target.name} is set up, but the old file cannot be removed.", CheckpointError):
        plan.source.unlink()
        if plan.text and sidecar.is_file() and _holds(sidecar, plan.text):
            sidecar.unlink()
