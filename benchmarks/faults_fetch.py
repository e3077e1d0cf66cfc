"""`depth2img checkpoint fetch` against a mirror that does everything wrong, and killed over and over. Prints tables.

    python benchmarks/faults_fetch.py [--kills 100]

Each fault of tests/library/mirror.py once: what came of it, how often the mirror was asked, and whether the next run on
a good mirror gives the file. A disk that fills up (a tmpfs, where one may be mounted). Then SIGKILL at random moments,
each run going on from the one before, with and without an older file in the place; and at every single line that the
modules run (with --lines). Ends with 1 if anything is not as it must be. Writes benchmarks/results/faults_fetch.json.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ["NO_PROXY"] = "*"

import record  # noqa: E402

from depth2img import CheckpointError  # noqa: E402
from depth2img.checkpoints.download.fetch import fetch  # noqa: E402
from tests.library import mirror  # noqa: E402
from tests.library.mirror import CASES, NAME, OTHER, Case, Mirror, Nursery, content, published, running  # noqa: E402

DATA = content()
LONGEST = 0.4
"""Seconds after which a run is killed at the latest; a whole run takes about as long."""


def clean(folder: Path) -> bool:
    return [path.name for path in folder.iterdir()] == [NAME] and (folder / NAME).read_bytes() == DATA


def one(case: Case) -> dict[str, Any]:
    """Run with a faulty mirror, then again with the same mirror repaired."""
    with tempfile.TemporaryDirectory() as name, running(case.data, *case.plan) as source:
        folder, source.default = Path(name), case.always
        source.etag = source.etag if case.etag else None
        try:
            fetch(published(source.url, size=case.size), folder, patience=case.patience)
            came, right = "fetched", not case.says and clean(folder)
        except CheckpointError as error:
            came = error.got.partition(": ")[2]
            right = bool(case.says) and case.says in came and not (folder / NAME).exists()
        asked = len(source.requests)
        source.plan, source.default, source.data, source.etag = [], mirror.serve, DATA, None
        fetch(published(source.url), folder)
        return {"fault": case.what, "came": came, "requests": asked, "right": right, "next": clean(folder)}


def disk(nursery: Nursery, folder: Path) -> list[dict[str, Any]]:
    """Run on a tmpfs that fills up midway, with a limit on the size of files, and without write permission."""
    rows = []

    def row(what: str, error: str) -> None:
        kept = folder / f"{NAME}.part"
        right, size = not (folder / NAME).exists(), kept.stat().st_size if kept.exists() else 0
        got = fetch(published(source.url), folder)
        came = error.partition("Got ")[2].partition(". ")[0]
        rows.append({"fault": what, "came": came, "kept": size, "resumed": got.resumed, "right": right})
        rows[-1]["next"] = clean(folder)
        (folder / NAME).unlink()

    with running(DATA) as source:
        source.block, source.delay = 10_000, 0.02
        mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
        if shutil.which("mount") and subprocess.run(mount, capture_output=True).returncode == 0:
            try:
                before = source.sent
                nursery.start(source.url, folder)
                while source.sent < before + len(DATA) // 2:
                    time.sleep(0.005)
                with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
                    while filler.write(bytes(4096)):
                        pass
                error = nursery.end()["error"]
                (folder / "filler").unlink()
                row("disk full midway (tmpfs)", error)
            finally:
                subprocess.run(["umount", str(folder)], check=True)
        nursery.start(source.url, folder, largest_file=100_000)
        row("largest size of a file reached", nursery.end()["error"])
        if os.geteuid() == 0:
            for parent in (folder.parent, folder):
                parent.chmod(0o755)
            nursery.start(source.url, folder, nobody=True)
            row("folder may not be written", nursery.end()["error"])
    return rows


class Kills:
    """Outcomes of a series of kills."""

    def __init__(self, folder: Path, source: Mirror, old: bytes | None) -> None:
        self.folder, self.source, self.old = folder, source, old
        self.kills = self.files = self.halves = self.leftovers = self.received = self.resumed = 0

    def prepare(self) -> None:
        for path in self.folder.iterdir():
            path.unlink()
        if self.old is not None:
            (self.folder / NAME).write_bytes(self.old)

    def look(self) -> bytes | None:
        """Return the file at the target's path; count it as half if it is neither the old nor the whole new one."""
        target = self.folder / NAME
        there = target.read_bytes() if target.exists() else None
        self.halves += there not in (self.old, DATA)
        return there

    def finish(self) -> None:
        """Run once more, without killing it."""
        before = len(self.source.requests)
        got = fetch(published(self.source.url), self.folder, replace=True)
        self.count(before)
        self.files += got.path.read_bytes() == DATA
        self.leftovers += not clean(self.folder)

    def count(self, before: int) -> None:
        """Count the bytes that need not be sent again, from the ranges that the mirror was asked for."""
        ranges = [request.get("range", "bytes=0-") for request in self.source.requests[before:]]
        self.resumed += sum(int(value[6:-1]) for value in ranges)

    def row(self, what: str) -> dict[str, Any]:
        counted = {name: getattr(self, name) for name in ("kills", "halves", "files", "leftovers", "resumed")}
        return {"what": what, **counted, "sent": self.source.sent}


