"""CLIP's own BPE ids, and the short table of rows that are trained.

The merges come from the open_clip package's data file; the ids are those of OpenAI's CLIP and of
Stable Diffusion 2: start 49406, end 49407, padded with 0 to 77.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch
from transformers import CLIPTokenizer

from tools.embedded_model.captions import vocabulary

LENGTH: Final = 77
CLIP_ROWS: Final = 49408
START, END, PAD = 49406, 49407, 0


@lru_cache(maxsize=1)
def tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer, built from the merges that the open_clip package carries."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the merges file is read from open_clip: install open_clip_torch")
    data = Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(data.read_bytes()).decode("utf-8").split("\n")
    merges = lines[1 : 49152 - 256 - 2 + 1]
    from transformers.models.clip.tokenization_clip import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    entries = letters + [letter + "</w>" for letter in letters] + ["".join(merge.split()) for merge in merges]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    with TemporaryDirectory() as folder:
        vocab, rules = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        vocab.write_text(json.dumps({entry: index for index, entry in enumerate(entries)}), encoding="utf-8")
        rules.write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
        return CLIPTokenizer(str(vocab), str(rules), pad_token="!", model_max_length=LENGTH)


def encode(captions: list[str]) -> torch.Tensor:
    """Captions -> int64 (N, 77) of CLIP ids, as SD2 pads them."""
    batch = tokenizer()(captions, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    ids: torch.Tensor = batch["input_ids"]
    return ids


@lru_cache(maxsize=1)
def trained_ids() -> tuple[int, ...]:
    """CLIP ids with a row of their own, rising: start, end, padding and every word of `vocabulary()`."""
    ids = {START, END, PAD}
    for word in vocabulary():
        ids.update(tokenizer()(word, add_special_tokens=False)["input_ids"])
    return tuple(sorted(ids))


def row_of_id() -> torch.Tensor:
    """int64 (49408,): CLIP id -> row of the compact table; the last row is shared by all other ids."""
    rows = torch.full((CLIP_ROWS,), len(trained_ids()), dtype=torch.int64)
    rows[torch.tensor(trained_ids())] = torch.arange(len(trained_ids()))
    return rows
