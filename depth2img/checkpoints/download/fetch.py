"""Fetch a published checkpoint: resumable, checked against the table, whole or not at all.

Beside the target lie, while it is fetched, `<file>.part` with the bytes so far, `<file>.part.json` with where they came
from, and `<file>.lock`. The target is touched once, by a rename, when the SHA-256 is right: whoever kills this at any
moment finds the old file or the whole new one, and the next run resumes.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...errors import CheckpointError
from ...io.atomic import WRITING, free_space, refusing
from ...text import size
from ..storage.hashes import sha256_of
from ..storage.tensors import Progress
from .mirrors import RemoteFile, Source, location
from .partial import PartialDownload
from .transfer import Patience, SourceFault, open_source, plausible

POLL: Final = 0.2
"""Seconds between two checks of `stop`, while waiting."""

FURTHER: Final = 1000
"""Reset a source's retry counter after it delivers 1/FURTHER of the file."""


@dataclass(frozen=True)
class Fetched:
    """A file that was fetched.

    Attributes:
        path: its path.
        sha256: of its bytes.
        verified: true if the table knew the SHA-256, so that it was compared.
        source: the source of the last bytes; None if the right file was there already.
        received: bytes that this run got.
        resumed: bytes that earlier runs had got.
    """

    path: Path
    sha256: str
    verified: bool
    source: Source | None = None
    received: int = 0
    resumed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "path": str(self.path),
            "sha256": self.sha256,
            "verified": self.verified,
            "source": None if self.source is None else str(self.source),
            "received": self.received,
            "resumed": self.resumed,
        }

    def lines(self) -> list[str]:
        """Format it as lines of text."""
        if self.source is None and not self.resumed:
            return [f"{self.path} is there already and is the right file."]
        before = f", and {size(self.resumed)} by an earlier run" if self.resumed else ""
        lines = [f"{self.path}: {size(self.received)} received{before}."]
        if self.verified:
            return [*lines, "The SHA-256 is the published one."]
        return [
            *lines,
            "It could not be checked. To have it checked next time, add this to your table:",
            f"  sha256: '{self.sha256}'",
        ]


def fetch(
    entry: RemoteFile,
    folder: Path,
    *,
    replace: bool = False,
    unverified: bool = False,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
    stop: Callable[[], bool] | None = None,
    patience: Patience | None = None,
) -> Fetched:
    """Fetch a published checkpoint into a folder, from the first source that gives the right bytes.

    Safe to kill at any moment, and to run twice at once: the second waits for the first.

    Args:
        entry: the file, from `mirrors.table`.
        folder: an existing folder; the file gets the entry's name.
        replace: replace another file of that name, once the new one is whole.
        unverified: take a file without a known SHA-256.
        progress: called with the bytes that are there and the bytes in all.
        notice: called with a sentence about other events: a source that failed, a pause, another process.
        stop: asked often; once it says true, what is there is kept for the next run, and `CheckpointError` raised.
        patience: the time that sources are given.

    Raises:
        CheckpointError: no source has the file, there is no room, another file is in the way, or the folder cannot be
            written. The target is then as it was.
    """
    if entry.sha256 is None and not unverified:
        raise CheckpointError(
            f"No SHA-256 of {entry.file} is known, so what comes cannot be checked.",
            fix="Add it to the table, or say that an unverified file will do.",
        )
    download = _Download(
        entry, folder / entry.file, replace, progress, notice, stop or (lambda: False), patience or Patience()
    )
    with refusing(f"{entry.file} cannot be written to {folder}.", CheckpointError, fix=WRITING):
        if not folder.is_dir():
            raise CheckpointError("There is no such folder.", got=str(folder), fix="Create it first.")
        if not (download.lock.exists() or replace) and (there := download.already()):
            return there
        with download.alone():
            return download.already() or download.run()


