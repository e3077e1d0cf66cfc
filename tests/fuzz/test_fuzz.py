"""The fuzzer's targets on their corpus and on what fuzzing has found, and a few seconds of fuzzing itself."""

from __future__ import annotations

import importlib.util
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz import fuzz, targets

SECONDS = 3


@pytest.fixture(autouse=True, scope="module")
def _clean() -> Iterator[None]:
    yield
    targets.close()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", targets.TARGETS)
def test_seeds_are_read_and_their_ruins_refused(name: str) -> None:
    chance = random.Random(7)
    for content in targets.seeds(name):
        targets.TARGETS[name](content) if name not in REFUSED else targets.run(name, content)
        for _ in range(20):
            changed = bytearray(content)
            for _ in range(chance.randint(1, 4)):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
            targets.run(name, bytes(changed[: chance.randint(1, len(changed))]))


REFUSED = ("depth_map", "distances", "payload", "options", "script")
"""Targets whose seeds are not all meant to be read: colour pictures, pictures given twice,
txt2img without depth."""


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed (Linux, x86-64 only)")
@pytest.mark.parametrize("name", ["depth_map", "script"])
def test_a_few_seconds_of_fuzzing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "WORK", tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    executions, edges, _, findings = fuzz.fuzz(name, SECONDS)
    assert not findings, (tmp_path / f"{name}.log").read_text(errors="replace")[-3000:]
    assert executions > 20 and edges > 50
    assert not [*(tmp_path / "temporary").iterdir()], "workers leave nothing behind"


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed (Linux, x86-64 only)")
def test_a_crash_is_a_finding_and_leaves_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "WORK", tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(targets, "seeds", lambda name: [b"a"])
    (tmp_path / "temporary").mkdir()
    *_, findings = fuzz.fuzz("none", SECONDS)  # no such target: the worker fails at once
    assert [path.parent.name for path in findings] == ["none"]
    assert not [*(tmp_path / "temporary").iterdir()]
