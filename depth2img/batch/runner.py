"""Carry out a plan here or on a cluster, report progress, and list the results."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..depth.hints import counted
from ..io.atomic import refusing, write_file
from .plan import Plan, Record, Work, describe
from .worker import Order, Worker

RESULTS: Final = "results.jsonl"
"""Name of the list of all items in the folder of results."""

Executor = Callable[[Order, Sequence[Sequence[Work]]], Iterable[Sequence[Record]]]
"""Makes groups and gives their records as they come, in any order."""

Tell = Callable[[int, int, int], None]
"""Called with the items made or failed in this run, those in all that it has to make, and the failed ones."""


@dataclass(frozen=True)
class Summary:
    """The outcome of a run.

    Attributes:
        made: items that this run finished.
        kept: items that were already finished.
        failed: records of those that failed, in this run or in its plan.
        seconds: from the first group on, loading included.
        results: the list of all items.
        notices: what is noteworthy about the depth maps of the items that this run made; see `hints.counted`.
    """

    made: int
    kept: int
    failed: Sequence[Record]
    seconds: float
    results: Path
    notices: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {**dataclasses.asdict(self), "seconds": round(self.seconds, 1), "results": str(self.results)}

    def lines(self) -> list[str]:
        """Return everything as lines of text."""
        rate = f" ({self.made / self.seconds:.3g} a second)" if self.made and self.seconds else ""
        kept = f", {self.kept} already finished" if self.kept else ""
        lines = [f"{self.made} made in {duration(self.seconds)}{rate}{kept}, {len(self.failed)} failed: {self.results}"]
        lines += [f"  {one['name']}: {one['error']}" for one in self.failed[:20]]
        return lines + ([f"  and {len(self.failed) - 20} more"] if len(self.failed) > 20 else [])


def duration(seconds: float) -> str:
    """Format a duration: `42 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def here(order: Order, groups: Sequence[Sequence[Work]]) -> Iterable[Sequence[Record]]:
    """Make groups one by one, with one model in this process."""
    worker = Worker(order)
    for group in groups:
        yield worker.run(group)


def run(plan: Plan, order: Order, executor: Executor = here, *, tell: Tell | None = None) -> Summary:
    """Carry out a plan.

    The list of results is written at the end, also of a run that is interrupted.

    Args:
        plan: from `make_plan`, for the same folder.
        order: what holds for all.
        executor: where it runs; see `here` and `cluster.on_ray`.
        tell: see `Tell`.

    Raises:
        Depth2ImgError: the model cannot be opened, or the folder cannot be written.
    """
    with refusing(f"The folder {order.out} cannot be created."):
        order.out.mkdir(parents=True, exist_ok=True)
    order = dataclasses.replace(order, anchor=plan.anchor)
    begun = time.perf_counter()
    new: dict[str, Record] = {}
    bad = 0
    complete = False
    try:
        if plan.groups:
            for records in executor(order, plan.groups):
                new.update((record["name"], record) for record in records)
                bad += sum(record["status"] != "done" for record in records)
                if tell is not None:
                    tell(len(new), plan.pending, bad)
        complete = True
    finally:
        path = _list(plan, order, new, complete=complete)
    failed = [one for one in (*plan.failed.values(), *new.values()) if one["status"] != "done"]
    made = sum(one["status"] == "done" for one in new.values())
    own = [(one["name"], one.get("notices", {})) for one in new.values() if one["options"].get("depth_map")]
    return Summary(made, len(plan.done), failed, time.perf_counter() - begun, path, counted(own))


def _list(plan: Plan, order: Order, new: dict[str, Record], *, complete: bool) -> Path:
    known = {**plan.done, **plan.failed, **new}
    if complete:
        for work in (work for group in plan.groups for work in group if work.item.name not in known):
            lost = "The process that made it died repeatedly."
            record = describe(work.item, order.out, order.suffix, status="failed", error=lost)
            known[work.item.name] = new[work.item.name] = record
    rows = [known.get(item.name) or describe(item, order.out, order.suffix, status="pending") for item in plan.items]
    path = order.out / RESULTS
    write_file(path, "".join(f"{json.dumps(row)}\n" for row in rows).encode(), what="The list of results")
    return path
