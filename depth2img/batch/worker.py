"""One model that makes groups of items: loads, estimates, samples, writes."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..depth.depth_map import DepthMap, Span
from ..depth.hints import hints
from ..depth.masks import read_mask, read_region
from ..depth.reading import MapReader
from ..diffusion.engine import Engine
from ..diffusion.job import Generated, Job
from ..diffusion.library import Library
from ..diffusion.results import result_paths, save_result
from ..errors import Depth2ImgError
from ..io.atomic import refusing, remove_stale
from ..io.images import read_picture
from .items import Item
from .plan import Record, Work, describe, finished, record_path, target, write_record


@dataclass(frozen=True)
class Order:
    """The parameters that all items of a run share.

    Attributes:
        out: folder of results, absolute; on a cluster every machine sees it under this path.
        suffix: of the results, one of `files.PICTURE_KINDS`.
        model, device, dtype: as in `loader.load`.
        batch_size: rows of every pass of a network.
        threads: CPU threads of one model; sums are split by them, so results follow from their number in the last bits.
        library: folders of LoRAs and learned words, absolute, seen by every machine like `out`.
        anchor: the item whose depth says which range items share, where they do.
    """

    out: Path
    suffix: str
    model: str
    device: str
    dtype: str
    batch_size: int
    threads: int
    library: Library = dataclasses.field(default_factory=Library)
    anchor: Item | None = None


class Worker:
    """A model that is loaded once.

    Args:
        order: see `Order`.
        engine: its model, if it is loaded already.

    Raises:
        Depth2ImgError: the model cannot be opened.
    """

    def __init__(self, order: Order, engine: Engine | None = None) -> None:
        if not order.out.is_dir():
            raise Depth2ImgError(
                f"The output folder is not visible on {socket.gethostname()}.",
                got=str(order.out),
                fix="All machines of a cluster need the same storage under the same path.",
            )
        torch.set_num_threads(order.threads)
        self._order = order
        self._engine = engine or Engine.open(order.model, device=order.device, dtype=order.dtype, library=order.library)
        self._span: Span | None = None
        self._name = f"{socket.gethostname()}/{os.getpid()}"

    def run(self, works: Sequence[Work]) -> list[Record]:
        """Make items and write them, each completely or not at all, its record last.

        An item that fails says so in its record and affects no other. Items that are finished already, for instance by
        an earlier attempt at the same group, are not made again.

        Args:
            works: at most `batch_size` of one kind are made at once.

        Returns:
            A record each.
        """
        begun = time.perf_counter()
        order = self._order
        records: dict[str, Record] = {}
        jobs: list[tuple[Work, Job]] = []
        for work in works:
            earlier = finished(work, order.out, order.suffix)
            if earlier is not None:
                records[work.item.name] = earlier
                continue
            try:
                jobs.append((work, self._job(work.item)))
            except Exception as problem:
                records[work.item.name] = self.failure(work, problem)
        made = self._made(jobs)
        share = (time.perf_counter() - begun) / max(len(jobs), 1)
        for (work, job), result in zip(jobs, made, strict=True):
            if isinstance(result, Exception):
                records[work.item.name] = self.failure(work, result)
                continue
            try:
                records[work.item.name] = self._written(work, result, share, _noteworthy(job))
            except Exception as problem:
                records[work.item.name] = self.failure(work, problem)
        return [records[work.item.name] for work in works]

    def _job(self, item: Item) -> Job:
        """Read the files of an item, and make its job."""
        options = item.options
        given: dict[str, Any] = {
            "depth_map": options.depth_map and MapReader.of(options)(options.depth_map),
            "reference": options.reference and read_picture(options.reference),
            "region": options.region and read_region(options.region),
        }
        options = dataclasses.replace(options, **{name: value for name, value in given.items() if value is not None})
        job = Job(
            read_picture(item.picture), item.settings, options, None if item.mask is None else read_mask(item.mask)
        )
        self._engine.frame(job.picture, job.settings, mask=job.mask)  # what is wrong with it shows now, not in a group
        return job

    def _made(self, jobs: Sequence[tuple[Work, Job]]) -> list[Generated | Exception]:
        if not jobs:
            return []
        try:
            span = self._shared() if any(job.options.range == "shared" for _, job in jobs) else None
            return [*self._engine.run([job for _, job in jobs], rows=self._order.batch_size, span=span)]
        except Exception as problem:
            if len(jobs) == 1:
                return [problem]
        return [result for one in jobs for result in self._made([one])]

    def _shared(self) -> Span | None:
        if self._span is None and self._order.anchor is not None:
            self._span = self._engine.span_of(self._job(self._order.anchor), self._order.batch_size)
        return self._span

    def _written(self, work: Work, result: Generated, seconds: float, notices: Mapping[str, str]) -> Record:
        order = self._order
        path = target(order.out, work.item.name, order.suffix)
        with refusing(f"The folder {path.parent} cannot be created."):
            path.parent.mkdir(parents=True, exist_ok=True)
        if not path.parent.resolve().is_relative_to(order.out.resolve()):
            raise Depth2ImgError(
                "The result would lie outside the output folder.", got=str(path), fix="Remove the link."
            )
        for each in (*result_paths(path, work.item.options), record_path(order.out, work.item.name)):
            remove_stale(each)  # of a run that was killed here
        save_result(result, path, work.item.options)
        record = describe(
            work.item,
            order.out,
            order.suffix,
            status="done",
            model=order.model,
            score=None if result.fidelity is None else round(result.fidelity, 4),
            seconds=round(seconds, 3),
            worker=self._name,
            key=work.key,
            **({"notices": dict(notices)} if notices else {}),
        )
        write_record(record, order.out)
        return record

    def failure(self, work: Work, problem: Exception) -> Record:
        """Make the record of an item that failed."""
        error = str(problem) if isinstance(problem, Depth2ImgError) else f"{type(problem).__name__}: {problem}"
        return describe(
            work.item, self._order.out, self._order.suffix, status="failed", error=error[:2000], worker=self._name
        )


def _noteworthy(job: Job) -> dict[str, str]:
    """Say what is noteworthy about the depth map of a job's own, see `hints.hints`."""
    own = job.options.depth_map
    return hints(own, job.options) if isinstance(own, DepthMap) else {}
