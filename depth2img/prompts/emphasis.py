r"""Emphasis: `(more)`, `(this much:1.3)`, `[less]`, and `\(`, `\[`, `\\` for the characters themselves."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from ..errors import OptionError

ROUND: Final = 1.1
SQUARE: Final = 1 / 1.1
"""Factors of a pair of brackets without a number."""

STRONGEST: Final = 1e4
"""Weights beyond this leave no number of the text states, in half precision, what it was."""

LEXEME: Final = re.compile(r"\\[\\()\[\]]?|:\s*([+-]?[.0-9]+)\s*\)|[()\[\]:]|[^\\()\[\]:]+")
BREAK: Final = re.compile(r"\s*\bBREAK\b\s*")


@dataclass
class Piece:
    """Text of one weight."""

    text: str
    weight: float

    @property
    def is_break(self) -> bool:
        """True if it ends the chunk instead: the word BREAK, to which the WebUI gives the weight -1."""
        return self.text == "BREAK" and self.weight == -1


def pieces(prompt: str) -> list[Piece]:
    """Split a prompt into texts and their weights; at least one.

    Brackets of the two kinds need not be nested in each other; one that is not closed reaches to the end. In brackets,
    BREAK is a word like others.

    Raises:
        OptionError: a weight is not a number, or too large.
    """
    found: list[Piece] = []
    rounds: list[int] = []
    squares: list[int] = []

    def weigh(start: int, factor: float) -> None:
        for piece in found[start:]:
            piece.weight *= factor

    for match in LEXEME.finditer(prompt):
        text, number = match[0], match[1]
        if text[0] == "\\":
            found.append(Piece(text[1:], 1.0))
        elif text == "(":
            rounds.append(len(found))
        elif text == "[":
            squares.append(len(found))
        elif number is not None and rounds:
            weigh(rounds.pop(), _factor(number))
        elif text == ")" and rounds:
            weigh(rounds.pop(), ROUND)
        elif text == "]" and squares:
            weigh(squares.pop(), SQUARE)
        else:
            first, *others = BREAK.split(text)
            found.append(Piece(first, 1.0))
            for other in others:
                found += [Piece("BREAK", -1.0), Piece(other, 1.0)]
    for start in rounds:
        weigh(start, ROUND)
    for start in squares:
        weigh(start, SQUARE)
    return _merged(found) or [Piece("", 1.0)]


def _factor(number: str) -> float:
    try:
        value = float(number)
    except ValueError as problem:
        raise OptionError(
            "prompt", "A weight in a prompt must be a number, as in (word:1.3).", got=f"'{number[:40]}'"
        ) from problem
    return value


def _merged(found: list[Piece]) -> list[Piece]:
    """Join neighbours of one weight."""
    merged: list[Piece] = []
    for piece in found:
        if not abs(piece.weight) <= STRONGEST:
            shown = "infinite" if math.isinf(piece.weight) else f"{piece.weight:g}"
            raise OptionError("prompt", f"Weights in a prompt reach {STRONGEST:g} at most.", got=shown)
        if merged and merged[-1].weight == piece.weight:
            merged[-1].text += piece.text
        else:
            merged.append(piece)
    return merged
