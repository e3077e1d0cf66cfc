"""LoRAs and learned words (textual inversion) in folders, found by the names that prompts use."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..checkpoints.layout.tokenizer import text_tokens
from ..checkpoints.storage.hashes import CHUNK, sha256_of
from ..checkpoints.storage.opening import CheckpointFile, open_checkpoint
from ..errors import CheckpointError, OptionError
from ..io.atomic import refusing
from ..prompts.chunks import SIZE, Word
from ..prompts.language import Lora, take_networks
from ..prompts.tokens import PromptTokens

if TYPE_CHECKING:
    import torch

LORA_SUFFIXES: Final = (".safetensors", ".pt", ".ckpt")
WORD_SUFFIXES: Final = (".safetensors", ".pt", ".bin")
MOST_FILES: Final = 20_000
"""Files of a folder and the folders in it that are looked at."""

SHOWN: Final = 20
"""Names that an error lists."""

UNQUOTED: Final = str.maketrans("", "", ":,")
"""Characters that names in an infotext are without."""

SHORT: Final = 12
"""Digits of a hash in an infotext, as in the WebUI."""


@dataclass(frozen=True)
class LoraFile:
    """A LoRA that was asked for, and its file.

    Attributes:
        lora: what the prompt says.
        path: the file.
        version: changes when the file does.
    """

    lora: Lora
    path: Path
    version: Hashable

    def hash(self) -> str:
        """Return the 12 digits by which the WebUI's infotext names the file.

        Those of the SHA-256 that its metadata carry, else of what follows the header; of other formats, of the file.

        Raises:
            CheckpointError: it cannot be read.
        """
        file = open_checkpoint(self.path)
        known = file.metadata.get("sshs_model_hash", "")
        if known:
            return known[:SHORT]
        return (_hash_of_tensors(self.path) if file.format == "safetensors" else file.sha256())[:SHORT]


@dataclass(frozen=True)
class Library:
    """The folders, folders in them included; a file's name without the suffix is the name in a prompt.

    Attributes:
        lora_dir: of LoRAs; None: there are none.
        embeddings_dir: of learned words; None: there are none.
    """

    lora_dir: Path | None = None
    embeddings_dir: Path | None = None
    _opened: dict[tuple[Path, Hashable], CheckpointFile] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for name in ("lora_dir", "embeddings_dir"):
            folder = getattr(self, name)
            if folder is not None and not Path(folder).is_dir():
                raise OptionError(name, f"There is no folder {folder}.", fix="Create it, or leave it out.")

    @classmethod
    def of_webui(cls, webui: Path) -> Library:
        """Return the folders of a WebUI, as far as they are there."""
        folders = webui / "models" / "Lora", webui / "embeddings"
        return cls(*(folder if folder.is_dir() else None for folder in folders))

    def absolute(self) -> Library:
        """Return the same folders by absolute paths, for other processes."""
        folders = self.lora_dir, self.embeddings_dir
        return Library(*(None if folder is None else Path(folder).absolute() for folder in folders))

    def find(self, loras: Sequence[Lora]) -> tuple[LoraFile, ...]:
        """Find the files of LoRAs.

        Raises:
            OptionError: a name is not there; the message lists those that are.
        """
        if not loras:
            return ()
        files = dict(_named(self.lora_dir, LORA_SUFFIXES))
        others = self._trained_names(files) if any(lora.name not in files for lora in loras) else {}
        found = []
        for lora in loras:
            path = files.get(lora.name) or others.get(lora.name)
            if path is None:
                raise _unknown(lora.name, sorted(files), self.lora_dir)
            found.append(LoraFile(lora, path, _version(path)))
        return tuple(found)

    def words(self, width: int) -> dict[tuple[int, ...], Word]:
        """Return the learned words for a text encoder of that width: ids of their names -> word.

        Files for text encoders of other widths are passed over, as in the WebUI.

        Raises:
            CheckpointError: a file in the folder is not one of a learned word.
        """
        found: dict[tuple[int, ...], Word] = {}
        for name, path in _named(self.embeddings_dir, WORD_SUFFIXES):
            version = _version(path)
            shape = self._shape(path, version)
            ids = tuple(text_tokens(name))
            if shape[-1] == width and ids:
                found[ids] = Word(name, 1 if len(shape) == 1 else shape[0], (path, version))
        return found

    def vectors(self, word: Word) -> torch.Tensor:
        """Return a learned word's vectors, float32 (count, width).

        Raises:
            CheckpointError: its file cannot be read, or has changed.
        """
        path, version = word.source
        [key] = self._file(path, version).keys()
        return self._file(path, version).get(key).float().reshape(word.count, -1)

    def hashes(self, loras: Sequence[LoraFile], prompts: Sequence[PromptTokens]) -> dict[str, str]:
        """Return what the WebUI's infotext says about LoRAs and learned words: key -> names and hashes.

        Raises:
            CheckpointError: a file cannot be read.
        """
        words = {word.name: word for tokens in prompts for word in tokens.words}
        named = {
            "Lora hashes": {one.lora.name: one.hash() for one in loras},
            "TI hashes": {name: self._file(*word.source).sha256()[:SHORT] for name, word in words.items()},
        }
        return {
            key: ", ".join(f"{name.translate(UNQUOTED)}: {digits}" for name, digits in found.items())
            for key, found in named.items()
            if found
        }

    def fingerprint(self, prompt: str, negative: str) -> str:
        """Return a text that changes when a file does that prompts may use; empty if there is none.

        Raises:
            OptionError: a LoRA is not there.
        """
        text = f"{prompt}\n{negative}".lower()
        words = [path for name, path in _named(self.embeddings_dir, WORD_SUFFIXES) if name.lower() in text]
        used = [*(file.path for file in self.find(take_networks(prompt)[1])), *words]
        return " ".join(sha256_of(path) for path in used)

    def _file(self, path: Path, version: Hashable) -> CheckpointFile:
        key = path, version
        if key not in self._opened:
            for old in [one for one in self._opened if one[0] == path]:
                del self._opened[old]
            self._opened[key] = open_checkpoint(path)
        return self._opened[key]

    def _shape(self, path: Path, version: Hashable) -> tuple[int, ...]:
        file = self._file(path, version)
        shapes = [file.shape(key) for key in file.keys()]
        if len(shapes) != 1 or len(shapes[0]) not in (1, 2) or 0 in shapes[0]:
            raise CheckpointError(
                f"{path.name} is not a learned word (textual inversion) for Stable Diffusion 2.",
                got=f"{len(shapes)} tensors of shapes {', '.join(map(str, shapes[:3]))}",
                fix="Take it out of the folder of embeddings.",
            )
        if len(shapes[0]) == 2 and shapes[0][0] > SIZE:
            raise CheckpointError(
                f"{path.name} has no room in a prompt.", got=f"{shapes[0][0]} vectors", fix=f"At most {SIZE} have."
            )
        return shapes[0]

    def _trained_names(self, files: Mapping[str, Path]) -> dict[str, Path]:
        """Return the names that LoRAs were trained under, as kohya's trainer notes them in a file's metadata."""
        found: dict[str, Path] = {}
        for path in files.values():
            if path.suffix.lower() == ".safetensors":
                name = self._file(path, _version(path)).metadata.get("ss_output_name", "")
                found.setdefault(name, path)
        return found


def _named(folder: Path | None, suffixes: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Yield name and path of the files of a folder, sorted."""
    if folder is None:
        return
    with refusing(f"The folder {folder} cannot be read.", CheckpointError):
        every = [path for path, _ in zip(Path(folder).rglob("*"), range(MOST_FILES), strict=False)]
        for path in sorted(every):
            if path.suffix.lower() in suffixes and path.is_file() and path.stat().st_size > 0:
                yield path.stem, path


def _version(path: Path) -> Hashable:
    with refusing(f"{path.name} cannot be read.", CheckpointError):
        state = path.stat()
    return str(path), state.st_size, state.st_mtime_ns


def _hash_of_tensors(path: Path) -> str:
    digest = hashlib.sha256()
    with refusing(f"{path.name} cannot be read.", CheckpointError), path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _unknown(name: str, names: Sequence[str], folder: Path | None) -> OptionError:
    if folder is None:
        return OptionError(
            "prompt", f"There is no LoRA '{name[:80]}'.", got="no folder of LoRAs", fix="Give one with --lora-dir."
        )
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    there = f"There are {', '.join(names[:SHOWN])}{more}." if names else "There are none."
    return OptionError("prompt", f"There is no LoRA '{name[:80]}' in {folder}.", fix=there)
