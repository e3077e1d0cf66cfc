"""The hover view to pass on: a page that needs nothing else, a loop as a film, a stereo pair.

What can be chosen is listed here, where it costs no import.
"""

from __future__ import annotations

from typing import Final

FILMS: Final = (".gif", ".mp4", ".webm")
"""Suffixes of films."""

MOVEMENTS: Final = (0.0, 2.0)
"""Range of the movement."""

STEREO: Final = {
    "side-by-side": "the left eye's picture on the left, for viewers and parallel eyes",
    "cross-eyed": "the left eye's picture on the right, for crossed eyes",
    "anaglyph": "both in one picture, for red-cyan glasses (red on the left)",
}
"""Kind of stereo pair -> what it is."""
