"""Prompt editing and alternation: which text a prompt stands for at each step.

    [before:after:when]   [after:when]   [before::when]   [one|other|...]

`when` is a step, or with a decimal point a fraction of all steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from ..errors import OptionError

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

DEEPEST: Final = 100
"""Brackets that may be open at once; nobody writes so many, and each costs a level of recursion."""

GRAMMAR: Final = r"""
prompt: _item*
_item: TEXT | COLON | BAR | LOOSE | round | square
round: "(" _item* ")"
square: "[" _item* "]"

COLON: ":"
BAR: "|"
TEXT: /(\\.|[^\\()\[\]:|])+/
%declare LOOSE
"""
"""Brackets, and what separates their parts; what a bracket means is decided by its parts. LALR, hence linear time."""

WHEN: Final = re.compile(r"\s*([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)\s*")
CLOSES: Final = {"RPAR": "LPAR", "RSQB": "LSQB"}

At = Callable[[int], str]
"""Step, from 1 -> text."""


@dataclass(frozen=True)
class Scheduled:
    """A prompt as texts that follow one another.

    Attributes:
        ends: last step of each text, rising; steps count calls of the UNet from 0, and one equal to `ends[i]` still has
            text i, as in the WebUI.
        texts: one for each; equal neighbours are possible.
    """

    ends: tuple[int, ...]
    texts: tuple[str, ...]

    def index(self, step: int) -> int:
        """Return which text a step has; after the last end it is the first one again, as in the WebUI."""
        return next((index for index, end in enumerate(self.ends) if step <= end), 0)


def schedule(prompt: str, steps: int, hires_steps: int | None = None) -> Scheduled:
    """Split a prompt into the texts of its steps.

    What is not well formed is text: unbalanced brackets, and a whole prompt with a `|` or a backslash out of place.

    Args:
        prompt: without comments and extra networks.
        steps: calls of the UNet in the first pass, at denoising strength 1.
        hires_steps: likewise in the hires pass, if the texts of that one are wanted: there, whole numbers go on
            counting where the first pass ends, and fractions are 1 to 2.

    Raises:
        OptionError: brackets are nested too deeply.
    """
    from lark.exceptions import LarkError

    first = 0 if hires_steps is None else steps
    clock = _Clock(steps if hires_steps is None else hires_steps, first, 0.0 if hires_steps is None else 1.0)
    plain = Scheduled((clock.steps,), (prompt,))
    if "[" not in prompt:
        return plain
    try:
        tree = _parser().parse(prompt)
    except LarkError:  # a backslash before nothing or a line break
        return plain
    reader = _Reader(clock)
    text = reader.inside(tree.children)
    if reader.misplaced_bar:
        return plain
    ends = tuple(sorted({clock.steps, *reader.ends}))
    return Scheduled(ends, tuple(text(end) for end in ends))


@dataclass(frozen=True)
class _Clock:
    steps: int
    first: int
    fraction: float

    def step(self, when: str) -> int:
        """Return the step that a number stands for."""
        value = float(when)
        value = (value - self.fraction) * self.steps if "." in when else value - self.first
        return self.steps if value >= self.steps else int(max(value, 0.0))


class _Reader:
    """Decides what the brackets of a prompt mean.

    Attributes:
        ends: steps after which the text may change.
        misplaced_bar: a `|` stands outside of an alternation.
    """

    def __init__(self, clock: _Clock) -> None:
        self.clock = clock
        self.ends: set[int] = set()
        self.misplaced_bar = False

    def inside(self, items: Sequence[Any]) -> At:
        """Read what may hold anything, separators included."""
        self._notice_bars(items)
        return _joined([self._item(item)[0] for item in items])

    def _item(self, item: Token | Tree[Token]) -> tuple[At, bool]:
        """Return an item's text, and whether it may be a part of a schedule."""
        if isinstance(item, str):
            return _constant(item), _kind(item) == "TEXT"
        read = [self._item(child) for child in item.children]
        return self._round(item.children, read) if item.data == "round" else self._square(item.children, read)

    def _round(self, items: Sequence[Any], read: Sequence[tuple[At, bool]]) -> tuple[At, bool]:
        colons = sum(_kind(item) == "COLON" for item in items)
        good = colons <= 1 and all(fit or _kind(item) == "COLON" for item, (_, fit) in _both(items, read))
        self._notice_bars(items)
        return _joined([_constant("("), *(at for at, _ in read), _constant(")")]), good

    def _square(self, items: Sequence[Any], read: Sequence[tuple[At, bool]]) -> tuple[At, bool]:
        marks = {_kind(item) for item in items} & {"COLON", "BAR"}
        fits = all(fit or _kind(item) in marks for item, (_, fit) in _both(items, read))
        if fits and marks == {"BAR"}:
            parts = [_joined(part) for part in _split(items, read, "BAR")]
            self.ends.update(range(1, self.clock.steps + 1))
            return lambda step: parts[(step - 1) % len(parts)](step), True
        if fits and marks == {"COLON"}:
            found = self._edited(items, read)
            if found is not None:
                return found, True
        self._notice_bars(items)
        return _joined([_constant("["), *(at for at, _ in read), _constant("]")]), fits and not marks

    def _edited(self, items: Sequence[Any], read: Sequence[tuple[At, bool]]) -> At | None:
        """Read `[before:after:when]`; None if it is not one."""
        parts = list(_split(items, read, "COLON"))
        number = WHEN.fullmatch(str(items[-1])) if _kind(items[-1]) == "TEXT" else None
        if number is None or len(parts) > 3 or len(parts[-1]) != 1:
            return None
        before, after = ([], parts[0]) if len(parts) == 2 else (parts[0], parts[1])
        when = self.clock.step(number[1])
        if when >= 1:
            self.ends.add(when)
        texts = _joined(before), _joined(after)
        return lambda step: texts[step > when](step)

    def _notice_bars(self, items: Sequence[Any]) -> None:
        self.misplaced_bar = self.misplaced_bar or any(_kind(item) == "BAR" for item in items)


