"""A partial download: `<file>.part` with the bytes so far, and `<file>.part.json`, the note of their origin."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import AbstractContextManager
from io import FileIO
from pathlib import Path
from typing import Any, Final

from ...errors import CheckpointError
from ...io.atomic import WRITING, refusing
from .mirrors import RemoteFile, Source

BLOCK: Final = 1024 * 1024
MAX_NOTE_BYTES: Final = 16 * 1024


class PartialDownload:
    """The bytes so far. Whoever uses it holds the lock of the target.

    The note is there before the first byte and gone before the rename, so that no order of kills leaves bytes whose
    origin is wrong: bytes without a note are the whole file or worth nothing.

    Args:
        target: the path of the finished file.
        entry: the file.

    Attributes:
        size: bytes that are there.
        inherited: the number of them that an earlier run got.
        mixed: true if they came in more than one request.

    Raises:
        CheckpointError: the folder cannot be read.
    """

    def __init__(self, target: Path, entry: RemoteFile) -> None:
        self.target, self.path = target, self.path_of(target)
        self._note = target.with_name(target.name + ".part.json")
        self._entry = entry
        self._file: FileIO | None = None
        self._hash = hashlib.sha256()
        with refusing(f"{self.path.name} cannot be read.", CheckpointError):
            self.size = self.path.stat().st_size if self.path.exists() else 0
            note = self._read_note()
        self.inherited, self.mixed = self.size, False
        self._hashed = self.size == 0
        self._source, self._validator = str(note.get("source", "")), str(note.get("validator", ""))
        belongs = note.get("sha256", "") == entry.sha256 if note else entry.sha256 is not None
        if self.size > entry.size.high or not belongs:  # of an unchecked file without a note: nobody knows what it is
            self.discard()

    @staticmethod
    def path_of(target: Path) -> Path:
        """Return the path of a target's bytes while they come."""
        return target.with_name(target.name + ".part")

    def _read_note(self) -> dict[str, Any]:
        if not self._note.exists():
            return {}
        with self._note.open("rb") as file:
            content = file.read(MAX_NOTE_BYTES)
        try:
            note = json.loads(content)
        except (ValueError, RecursionError):
            return {}
        return note if isinstance(note, dict) else {}

    def resume(self, source: Source) -> tuple[int, str]:
        """Return the byte to ask a source from, and the version of the file to ask for.

        Bytes of another source, or of one that does not tell its versions apart, are resumed only where the SHA-256
        will judge the whole.
        """
        same = str(source) == self._source
        if not (same and self._validator) and not (self._source and self._entry.sha256):
            return 0, ""
        self.mixed = self.size > 0
        return self.size, self._validator if same else ""

    @property
    def whole(self) -> bool:
        """True if the bytes are the file, by the table's SHA-256; false without one."""
        return self._entry.sha256 is not None and self.size in self._entry.size and self.sha256() == self._entry.sha256

    def begin(self, source: Source, validator: str) -> None:
        """Start again, with bytes of this source and version."""
        self.discard()
        with self._writing():
            self._source, self._validator = str(source), validator
            note = {"source": self._source, "validator": validator, "sha256": self._entry.sha256}
            self._note.write_text(json.dumps(note), encoding="utf-8")
            self._file = FileIO(self.path, "xb")

    def append(self, content: bytes) -> None:
        """Append bytes.

        Raises:
            CheckpointError: the disk is full, or the file cannot be written. What was written is kept.
        """
        self._hash_what_is_there()
        with self._writing():
            if self._file is None:
                self._file = FileIO(self.path, "ab")
            rest = memoryview(content)
            while rest:
                written = self._file.write(rest)
                self._hash.update(rest[:written])
                self.size += written
                rest = rest[written:]

    def _writing(self) -> AbstractContextManager[None]:
        fix = f"{WRITING} What is there is kept: the next run resumes from it."
        return refusing(f"{self.target.name} cannot be written.", CheckpointError, fix=fix)

    def _hash_what_is_there(self) -> None:
        if self._hashed:
            return
        with refusing(f"{self.path.name} cannot be read.", CheckpointError), self.path.open("rb") as file:
            while block := file.read(BLOCK):
                self._hash.update(block)
        self._hashed = True

    def sha256(self) -> str:
        """Return the SHA-256 of the bytes that are there, in hexadecimal digits."""
        self._hash_what_is_there()
        return self._hash.hexdigest()

    def become_target(self) -> None:
        """Rename the part to the target, once it is safely on the disk.

        Raises:
            CheckpointError: it cannot be renamed (on Windows: the old file is in use), or is not what was written.
        """
        with self._writing():
            if self._file is None:
                self._file = FileIO(self.path, "ab")
            os.fsync(self._file.fileno())
            ours, there = os.fstat(self._file.fileno()), self.path.stat()
            if (ours.st_ino, ours.st_dev, ours.st_size) != (there.st_ino, there.st_dev, self.size):
                raise CheckpointError(f"{self.path.name} was changed by something else.", fix="Run it again.")
            self.close()
            self._note.unlink(missing_ok=True)
            self.path.replace(self.target)
            if os.name == "posix":
                folder = os.open(self.target.parent, os.O_RDONLY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)

    def discard(self) -> None:
        """Remove the bytes and their note."""
        self.close()
        with refusing(f"{self.path.name} cannot be removed.", CheckpointError, fix="Remove it by hand."):
            self.path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)
        self.size = self.inherited = 0
        self._hash, self._hashed, self.mixed = hashlib.sha256(), True, False
        self._source = self._validator = ""

    def close(self) -> None:
        """Close the file; it stays where it is."""
        if self._file is not None:
            self._file.close()
        self._file = None
