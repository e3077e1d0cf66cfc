"""CLIP's byte-pair tokeniser without a network: the merges are those that the open_clip package carries.

Stable Diffusion 2 was trained with OpenCLIP's tokens: start 49406, end 49407, and 0 ("!") after the end, up to 77.
"""

from __future__ import annotations

import gzip
import html
import importlib.util
import json
import re
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from ...errors import CheckpointError

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

LENGTH: Final = 77
MERGES_FILE: Final = "bpe_simple_vocab_16e6.txt.gz"
VOCABULARY: Final = 49408
START, END = "<|startoftext|>", "<|endoftext|>"
PAD: Final = "!"
"""The entry with id 0."""
SPECIAL: Final = {"<start_of_text>": VOCABULARY - 2, "<end_of_text>": VOCABULARY - 1}
"""OpenCLIP's tokens for the start and the end of a text."""


def _merges() -> list[str]:
    """Read CLIP's merges in order of rank: two pieces each, separated by a space."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(
            "CLIP's tokeniser is not installed.", got="no package open_clip", fix="Run: pip install open_clip_torch."
        )
    lines = gzip.decompress((Path(spec.submodule_search_locations[0]) / MERGES_FILE).read_bytes()).decode("utf-8")
    # The first line names the version; CLIP uses as many merges as its vocabulary has room for.
    return lines.split("\n")[1 : VOCABULARY - 2 * 256 - 2 + 1]


def _byte_letters() -> list[str]:
    """List one printable character for each byte value, in CLIP's order: printable Latin-1 first, then the rest."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("\u00a1"), ord("\u00ac") + 1), *range(0xAE, 0x100)]
    return [chr(code) for code in printable] + [chr(256 + n) for n in range(256 - len(printable))]


def write_tokenizer(folder: Path) -> None:
    """Write the files of transformers' `CLIPTokenizer`, as Stable Diffusion 2's folder has them.

    Raises:
        CheckpointError: the open_clip package is not installed.
    """
    merges, letters = _merges(), _byte_letters()
    entries = [*letters, *(letter + "</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    entries += [START, END]
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": PAD}
    settings = {
        **special,
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": LENGTH,
        "do_lower_case": True,
        "errors": "replace",
        "add_prefix_space": False,
    }
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({entry: n for n, entry in enumerate(entries)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n", encoding="utf-8")


@lru_cache(maxsize=1)
def _tokenizer() -> CLIPTokenizer:
    from transformers import CLIPTokenizer

    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder))
        # With "!" for padding, as the published folder has it, a "!" in a prompt would become padding too.
        loaded: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, pad_token=END, local_files_only=True)
    return loaded


def text_tokens(text: str) -> list[int]:
    """Encode a text of any length as OpenCLIP does, without start and end.

    Raises:
        CheckpointError: the open_clip package is not installed.
    """
    ids: list[int] = []
    for part in re.split("(<(?:start|end)_of_text>)", html.unescape(html.unescape(text)).lower()):
        if part in SPECIAL:
            ids.append(SPECIAL[part])
        elif part:
            plain = re.sub(r"<\|(start|end)oftext\|>", r"<| \1oftext |>", part)  # to OpenCLIP no word of its own
            ids += _tokenizer()(plain, add_special_tokens=False, verbose=False).input_ids
    return ids


def token_ids(prompts: Sequence[str]) -> torch.Tensor:
    """Encode prompts as OpenCLIP does: int64 (B, 77), start, at most 75 tokens, end, zeros.

    Raises:
        CheckpointError: the open_clip package is not installed.
    """
    ids = torch.zeros(len(prompts), LENGTH, dtype=torch.int64)
    for row, prompt in zip(ids, prompts, strict=True):
        text = html.unescape(html.unescape(prompt))  # as OpenCLIP cleans every text
        numbers = _tokenizer()(text, truncation=True, max_length=LENGTH).input_ids
        row[: len(numbers)] = torch.tensor(numbers)
    return ids
