"""`make gpu`, small on the CPU: every check runs there, and neither a failure nor the time's end loses a row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu.report import Found, Report

ROOT = Path(__file__).resolve().parents[2]


def bench(out: Path, seconds: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(out), "--device", "cpu", "--seconds", str(seconds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "--without", "compiled"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )


def test_every_check_is_passed_on_the_cpu(tmp_path: Path) -> None:
    done = bench(tmp_path / "gpu.json", 500)
    written = json.loads((tmp_path / "gpu.json").read_text())
    states = {row["name"]: (row["state"], row["text"]) for row in written["rows"]}
    assert done.returncode == 0, states
    assert written["card"] == "no card" and written["torch"]
    assert {state for state, _ in states.values()} == {"ok"}
    rates = [row["data"] for row in written["rows"] if row["name"].startswith("engine, ")]
    assert len(rates) == 2 and all(one["over diffusers"] > 0 and one["memory over diffusers"] > 0 for one in rates[::2])
    assert "engine, 2 at a time" in done.stdout and "no card" in done.stdout


def test_the_time_s_end_is_a_row_and_an_exit_code(tmp_path: Path) -> None:
    done = bench(tmp_path / "gpu.json", 0.5)
    assert done.returncode == 1
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert rows[-1]["state"] == "left out"  # by the clock or, where the imports took longer, by the last check
    assert {row["state"] for row in rows[:-1]} <= {"ok", "left out"}


BLOCKED = """
import signal, sys, time
from pathlib import Path
from benchmarks.gpu.report import Found, Report

def block():  # as a kernel does that never returns: no signal reaches Python
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(60)

report = Report(Path(sys.argv[1]), {}, 4, begun=time.monotonic())
report.check("one", 0, lambda: Found("fine"))
report.check("blocks", 0, block)
"""


def test_a_check_that_blocks_loses_no_row(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(out)], cwd=ROOT, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 1, done.stderr
    assert [(row["name"], row["state"]) for row in json.loads(out.read_text())["rows"]] == [
        ("one", "ok"),
        ("the rest", "left out"),
    ]


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return Report(tmp_path / "report.json", {"card": "none"}, 60, begun=time.monotonic())


def states(report: Report) -> dict[str, str]:
    return {row["name"]: row["state"] for row in json.loads(report.out.read_text())["rows"]}


def test_a_failing_check_is_a_row_and_the_next_one_runs(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> Found:
        raise RuntimeError("CUDA error: an illegal thing\nand more")

    report.check("one", 0, fail)
    report.check("two", 0, lambda: Found("fine"))
    report.check("three", 0, lambda: Found("too slow", good=False))
    report.check("four", 1000, lambda: Found("never"))
    assert states(report) == {"one": "failed", "two": "ok", "three": "missed", "four": "left out"}
    failed = json.loads(report.out.read_text())["rows"][0]
    assert failed["text"] == "RuntimeError: CUDA error: an illegal thing"
    assert "in fail" in failed["data"]["traceback"]
    assert report.end() == 1
    assert "failed: RuntimeError" in capsys.readouterr().out


def test_a_check_that_hangs_is_cut_off(tmp_path: Path) -> None:
    report = Report(tmp_path / "report.json", {}, 4, begun=time.monotonic())
    report.check("hangs", 0, lambda: time.sleep(60) or Found(""))
    assert report.rows[-1].state == "failed" and report.rows[-1].text.startswith("TimeUpError")
    assert report.rows[-1].seconds < 5
    report.end()
