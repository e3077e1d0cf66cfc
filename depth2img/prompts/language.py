"""A prompt and a negative prompt, read: parts that are joined by AND, extra networks, comments."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ..errors import OptionError
from .schedule import Scheduled, schedule

LONGEST: Final = 20_000
"""Characters of a prompt: some 60 chunks. Beyond that nothing but a mistake was ever seen."""

MOST_PARTS: Final = 32
"""Parts joined by AND; each is one more run of the UNet at every step."""

COMMENT: Final = re.compile(r"(?:^|\n)#[^\n]*(?:\n|$)")
COMMENT_WITHIN: Final = re.compile(r"#[^\n]*(?:\n|$)")
NETWORK: Final = re.compile(r"<(\w+):([^>]+)>")
AND: Final = re.compile(r"\bAND\b")
WEIGHT: Final = re.compile(r"[-+]?(?:[0-9]+\.?|[0-9]*\.[0-9]+)")

MOST: Final = 100.0
"""Multiplier of a LoRA, up or down."""

LORA: Final = ("lora", "lyco")
"""Names of extra networks that are LoRAs."""


@dataclass(frozen=True)
class Lora:
    """A LoRA that a prompt asks for: `<lora:name>`, `<lora:name:0.8>`, `<lora:name:te=0.5:unet=1>`.

    Attributes:
        name: its file's name without the suffix, or the name that it was trained under.
        text: multiplier in the text encoder.
        unet: multiplier in the UNet.
    """

    name: str
    text: float = 1.0
    unet: float = 1.0


@dataclass(frozen=True)
class Part:
    """One part of a prompt, and its weight beside the other parts."""

    texts: Scheduled
    weight: float = 1.0


@dataclass(frozen=True)
class Prompt:
    """Meaning of a prompt and a negative prompt in one pass.

    Attributes:
        parts: of the prompt, in order; at least one.
        negative: the negative prompt, in which AND is a word.
    """

    parts: tuple[Part, ...]
    negative: Scheduled


def without_comments(text: str) -> str:
    """Cut `#` and what follows it on its line, as the WebUI does before anything else."""
    return COMMENT_WITHIN.sub("\n", COMMENT.sub("\n", text))


def take_networks(text: str) -> tuple[str, tuple[Lora, ...]]:
    """Take extra networks out of a prompt: the text without them, and the LoRAs.

    Raises:
        OptionError: it is of a kind that is not known, or its numbers are not numbers.
    """
    found: list[Lora] = []

    def take(match: re.Match[str]) -> str:
        if match[1] not in LORA:
            raise OptionError(
                "prompt", "Of extra networks only LoRAs are known.", got=f"'{match[0][:80]}'", fix="Take it out."
            )
        found.append(_lora(match[2]))
        return ""

    return NETWORK.sub(take, text), tuple(found)


def read_prompt(prompt: str, negative: str, steps: int, hires_steps: int | None = None) -> Prompt:
    """Read a prompt and a negative prompt, in which extra networks are text, as in the WebUI.

    Args:
        prompt: as the user wrote it.
        negative: likewise.
        steps, hires_steps: see `schedule.schedule`.

    Raises:
        OptionError: it is too long, has too many parts or brackets, or asks for what is not known.
    """
    for name, text in (("prompt", prompt), ("negative_prompt", negative)):
        if len(text) > LONGEST:
            raise OptionError(name, f"A prompt may have {LONGEST} characters.", got=str(len(text)), fix="Shorten it.")
    text, _ = take_networks(without_comments(prompt))
    parts = [_part(one, steps, hires_steps) for one in AND.split(text)]
    if len(parts) > MOST_PARTS:
        raise OptionError("prompt", f"AND may join {MOST_PARTS} parts.", got=str(len(parts)), fix="Leave some out.")
    return Prompt(tuple(parts), schedule(without_comments(negative), steps, hires_steps))


def _part(text: str, steps: int, hires_steps: int | None) -> Part:
    """Read `text` or `text : weight`."""
    before, colon, number = text.rpartition(":")
    number = number.strip()
    if colon and WEIGHT.fullmatch(number):
        return Part(schedule(before.rstrip(), steps, hires_steps), float(number))
    return Part(schedule(text.rstrip(), steps, hires_steps))


def _lora(text: str) -> Lora:
    """Read `name:text:unet`, the numbers also as `te=`, `unet=`."""
    plain: list[str] = []
    named: dict[str, str] = {}
    for item in text.split(":"):
        key, equals, value = item.partition("=")
        if equals:
            named[key] = value
        else:
            plain.append(item)
    if not plain or len(plain) > 3 or set(named) - {"te", "unet"}:
        raise _refused(text)
    try:
        of_text = float(named.get("te", plain[1] if len(plain) > 1 else 1.0))
        of_unet = float(named.get("unet", plain[2] if len(plain) > 2 else of_text))
    except ValueError as problem:
        raise _refused(text) from problem
    if not abs(of_text) <= MOST or not abs(of_unet) <= MOST:
        raise _refused(text)
    return Lora(plain[0], of_text, of_unet)


def _refused(text: str) -> OptionError:
    return OptionError(
        "prompt",
        "A LoRA in a prompt is written <lora:name:0.8>, or <lora:name:te=0.5:unet=1>.",
        got=f"'<lora:{text[:80]}>'",
        fix=f"Multipliers are numbers from -{MOST:g} to {MOST:g}.",
    )
