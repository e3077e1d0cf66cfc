"""Run checks within a fixed time, and write a table after each of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SLACK, MORE = 3.0, 10.0
"""Limit of a check's time: this factor times the expected seconds, plus these seconds."""


class TimeUpError(Exception):
    """A check has used up its time."""


@dataclass(frozen=True)
class Found:
    """Result of a check.

    Attributes:
        text: for the table.
        data: for the JSON.
        good: whether it is as promised.
    """

    text: str
    data: Mapping[str, Any] = field(default_factory=dict)
    good: bool = True


@dataclass(frozen=True)
class Row:
    """One row; `state` is ok, missed, failed or left out."""

    name: str
    state: str
    text: str
    seconds: float
    data: Mapping[str, Any] = field(default_factory=dict)


class Report:
    """The table so far.

    Args:
        out: the JSON file, rewritten after each row.
        head: what it was measured on.
        seconds: until the process ends, whatever it is doing.
        begun: from when they are counted, in `time.monotonic`.
        scale: factor of the seconds that a check is expected to take.
    """

    def __init__(self, out: Path, head: Mapping[str, Any], seconds: float, *, begun: float, scale: float = 1.0) -> None:
        self.out, self.head, self.rows = out, dict(head), list[Row]()
        self.scale = scale
        self.begun, self.deadline = begun, begun + seconds
        self._watch = threading.Timer(self.left, self._stop)
        self._watch.daemon = True
        self._watch.start()
        self.write()

    @property
    def left(self) -> float:
        """Return the seconds until the end."""
        return self.deadline - time.monotonic()

    def check(self, name: str, expected: float, call: Callable[[], Found]) -> None:
        """Run a check and add its row; if it fails, the row says why, and the next check still runs.

        Args:
            name: of the row.
            expected: seconds on a card; with fewer left it is left out.
            call: the check.
        """
        begun = time.monotonic()
        expected *= self.scale
        try:
            if self.left < expected + 2:
                found, state = Found(f"{self.left:.0f} s left, {expected:.0f} s needed"), "left out"
            else:
                with limited(min(SLACK * expected / self.scale + MORE, self.left - 1)):
                    found = call()
                state = "ok" if found.good else "missed"
        except Exception as problem:
            lines = str(problem).strip().splitlines() or [""]
            found = Found(f"{type(problem).__name__}: {lines[0][:150]}", {"traceback": traceback.format_exc()})
            state = "failed"
            traceback.print_exc()
        self.add(Row(name, state, found.text, round(time.monotonic() - begun, 2), found.data))

    def add(self, row: Row) -> None:
        """Print a row and write the JSON with it."""
        self.rows.append(row)
        print(self.line(row), flush=True)
        self.write()

    @staticmethod
    def line(row: Row) -> str:
        """Format a row."""
        state = "" if row.state == "ok" else f"{row.state}: "
        return f"{row.name:<44} {row.seconds:6.1f} s  {state}{row.text}"

    def write(self) -> None:
        """Write the JSON atomically."""
        head = {**self.head, "seconds": round(time.monotonic() - self.begun, 1)}
        part = self.out.with_name(self.out.name + ".part")
        part.write_text(json.dumps({**head, "rows": [asdict(row) for row in self.rows]}, indent=1, default=str) + "\n")
        part.replace(self.out)

    def end(self) -> int:
        """Print the table; return the exit code, 1 if a row is not ok."""
        self._watch.cancel()
        self.write()
        print("\n" + "\n".join(f"{name}: {value}" for name, value in self.head.items()))
        print("\n".join(map(self.line, self.rows)), flush=True)
        return int(any(row.state != "ok" for row in self.rows))

    def _stop(self) -> None:
        self.rows.append(Row("the rest", "left out", "the time is up", 0.0))
        self.end()
        sys.stdout.flush()
        os._exit(1)


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `TimeUpError` in a block that takes longer; running kernels are not interrupted."""

    def stop(*_: object) -> None:
        raise TimeUpError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