@dataclass
class _Download:
    entry: RemoteFile
    target: Path
    replace: bool
    progress: Progress | None
    notice: Callable[[str], None] | None
    stop: Callable[[], bool]
    patience: Patience

    def __post_init__(self) -> None:
        self.lock = self.target.with_name(self.target.name + ".lock")
        self.received = 0

    def say(self, text: str) -> None:
        if self.notice is not None:
            self.notice(text)

    def check_stop(self) -> None:
        if self.stop():
            raise CheckpointError("Stopped.", fix="What is there is kept: the next run resumes from it.")

    def pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check_stop()
            time.sleep(min(POLL, left))

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock beside the target. The system takes it from a process that dies.

        Its file is removed when nothing is left to resume; a waiting process then starts again, or finds the target.
        """
        from filelock import FileLock, Timeout

        lock, told = FileLock(str(self.lock)), False
        while True:
            try:
                lock.acquire(timeout=POLL, poll_interval=POLL / 4)
                break
            except Timeout:
                if not told:
                    self.say(f"Another process is fetching {self.entry.file}; waiting for it.")
                told = True
                self.check_stop()
        try:
            yield
        finally:
            if not PartialDownload.path_of(self.target).exists():
                with contextlib.suppress(OSError):  # Windows removes it on release
                    self.lock.unlink()
            lock.release()

    def already(self) -> Fetched | None:
        """Return the target if it is the right file.

        Raises:
            CheckpointError: it is another and not to be replaced.
        """
        if not self.target.exists():
            return None
        if self.entry.sha256 is not None:
            self.say(f"{self.target.name} is there already; comparing its SHA-256.")
        sha256 = sha256_of(self.target, self.progress) if self.entry.sha256 else ""
        if self.entry.sha256 and sha256 == self.entry.sha256:
            return Fetched(self.target, sha256, True)
        if self.replace:
            return None
        if self.entry.sha256 is None:
            raise CheckpointError(
                f"There is a {self.target.name} already, and no SHA-256 is known to tell whether it is the same.",
                fix="Move it away, or say that it is to be replaced.",
            )
        raise CheckpointError(
            f"There is a {self.target.name} already, and it is another file than the table's.",
            got=f"SHA-256 {sha256}",
            fix="Move it away, or say that it is to be replaced.",
        )

    def run(self) -> Fetched:
        """Take what an earlier run left, then try one source after the other. The lock is held."""
        with contextlib.closing(PartialDownload(self.target, self.entry)) as part:
            if part.size:
                self.say(f"Resuming from {size(part.size)}.")
            source = None
            if not part.whole:
                self.check_room(self.entry.size.high - part.size)
                source = self.from_sources(part)
            sha256 = part.sha256()
            part.become_target()
        verified = self.entry.sha256 is not None
        return Fetched(self.target, sha256, verified, source, self.received, part.inherited)

    def check_room(self, needed: int) -> None:
        free = free_space(self.target.parent, CheckpointError)
        if needed > free:
            raise CheckpointError(
                f"There is not enough room for {self.entry.file} in {self.target.parent}.",
                got=f"{size(free)} free of {size(needed)} that are needed",
                fix="Make room, or choose another folder.",
            )

    def from_sources(self, part: PartialDownload) -> Source:
        """Fill the part; return the source that gave its last bytes."""
        faults = []
        for source in self.entry.sources:
            try:
                self.from_source(source, part)
                return source
            except SourceFault as fault:
                faults.append(f"{location(source)}: {fault}")
                self.say(f"{faults[-1]}.")
        kept = f" {size(part.size)} are kept: the next run resumes from there." if part.size else ""
        raise CheckpointError(
            f"{self.entry.file} could not be fetched.",
            got="; ".join(faults) or "no source",
            fix=f"Try again later, or add another source in a table of your own.{kept}",
        )

    def from_source(self, source: Source, part: PartialDownload) -> None:
        """Fill the part from one source, in as many requests as it takes."""
        failures, farthest = 0, part.size
        while True:
            try:
                self.receive(source, part)
                return
            except SourceFault as fault:
                if part.whole:  # whatever the source said of its length
                    return
                if fault.afresh:
                    part.discard()
                if part.size > farthest + self.entry.size.high // FURTHER:
                    failures, farthest = 0, part.size
                failures += 1
                if not fault.again or failures >= self.patience.tries:
                    raise
                wait = min(self.patience.first_wait * 2 ** (failures - 1), self.patience.longest_wait)
                wait = max(wait * random.uniform(0.5, 1.0), fault.wait)  # not all clients at the same moment
                self.say(f"{location(source)}: {fault}; trying again in {wait:.0f} s.")
                self.pause(wait)

    def receive(self, source: Source, part: PartialDownload) -> None:
        """Append what a source gives.

        Raises:
            SourceFault: it was not the rest of the file.
        """
        start, validator = part.resume(source)
        with open_source(self.entry, source, start, validator, self.patience) as stream:
            total = stream.total or self.entry.size.high
            chunks = stream.chunks
            if stream.start == 0:  # what is there is not thrown away for what cannot be the file
                chunks = plausible(chunks, self.entry.file)
                first = next(chunks)
                part.begin(source, stream.validator)
                chunks = itertools.chain([first], chunks)
            for chunk in chunks:
                part.append(chunk)
                self.received += len(chunk)
                if part.size > total:
                    raise SourceFault("it sends more bytes than the file has", afresh=True)
                if self.progress is not None:
                    self.progress(part.size, total)
                self.check_stop()
            if part.size < (stream.total or self.entry.size.low):
                raise SourceFault("the connection was lost", again=True)
        if self.entry.sha256 is not None and not part.whole:
            if part.mixed:
                raise SourceFault("what came does not fit the part that was here", again=True, afresh=True)
            raise SourceFault(f"it has another file of that name, with SHA-256 {part.sha256()}", afresh=True)
