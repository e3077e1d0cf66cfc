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
from .reading import MAX_HEADER, Contents, StoredTensors, read_safetensors
from .tensors import EIGHT_BITS, Progress, Tensors
from .weights import Weights, find_weights

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

    Its tensors have the names of Stable Diffusion's own files, whatever is around them in the file; 8-bit floats are
    widened to float16, which holds them exactly. The file is not kept open: reading a tensor from one that has changed
    since raises `CheckpointError`.

    Args:
        tensors: all its tensors under their names in the file.
        sha256: its SHA-256, if it is known already.

    Attributes:
        path: the file.
        format: its storage format, regardless of its name.
        size: its bytes.
        model_hash: the WebUI's old short hash, 8 digits.
        known_sha256: its SHA-256; None until somebody gives or computes it.
        weights: where its weights are.
        objects: names of the classes whose objects are in the file besides, and were left out; of a pickle.
    """

    def __init__(
        self,
        path: Path,
        form: Format,
        tensors: StoredTensors,
        weights: Weights,
        *,
        objects: Sequence[str],
        size: int,
        short: str,
        sha256: str | None,
    ) -> None:
        self.path, self.format, self.size, self.model_hash, self.known_sha256 = path, form, size, short, sha256
        self.weights, self.objects = weights, objects
        self._tensors = tensors

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._tensors.metadata

    def keys(self) -> Sequence[str]:
        return list(self.weights.names)

    def shape(self, key: str) -> tuple[int, ...]:
        return self._tensors.shape(self.weights.names[key])

    def dtype(self, key: str) -> torch.dtype:
        return self._tensors.dtype(self.weights.names[key])

    def kind(self, key: str) -> str:
        """Return the element type of one tensor in the file as the safetensors header names it."""
        return self._tensors.kind(self.weights.names[key])

    def get(self, key: str) -> torch.Tensor:
        return self._tensors.get(self.weights.names[key])

    def sha256(self, progress: Progress | None = None) -> str:
        """Return the file's SHA-256; the whole file is read for it once.

        Raises:
            CheckpointError: the file cannot be read.
        """
        if self.known_sha256 is None:
            self.known_sha256 = sha256_of(self.path, progress)
        return self.known_sha256

    @property
    def is_plain(self) -> bool:
        """True if other programs find the same tensors in it, under the same names."""
        return not (self.misnamed or self.objects or self.weights.wrapped or self.weights.is_ema)

    @property
    def misnamed(self) -> str:
        """One sentence if the name says another kind of file than it is; else empty."""
        if is_named_like(self.path, self.format):
            return ""
        return f"{self.path.name} is a {self.format} file, and its name says another kind; it is read as what it is."


def is_named_like(path: Path, form: Format) -> bool:
    """Tell whether a file's name says that it is stored so."""
    return path.suffix.lower() in SUFFIXES[form]


def open_checkpoint(source: Path | CheckpointFile, *, sha256: str | None = None, ema: bool = False) -> CheckpointFile:
    """Open a checkpoint file; no tensor is read, and nothing in it is run. An opened one is returned as it is.

    Args:
        source: a safetensors file, or one that `torch.save` wrote, whatever its name.
        sha256: of the file, if it is known already.
        ema: take the averaged weights (EMA) instead of the plain ones. Without it, they are taken where there are no
            others.

    Raises:
        CheckpointError: it is neither, it is damaged, it wants to run code, it holds several models, or no averaged
            weights where they are asked for; the message says what it is instead.
    """
    if isinstance(source, CheckpointFile):
        return open_checkpoint(source.path, sha256=source.known_sha256, ema=True) if ema else source
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
            read = _read(source, form, file)
            return CheckpointFile(
                source,
                form,
                read.tensors,
                _weights(source.name, read, ema),
                objects=read.objects,
                size=size,
                short=model_hash(file),
                sha256=sha256,
            )


def _read(path: Path, form: Format, file: BinaryIO) -> Contents:
    return read_pickle(path, file) if form == "pickle" else Contents(read_safetensors(path, file))


def _weights(name: str, read: Contents, ema: bool) -> Weights:
    names = read.tensors.keys()
    if any(key.endswith((".scale_weight", "scaled_fp8")) for key in names) and _eight_bits(read.tensors):
        raise CheckpointError(
            f"The weights of {name} are 8-bit floats with scales of their own, which are not read.",
            got="tensors named scale_weight",
            fix="Get the file in float16.",
        )
    with refusing(
        f"{name} holds several models.",
        CheckpointError,
        on=(ValueError,),
        got=lambda problem: f"prefixes {problem}",
        fix="Save one of them alone.",
    ):
        found = find_weights(names, read.nested, ema=ema)
    if found is None:
        raise CheckpointError(
            f"{name} holds no averaged weights (EMA).",
            got="no tensor named model_ema.*",
            fix="Leave out --ema, to take the plain ones.",
        )
    return found


def _eight_bits(tensors: StoredTensors) -> bool:
    return any(tensors.kind(key) in EIGHT_BITS for key in tensors.keys())


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