def _kind(item: Any) -> str:
    """Return the type of a token; empty for a pair of brackets."""
    return str(getattr(item, "type", ""))


def _constant(text: str) -> At:
    return lambda step: text


def _joined(parts: Sequence[At]) -> At:
    return lambda step: "".join(part(step) for part in parts)


def _both(items: Sequence[Any], read: Sequence[tuple[At, bool]]) -> Iterator[tuple[Any, tuple[At, bool]]]:
    return zip(items, read, strict=True)


def _split(items: Sequence[Any], read: Sequence[tuple[At, bool]], mark: str) -> Iterator[list[At]]:
    """Yield what stands between the marks."""
    part: list[At] = []
    for item, (at, _) in _both(items, read):
        if _kind(item) == mark:
            yield part
            part = []
        else:
            part.append(at)
    yield part


class Balanced:
    """Filter of the lexer's tokens that marks brackets without a partner, so that parsing cannot fail for want of one.

    Between the two brackets of a pair there are only whole pairs.
    """

    always_accept: tuple[str, ...] = ()

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        """Yield the tokens, brackets without a partner as LOOSE.

        Raises:
            OptionError: brackets are nested too deeply.
        """
        tokens = list(stream)
        open_ones: list[int] = []
        paired: set[int] = set()
        for index, token in enumerate(tokens):
            if token.type in CLOSES.values():
                open_ones.append(index)
            elif token.type in CLOSES:
                if open_ones and tokens[open_ones[-1]].type == CLOSES[token.type]:
                    paired |= {open_ones.pop(), index}
                else:
                    open_ones.clear()
        self._check_depth(tokens, paired)
        for index, token in enumerate(tokens):
            if index not in paired and (token.type in CLOSES or token.type in CLOSES.values()):
                token = token.update(type="LOOSE")
            yield token

    @staticmethod
    def _check_depth(tokens: Sequence[Token], paired: set[int]) -> None:
        depth = 0
        for index in sorted(paired):
            depth += 1 if tokens[index].type in CLOSES.values() else -1
            if depth > DEEPEST:
                raise OptionError(
                    "prompt", f"More than {DEEPEST} brackets are open at once in a prompt.", fix="Leave some out."
                )


@lru_cache(maxsize=1)
def _parser() -> Lark:
    from lark import Lark

    return Lark(GRAMMAR, parser="lalr", lexer="basic", start="prompt", postlex=Balanced())
