"""Count what converting and merging leave behind when something goes wrong.

    python benchmarks/faults_convert.py [--tries 100]

On the bundled model as one file, and a text-to-image checkpoint made of it: damaged sources, a disk that fills up (a
tmpfs where this may be mounted, else a limit on the size of files), a folder that may not be written, and SIGKILL after
a random part of the time that a whole run takes. Each try begins with an old file in the target's place; afterwards it
must be the old file or the whole new one, and after one more run nothing else may lie beside it. Prints a table and
writes benchmarks/results/faults_convert.json.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from depth2img.checkpoints import convert, merge, open_model
from depth2img.checkpoints.layout.keys import INPUT
from depth2img.checkpoints.storage.hashes import sha256_of
from depth2img.embedded import install
from depth2img.errors import CheckpointError

NOBODY = 65534
REFUSED = 3
"""Exit code of a child whose task ended in `CheckpointError`."""

Task = Callable[[Path, Path, Any], object]
"""Sources' folder, target, progress."""

TASKS: dict[str, tuple[str, Task]] = {
    "convert to a file": (
        "new.safetensors",
        lambda folder, new, tell: convert(folder / "depth.safetensors", new, tell),
    ),
    "convert to a folder": ("new", lambda folder, new, tell: convert(folder / "depth.safetensors", new, tell)),
    "merge": (
        "new.safetensors",
        lambda folder, new, tell: merge(
            folder / "depth.safetensors", folder / "plain.safetensors", new, multiplier=0.5, progress=tell
        ),
    ),
}


