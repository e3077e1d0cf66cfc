"""Read the commands in the guides, split as a shell does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HERE_DOCUMENT = re.compile(r"<<(\w+)\n.*?^\1$", re.MULTILINE | re.DOTALL)


def blocks(guide: Path, language: str) -> list[str]:
    """Return the fenced blocks of one language in a Markdown file, in order."""
    return [text for name, text in FENCE.findall(guide.read_text(encoding="utf-8")) if name == language]


def commands(guide: Path) -> list[list[str]]:
    """Return the command lines in the `sh` blocks of a Markdown file, as words.

    Comments and here-documents are left out; lines that end in a backslash are joined with the next.
    """
    found = []
    for block in blocks(guide, "sh"):
        for line in HERE_DOCUMENT.sub("", block).replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                found.append(words)
    return found