def at_random(nursery: Nursery, folder: Path, kills: int, old: bytes | None, seed: int) -> dict[str, Any]:
    """Send SIGKILL at random moments; after a run that completes, begin again."""
    moments = random.Random(seed)
    with running(DATA) as source:
        source.block, source.delay = 4_000, 0.004
        series = Kills(folder, source, old)
        series.prepare()
        while series.kills < kills:
            before = len(source.requests)
            pid = nursery.start(source.url, folder, replace=True)
            time.sleep(moments.uniform(0, LONGEST))
            os.kill(pid, signal.SIGKILL)
            series.kills += nursery.end().get("killed", False)
            series.count(before)
            if series.look() == DATA:
                series.finish()
                series.prepare()
        series.finish()
        return series.row("at random" + (", replacing" if old else ""))


def at_each_line(nursery: Nursery, folder: Path, old: bytes | None) -> dict[str, Any]:
    """Send SIGKILL at every line, each time from the beginning."""
    with running(DATA) as source:
        source.block = 100_000
        series = Kills(folder, source, old)
        for line in itertools.count(1):
            series.prepare()
            nursery.start(source.url, folder, replace=True, kill_at=line)
            killed = nursery.end().get("killed", False)
            series.kills += killed
            series.look()
            series.finish()
            if not killed:
                break  # a run that had fewer lines
        return series.row("at each line" + (", replacing" if old else ""))


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="at random moments, half of them replacing a file")
    parser.add_argument("--lines", action="store_true", help="also kill at every line")
    arguments = parser.parse_args()

    faults = [one(case) for case in CASES]
    print(f"{'the mirror':52} {'asked':>5}  {'what came':60} {'as it must':>10} {'next run':>8}")
    for row in faults:
        marks = ("yes" if row["right"] else "NO", "whole" if row["next"] else "BROKEN")
        print(f"{row['fault']:52} {row['requests']:5}  {row['came'][:60]:60} {marks[0]:>10} {marks[1]:>8}")

    with tempfile.TemporaryDirectory() as name, mirror.nursery() as nursery:
        folder = Path(name) / "models"
        folder.mkdir()
        disks = disk(nursery, folder)
        print(f"\n{'the disk':34} {'what came':28} {'kept':>8} {'resumed':>8} {'as it must':>10} {'next run':>8}")
        for row in disks:
            marks = ("yes" if row["right"] else "NO", "whole" if row["next"] else "BROKEN")
            kept = f"{row['kept']:8,} {row['resumed']:8,}"
            print(f"{row['fault']:34} {row['came'][:28]:28} {kept} {marks[0]:>10} {marks[1]:>8}")
        half = arguments.kills // 2
        rows = [at_random(nursery, folder, arguments.kills - half, None, 1), at_random(nursery, folder, half, OTHER, 2)]
        if arguments.lines:
            rows += [at_each_line(nursery, folder, None), at_each_line(nursery, folder, OTHER)]
    print(
        f"\n{'killed':28} {'kills':>5} {'half files':>10} {'whole files':>11} {'left-overs':>10} {'not sent again':>15}"
    )
    for row in rows:
        saved = row["resumed"] / (row["resumed"] + row["sent"])
        figures = f"{row['kills']:5} {row['halves']:10} {row['files']:11} {row['leftovers']:10}"
        print(f"{row['what']:28} {figures} {row['resumed'] / 1e6:8.2f} MB {saved:.0%}")

    record.write("faults_fetch", {"faults": faults, "disk": disks, "kills": rows})
    right = all(row["right"] and row["next"] for row in [*faults, *disks]) and not any(
        row["halves"] + row["leftovers"] for row in rows
    )
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
