"""A prompt as tokens: everything about it that can be known without a network."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from .chunks import EMPTY, Chunk, Tokenize, Word, chunks
from .language import Prompt
from .schedule import Scheduled

Words = Mapping[tuple[int, ...], Word]
"""Ids of a learned word's name -> the word."""


@dataclass(frozen=True)
class Tokens:
    """A prompt's texts as chunks of tokens.

    Attributes:
        texts: when each text is used.
        chunks: of each different text, in the order of their first use; all of them have the same number.
    """

    texts: Scheduled
    chunks: tuple[tuple[Chunk, ...], ...]

    @property
    def length(self) -> int:
        """Chunks of a text."""
        return len(self.chunks[0])

    @property
    def order(self) -> tuple[int, ...]:
        """For each of `texts`, which of `chunks` it has."""
        different = list(dict.fromkeys(self.texts.texts))
        return tuple(different.index(text) for text in self.texts.texts)


@dataclass(frozen=True)
class PromptTokens:
    """A prompt and a negative prompt as tokens.

    Attributes:
        parts: of the prompt, those that AND joins.
        weights: one for each part.
        negative: the negative prompt.
    """

    parts: tuple[Tokens, ...]
    weights: tuple[float, ...]
    negative: Tokens

    @property
    def shape(self) -> Hashable:
        """Parts, chunks of a part, chunks of the negative; prompts of one shape go through the UNet together."""
        return len(self.parts), self.length, self.negative.length

    @property
    def words(self) -> list[Word]:
        """The learned words in it."""
        texts = [text for tokens in (*self.parts, self.negative) for text in tokens.chunks]
        return [word for text in texts for chunk in text for _, word in chunk.words]

    @property
    def length(self) -> int:
        """Chunks of the longest part."""
        return max(part.length for part in self.parts)


def tokenized(prompt: Prompt, tokenize: Tokenize, words: Words) -> PromptTokens:
    """Split every text of a prompt into chunks.

    Raises:
        OptionError: a weight is not a number, or too large.
    """
    parts = tuple(_tokens(part.texts, tokenize, words) for part in prompt.parts)
    return PromptTokens(parts, tuple(part.weight for part in prompt.parts), _tokens(prompt.negative, tokenize, words))


def _tokens(texts: Scheduled, tokenize: Tokenize, words: Words) -> Tokens:
    each = [chunks(text, tokenize, words) for text in dict.fromkeys(texts.texts)]
    most = max(map(len, each))
    return Tokens(texts, tuple((*one, *(EMPTY,) * (most - len(one))) for one in each))
