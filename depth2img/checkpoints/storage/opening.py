"""The one way to open a checkpoint file: its content decides what it is, not its name.

file = open_checkpoint(Path("512-depth-ema.ckpt"))
file.format, file.keys(), file.get("model_ema.decay")
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Literal

from ...errors import CheckpointError, command
from ...io.atomic import refusing
from .hashes import model_hash, sha256_of
from .pickled import read_pickle
from .reading import MAX_HEADER, StoredTensors, read_safetensors
from .tensors import Progress, Tensors

if TYPE_CHECKING:
    import torch

Format = Literal["safetensors", "pickle"]

SUFFIXES: Final[Mapping[Format, tuple[str, ...]]] = {
    "safetensors": (".safetensors",),
    "pickle": (".ckpt", ".pt", ".pth", ".bin"),
}
"""Format -> suffixes by which programs that go by the name know it; the first is the one to use."""

GET_AGAIN: Final = "Get the file again from where it came from."

WEB_PAGE: Final = (
    "an HTML page",
    "The download was answered by a web page; get the file itself, perhaps after a login.",
)
PACKED: Final = ("a packed archive", "Unpack it first.")

SIGNS: Final[Sequence[tuple[bytes, str, str]]] = [
    (b"<!doctype", *WEB_PAGE),
    (b"<html", *WEB_PAGE),
    (b"<?xml", *WEB_PAGE),
    (b"version https://git-lfs", "a pointer of Git LFS", "Run `git lfs pull` in its folder, or download the file."),
    (b"gguf", "a GGUF file", "The WebUI reads safetensors and .ckpt files."),
    (b"\x1f\x8b", *PACKED),
    (b"7z\xbc\xaf", *PACKED),
    (b"rar!", *PACKED),
]
"""First bytes, in lower case -> what the file is, and what to do."""

PICKLE_SIGNS: Final = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class CheckpointFile(Tensors):
    """An opened checkpoint file: its tensors, and what else was found out about it. Get one by `open_checkpoint`.

    The file is not kept open. Reading a tensor from one that has changed since raises `CheckpointError`.

    Args:
        tensors: its tensors.
        sha256: its SHA-256, if it is known already.

    Attributes:
        path: the file.
        format: its storage format, regardless of its name.
        size: its bytes.
        model_hash: the WebUI's old short hash, 8 digits.
        known_sha256: its SHA-256; None until somebody gives or computes it.
    """

    def __init__(
        self, path: Path, form: Format, tensors: StoredTensors, *, size: int, short: str, sha256: str | None
    ) -> None:
        self.path, self.format, self.size, self.model_hash, self.known_sha256 = path, form, size, short, sha256
        self._tensors = tensors

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._tensors.metadata

    def keys(self) -> Sequence[str]:
        return self._tensors.keys()

    def shape(self, key: str) -> tuple[int, ...]:
        return self._tensors.shape(key)

    def dtype(self, key: str) -> torch.dtype:
        return self._tensors.dtype(key)

    def kind(self, key: str) -> str:
        return self._tensors.kind(key)

    def get(self, key: str) -> torch.Tensor:
        return self._tensors.get(key)

    def sha256(self, progress: Progress | None = None) -> str:
        """Return the file's SHA-256; the whole file is read for it once.

        Raises:
            CheckpointError: the file cannot be read.
        """
        if self.known_sha256 is None:
            self.known_sha256 = sha256_of(self.path, progress)
        return self.known_sha256

    @property
    def misnamed(self) -> str:
        """One sentence if the name says another kind of file than it is; else empty."""
        if is_named_like(self.path, self.format):
            return ""
        return f"{self.path.name} is a {self.format} file, and its name says another kind; it is read as what it is."


def is_named_like(path: Path, form: Format) -> bool:
    """Tell whether a file's name says that it is stored so."""
    return path.suffix.lower() in SUFFIXES[form]


def open_checkpoint(source: Path | CheckpointFile, *, sha256: str | None = None) -> CheckpointFile:
    """Open a checkpoint file; no tensor is read, and nothing in it is run. An opened one is returned as it is.

    Args:
        source: a safetensors file, or one that `torch.save` wrote, whatever its name.
        sha256: of the file, if it is known already.

    Raises:
        CheckpointError: it is neither, it is damaged, or it wants to run code; the message says what it is instead.
    """
    if isinstance(source, CheckpointFile):
        return source
    with refusing(f"{source.name} cannot be read.", CheckpointError):
        if source.is_dir():
            how = command("checkpoint", "convert", source, f"{source}.safetensors")
            raise CheckpointError(
                f"{source.name} is a folder.",
                fix=f"Give a file; {how} makes one of a folder in the diffusers layout.",
            )
        if not source.is_file():
            raise CheckpointError(f"There is no file {source.name}.", got=str(source), fix="Check the path.")
        with source.open("rb") as file:
            size, form = source.stat().st_size, sniff(source.name, file)
            tensors = (read_safetensors if form == "safetensors" else read_pickle)(source, file)
            return CheckpointFile(source, form, tensors, size=size, short=model_hash(file), sha256=sha256)


def sniff(name: str, file: BinaryIO) -> Format:
    """Tell by its first bytes how a file is stored.

    Args:
        name: the file's, for messages.
        file: the file, open for reading, at its beginning.

    Raises:
        CheckpointError: it is not a checkpoint; the message says what it is instead.
    """
    start, size = file.read(512), os.fstat(file.fileno()).st_size
    header, braced = int.from_bytes(start[:8], "little"), start[8:9] == b"{"
    if braced and header <= MAX_HEADER:  # first, since a header's length may begin like a pickle
        return "safetensors"
    for sign, what, fix in SIGNS:
        if start.lstrip()[:40].lower().startswith(sign):
            raise CheckpointError(f"{name} is {what}, not a checkpoint.", got=f"{size:,} bytes", fix=fix)
    if start.startswith(PICKLE_SIGNS):
        return "pickle"
    if braced:
        return "safetensors"
    what = "is empty" if not start else "is neither a safetensors nor a PyTorch file"
    raise CheckpointError(f"{name} {what}.", got=f"{size:,} bytes", fix=GET_AGAIN)
