"""The guides say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import depth2img
from depth2img.diffusion.settings import SETTINGS
from depth2img.options import OPTIONS
from tests.library.test_boundary import FLOORS
from tools import options_table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_options_table_is_current():
    text = options_table.GUIDE.read_text(encoding="utf-8")
    assert options_table.renewed(text) == text, "run: python -m tools.options_table"


@pytest.mark.parametrize("options", [OPTIONS, SETTINGS], ids=["options", "settings"])
def test_options_table_has_every_option(options):
    table = options_table.table(options.values())
    for name, option in options.items():
        (row,) = [line for line in table.splitlines() if f"| `{name}` |" in line]
        assert option.label in row
        assert option.help in row


def test_the_two_commands_come_first():
    start = README[: README.index("## ")]
    assert re.search(r"^make demo\b", start, re.MULTILINE)
    assert re.search(r"^make test\b", start, re.MULTILINE)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_links_lead_somewhere(guide):
    for target in re.findall(r"\]\(([^)\s]+)\)|<img[^>]+src=\"([^\"]+)\"", guide.read_text(encoding="utf-8")):
        link, _, section = "".join(target).partition("#")
        if "://" in link:
            continue
        path = guide.parent / link if link else guide
        assert path.exists(), f"{guide.name}: {link}"
        assert not section or section in sections(path), f"{guide.name}: {link}#{section}"


def sections(guide: Path) -> list[str]:
    """The anchors of a guide's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", guide.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_make_targets_that_guides_name_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for guide in GUIDES:
        text = guide.read_text(encoding="utf-8")
        named = set(re.findall(r"`make ([a-z]+)", text)) | set(re.findall(r"^make ([a-z]+)", text, re.MULTILINE))
        assert named <= targets, guide.name


def test_messages_in_the_troubleshooting_exist():
    """Of the extension's own messages, each quoted part must be somewhere in the sources."""
    sources = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("depth2img", "depth2img_webui")
        for path in sorted((ROOT / folder).rglob("*.py"))
    )
    # Adjacent string literals are one message; placeholders stand where the guide has an ellipsis.
    sources = re.sub(r'"\s*\n\s*f?"', "", sources)
    sources = re.sub(r"\{[^{}]*\}", "…", sources)
    guide = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    table = guide[guide.index("| the extension says |") :]
    rows = [line for line in table[: table.index("\n\n")].splitlines()[2:]]
    assert len(rows) > 5
    for row in rows:
        message = re.match(r"\| `([^`]+)`", row)
        assert message, row
        assert message[1] in sources, f"no such message: {message[1]}"


def test_contributing_shows_the_plan_that_the_code_has():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`.+?) \|", text[: text.index("| next to it |")], re.MULTILINE)
    shown = [name.removesuffix("/").removesuffix(".py") for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    assert shown == FLOORS


def test_one_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", depth2img.__version__)
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in pyproject
    assert depth2img.__version__ not in pyproject


def test_changelog_has_an_entry_for_now():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## Unreleased" in text or f"## {depth2img.__version__}" in text
