"""Chunks: 75 tokens each, that the text encoder sees one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .emphasis import pieces

SIZE: Final = 75
BACKTRACK: Final = 20
"""Tokens after the last comma that move to the next chunk with the token that had no room (the WebUI's default)."""

START: Final = 49406
END: Final = 49407
COMMA: Final = 267
"""Ids of OpenCLIP's vocabulary; the comma is the one that ends a word."""

Tokenize = Callable[[str], Sequence[int]]


@dataclass(frozen=True)
class Word:
    """A learned word (textual inversion).

    Attributes:
        name: what it is called in a prompt.
        count: how many tokens it stands for.
        source: where its vectors are from; another one when they change.
    """

    name: str
    count: int
    source: Any = None


@dataclass(frozen=True)
class Chunk:
    """Input of one run of the text encoder.

    Attributes:
        tokens: 77 ids: start, 75 tokens, end; ends fill it up.
        weights: one for each.
        words: position among the tokens, and the learned word whose vectors go there.
    """

    tokens: tuple[int, ...]
    weights: tuple[float, ...]
    words: tuple[tuple[int, Word], ...] = ()


EMPTY: Final = Chunk((START, *(END,) * (SIZE + 1)), (1.0,) * (SIZE + 2))


@dataclass
class _Open:
    """A chunk that is being filled."""

    tokens: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    words: list[tuple[int, Word]] = field(default_factory=list)
    comma: int = -1

    def closed(self) -> Chunk:
        room = SIZE - len(self.tokens)
        return Chunk(
            (START, *self.tokens, *(END,) * (room + 1)),
            (1.0, *self.weights, *(1.0,) * (room + 1)),
            tuple((position + 1, word) for position, word in self.words),
        )

    def after_comma(self) -> _Open:
        """Take out what follows the last comma; learned words stay where they were, as in the WebUI."""
        cut = self.comma + 1
        moved = _Open(self.tokens[cut:], self.weights[cut:])
        self.tokens, self.weights = self.tokens[:cut], self.weights[:cut]
        return moved


def chunks(prompt: str, tokenize: Tokenize, words: Mapping[tuple[int, ...], Word] | None = None) -> list[Chunk]:
    """Split a prompt's text into chunks; at least one.

    Args:
        prompt: text of a step, with emphasis.
        tokenize: text -> ids, without start and end.
        words: ids of a learned word's name -> the word.

    Raises:
        OptionError: a weight is not a number, or too large.
    """
    known = sorted((words or {}).items(), key=lambda item: -len(item[0]))
    done: list[Chunk] = []
    current = _Open()

    def close(following: _Open | None = None) -> None:
        nonlocal current
        done.append(current.closed())
        current = following or _Open()

    for piece in pieces(prompt):
        if piece.is_break:
            close()
            continue
        tokens = tuple(tokenize(piece.text))
        position = 0
        while position < len(tokens):
            token, full = tokens[position], len(current.tokens) == SIZE
            if token == COMMA:
                current.comma = len(current.tokens)
            elif full and current.comma >= 0 and SIZE - current.comma <= BACKTRACK:
                close(current.after_comma())
            if len(current.tokens) == SIZE:
                close()
            word, count = _word_at(known, tokens, position)
            if word is None:
                current.tokens.append(token)
                current.weights.append(piece.weight)
                position += 1
                continue
            if len(current.tokens) + word.count > SIZE:
                close()
            current.words.append((len(current.tokens), word))
            current.tokens += [0] * word.count
            current.weights += [piece.weight] * word.count
            position += count
    if current.tokens or not done:
        close()
    return done


def _word_at(
    known: Sequence[tuple[tuple[int, ...], Word]], tokens: tuple[int, ...], position: int
) -> tuple[Word | None, int]:
    """Return the learned word whose name begins at a position, the longest name first, and the name's tokens."""
    for ids, word in known:
        if tokens[position : position + len(ids)] == ids:
            return word, len(ids)
    return None, 0
