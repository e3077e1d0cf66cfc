"""Text for people: safe names, and sizes in words."""

from __future__ import annotations


def printable(text: str) -> str:
    """Replace every character that could steer a terminal: names in a file are anybody's."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def size(count: int) -> str:
    """Format a number of bytes."""
    if count < 10**7:
        return f"{count:,} bytes"
    return f"{count / 1e9:,.2f} GB" if count >= 10**9 else f"{count / 1e6:,.1f} MB"
