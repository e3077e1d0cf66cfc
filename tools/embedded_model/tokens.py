"""CLIP's own BPE ids, and the short table of rows that are trained.

The merges come from the open_clip package's data file; the ids are those of OpenCLIP and of Stable Diffusion 2:
start 49406, end 49407, padded with 0 to 77. Captions hold lower-case words and commas only, so that a word's ids are
looked up once.
"""

from __future__ import annotations

import gzip
import importlib.util
import re
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tools.embedded_model.captions import vocabulary

LENGTH: Final = 77
CLIP_ROWS: Final = 49408
START, END, PAD = 49406, 49407, 0
LETTERS: Final = [chr(code) for code in (*range(33, 127), *range(0xA1, 0xAD), *range(0xAE, 0x100))]
WORD: Final = re.compile(r"[a-z]+|[0-9]|[^\sa-z0-9]+")


@lru_cache(maxsize=1)
def _merges() -> tuple[dict[tuple[str, str], int], dict[str, int]]:
    """Rank of each merge, and id of each entry."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the merges file is read from open_clip: install open_clip_torch")
    data = Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(data.read_bytes()).decode("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
    pairs = [(one, two) for one, _, two in (line.partition(" ") for line in lines)]
    letters = LETTERS + [chr(256 + n) for n in range(256 - len(LETTERS))]
    entries = [*letters, *(letter + "</w>" for letter in letters), *(one + two for one, two in pairs)]
    return {pair: rank for rank, pair in enumerate(pairs)}, {entry: index for index, entry in enumerate(entries)}


@lru_cache(maxsize=4096)
def word_ids(word: str) -> tuple[int, ...]:
    """Ids of a lower-case word or a run of signs."""
    ranks, entries = _merges()
    pieces = [*word[:-1], word[-1] + "</w>"]
    while len(pieces) > 1:
        rank, place = min((ranks.get((a, b), len(ranks)), n) for n, (a, b) in enumerate(pairwise(pieces)))
        if rank == len(ranks):
            break
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
    return tuple(entries[piece] for piece in pieces)


def encode_array(captions: list[str]) -> npt.NDArray[np.int32]:
    """Captions -> (N, 77) of CLIP ids, cut to 75 between start and end."""
    out = np.full((len(captions), LENGTH), PAD, dtype=np.int32)
    for row, caption in zip(out, captions, strict=True):
        ids = [number for word in WORD.findall(caption.lower()) for number in word_ids(word)][: LENGTH - 2]
        row[: len(ids) + 2] = (START, *ids, END)
    return out


def encode(captions: list[str]) -> Tensor:
    """Captions -> int64 (N, 77) of CLIP ids, as SD2 pads them."""
    return torch.from_numpy(encode_array(captions)).long()


@lru_cache(maxsize=1)
def trained_ids() -> tuple[int, ...]:
    """CLIP ids with a row of their own, rising: start, end, padding and every word of `vocabulary()`."""
    ids = {START, END, PAD}
    for word in vocabulary():
        ids.update(word_ids(word))
    return tuple(sorted(ids))


def row_of_id() -> npt.NDArray[np.int16]:
    """(49408,): CLIP id -> row of the compact table; the last row is shared by all other ids."""
    rows = np.full(CLIP_ROWS, len(trained_ids()), dtype=np.int16)
    rows[list(trained_ids())] = np.arange(len(trained_ids()), dtype=np.int16)
    return rows