@dataclass
class Bench:
    """The sources, the hashes of whole results, and the counts."""

    folder: Path
    tries: int
    seed: int = 0
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        install(self.folder / "depth.safetensors")
        state = load_file(self.folder / "depth.safetensors")
        plain = {name: value + 0.25 for name, value in state.items() if not name.startswith("depth_model.")}
        save_file({**plain, INPUT: plain[INPUT][:, :4].contiguous()}, self.folder / "plain.safetensors")
        self.whole: dict[str, dict[str, str]] = {}
        self.seconds: dict[str, float] = {}
        for task, (name, do) in TASKS.items():
            place = self.folder / f"whole-{task}"
            place.mkdir()
            start = time.perf_counter()
            do(self.folder, place / name, None)
            self.seconds[task] = time.perf_counter() - start
            self.whole[task] = digests(place)
            shutil.rmtree(place)

    @contextlib.contextmanager
    def place(self, task: str, parent: Path | None = None) -> Iterator[Path]:
        """Make a folder with an old file in the target's place, unless the target is a folder, which must not exist."""
        folder = Path(tempfile.mkdtemp(dir=parent or self.folder))
        try:
            name, _ = TASKS[task]
            if name.endswith(".safetensors"):
                (folder / name).write_bytes(b"old")
            yield folder
        finally:
            shutil.rmtree(folder)

    def judge(self, fault: str, task: str, folder: Path, code: int) -> None:
        """Count the files in `folder` after an attempt that ended with `code`."""
        found = digests(folder)
        new = {name: digest for name, digest in found.items() if not name.startswith(".")}
        old = {name for name in new if (folder / name).read_bytes() == b"old"}
        counts = self.counts.setdefault(f"{fault}: {task}", Counter())
        counts["tries"] += 1
        counts["refused in a sentence"] += code == REFUSED
        counts["killed"] += code == -signal.SIGKILL
        if new == self.whole[task]:
            counts["new, whole"] += 1
        elif not new.keys() - old:
            counts["old"] += 1
        elif not new.keys() - old - {"new.yaml"} and new["new.yaml"] == self.whole[task]["new.yaml"]:
            counts["old, and the new YAML"] += 1
        else:
            counts["HALF"] += 1
        counts["parts left"] += any(path.name.startswith(".depth2img-") for path in folder.iterdir())
        if code not in (0, REFUSED, -signal.SIGKILL):
            counts["OTHER END"] += 1

    def next_run(self, fault: str, task: str, folder: Path) -> None:
        """Run once more, and count whether the result is whole."""
        name, do = TASKS[task]
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        do(self.folder, folder / name, None)
        good = digests(folder) == self.whole[task]
        self.counts[f"{fault}: {task}"]["whole after the next run" if good else "NOT WHOLE AFTER THE NEXT RUN"] += 1

    # --- faults -------------------------------------------------------------------------------------------------------

    def kills(self) -> None:
        """Send SIGKILL at a random moment."""
        for task, (name, do) in TASKS.items():
            for _ in range(self.tries):
                with self.place(task) as folder:
                    child = forked(partial(do, self.folder, folder / name, None))
                    time.sleep(self.chance.uniform(0, 1.05 * self.seconds[task]))
                    os.kill(child, signal.SIGKILL)
                    self.judge("killed", task, folder, ended(child))
                    self.next_run("killed", task, folder)

    def damage(self) -> None:
        """Use sources that are truncated, have a bit flipped, or a tensor of another shape."""
        whole = (self.folder / "depth.safetensors").read_bytes()
        header = 8 + int.from_bytes(whole[:8], "little")
        for task, (name, do) in TASKS.items():
            for number in range(self.tries):
                for fault in ("cut", "bit in the header", "wrong shape"):
                    with self.place(task) as folder, tempfile.TemporaryDirectory(dir=self.folder) as sources:
                        bad = Path(sources)
                        (bad / "plain.safetensors").symlink_to(self.folder / "plain.safetensors")
                        if fault == "cut":
                            (bad / "depth.safetensors").write_bytes(whole[: self.chance.randrange(len(whole))])
                        elif fault == "wrong shape":
                            if number >= max(1, self.tries // 10):
                                continue
                            self.misshape(bad / "depth.safetensors")
                        else:
                            content = bytearray(whole)
                            content[self.chance.randrange(header)] ^= 1 << self.chance.randrange(8)
                            (bad / "depth.safetensors").write_bytes(content)
                        child = forked(partial(do, bad, folder / name, None))
                        code = ended(child)
                        if code == 0:  # a bit of the metadata, or one that JSON does not mind
                            open_model(folder / name)
                            self.counts.setdefault(f"{fault}: {task}", Counter()).update(["tries", "harmless"])
                        else:
                            self.judge(fault, task, folder, code)

    def misshape(self, path: Path) -> None:
        """Copy the depth checkpoint with one tensor cut along its first dimension."""
        state = load_file(self.folder / "depth.safetensors")
        names = [
            n for n, v in state.items() if v.ndim and v.shape[0] > 1 and n.startswith(("model.", "first_", "cond_"))
        ]
        name = self.chance.choice(names)
        state[name] = state[name][:-1].clone()
        save_file(state, path)
        shutil.copy(self.folder / "depth.yaml", path.with_suffix(".yaml"))

    def full_disk(self) -> None:
        """Fill the disk while the target is written."""
        with small_disk(self.folder) as disk:
            for task, (name, do) in TASKS.items():
                for _ in range(max(1, self.tries // 10)):
                    with self.place(task, disk) as folder:
                        stop = self.chance.uniform(0.05, 0.95)
                        child = forked(partial(do, self.folder, folder / name, Filler(folder, stop, disk is not None)))
                        code = ended(child)
                        (folder / "filler").unlink(missing_ok=True)
                        self.judge("disk full" if disk else "file too large", task, folder, code)
                        self.next_run("disk full" if disk else "file too large", task, folder)

    def no_permission(self) -> None:
        """Use a folder without write permission."""
        if os.geteuid() != 0:
            print("no permission: left out, since only root can become somebody else")
            return
        for task, (name, do) in TASKS.items():
            with self.place(task) as folder, contextlib.ExitStack() as stack:
                for parent in (self.folder, folder):
                    mode = parent.stat().st_mode
                    parent.chmod(0o755)
                    stack.callback(parent.chmod, mode)

                def run(do: Task = do, target: Path = folder / name) -> None:
                    os.setgid(NOBODY)
                    os.setuid(NOBODY)
                    do(self.folder, target, None)

                child = forked(run)
                self.judge("no permission", task, folder, ended(child))

    def table(self, faults: set[str] | None = None) -> str:
        """Sum the counts of some faults or of all."""
        lines = []
        for fault, counts in self.counts.items():
            if faults is not None and fault not in faults:
                continue
            told = ", ".join(f"{count} {what}" for what, count in counts.items() if count and what != "tries")
            lines.append(f"{fault:38} {counts['tries']:4} tries: {told}")
        return "\n".join(lines)

    def bad(self) -> int:
        """Count the attempts with a forbidden outcome; their names are in capitals."""
        return sum(count for counts in self.counts.values() for what, count in counts.items() if what.isupper())


class Filler:
    """Progress callback that fills the disk, or limits the size of files, when a part of the work is done."""

    def __init__(self, folder: Path, part: float, disk: bool) -> None:
        self.folder, self.part, self.disk = folder, part, disk

    def __call__(self, done: int, total: int) -> None:
        if done < self.part * total:
            return
        if not self.disk:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
            return
        with contextlib.suppress(OSError), (self.folder / "filler").open("ab", buffering=0) as file:
            while file.write(bytes(1 << 20)):
                pass


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """Mount a tmpfs with room for two results; None without the permission."""
    place = folder / "disk"
    place.mkdir()
    size = 2 * sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def forked(do: Callable[[], object]) -> int:
    """Run something in a process of its own, and return its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        do()
        code = 0
    except CheckpointError:
        code = REFUSED
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """Wait for a process; return its exit code, or the negative number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def digests(folder: Path) -> dict[str, str]:
    """Compute the SHA-256 of each file by its path in the folder."""
    return {str(p.relative_to(folder)): sha256_of(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def main() -> None:
    """Run all faults, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(1)  # a fork has no threads but its own
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), args.tries)
        for fault in (bench.no_permission, bench.full_disk, bench.kills, bench.damage):
            before = set(bench.counts)
            fault()
            print(bench.table(set(bench.counts) - before), flush=True)
        print(f"{bench.bad()} ended as none may")
        import record  # beside this file; a test imports the rest from elsewhere

        record.write("faults_convert", bench.counts)
    sys.exit(bench.bad() > 0)


if __name__ == "__main__":
    main()
