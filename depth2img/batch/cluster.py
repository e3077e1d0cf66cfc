"""Runs on Ray Data: a pool of actors with one model each, fed with groups of items.

Ray Data places the actors, queues groups until one is free, restarts dead actors and reassigns their groups. It knows
groups only: the item of a group that kills its workers is found by making the items one by one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import pickle
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..errors import Depth2ImgError, OptionError
from .plan import Record, Work, finished
from .worker import Order, Worker

LOCAL: Final = "local"
"""Address of a Ray that lives as long as the run."""

OBJECT_STORE: Final = 128 * 1024 * 1024
"""Bytes of a local Ray's object store: names and records are sent through it, never pictures."""

ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_worker_niceness": "0",  # else a local Ray's workers yield to everything else on the machine
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # as releases to come; without it Ray warns that they will
}
"""Environment of a Ray that is started here; variables that the user has set are kept."""

SLACK: Final = 1e-6
"""Tolerance of rounding: 1 / 0.1 is ten, not 9.999..."""

RETRIES: Final = 3
"""Attempts at an item alone, after the actor of its group died, for lack of memory or with its machine."""

DEADLY: Final = Depth2ImgError(
    "Every worker that took this item died, also with this item alone.",
    fix="Check that its files are complete and the machine has enough memory; Ray's own logs say more.",
)


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and the share of it that a worker takes.

    Attributes:
        address: `local`, `auto` (the cluster that this machine belongs to) or `host:port`.
        workers: models at once; None is as many as the cluster has room for.
        gpus: of each worker, fractions too; None is 1 where the cluster has some, else 0.
    """

    address: str = LOCAL
    workers: int | None = None
    gpus: float | None = None


def on_ray(cluster: Cluster, order: Order, groups: Sequence[Sequence[Work]]) -> Iterable[Sequence[Record]]:
    """Run groups on Ray, and yield their records as they are made; see `runner.Executor`.

    Raises:
        OptionError: the cluster cannot be reached, or has no room for one worker.
        Depth2ImgError: the model cannot be opened.
        ModuleNotFoundError: Ray is not installed.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray
    import ray.data

    with contextlib.redirect_stdout(sys.stderr):  # Ray reports dead workers on stdout, which is the command's own
        yield from _run(ray, cluster, order, groups)


def _run(ray: Any, cluster: Cluster, order: Order, groups: Sequence[Sequence[Work]]) -> Iterable[Sequence[Record]]:
    _quiet(ray)
    local = cluster.address == LOCAL
    try:
        more: dict[str, Any] = {"object_store_memory": OBJECT_STORE, "include_dashboard": False} if local else {}
        ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR, **more)
    except (ConnectionError, ValueError, RuntimeError) as problem:
        raise OptionError(
            "ray",
            f"There is no Ray cluster at '{cluster.address}'.",
            got=str(problem).strip().splitlines()[0][:120] if str(problem).strip() else type(problem).__name__,
            fix="Start one with `ray start --head`, name another address, or give --ray alone for one on this machine.",
        ) from problem
    try:
        yield from _records(ray, cluster, order, groups)
    finally:
        ray.shutdown()


def _quiet(ray: Any) -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # failures are in the records


def _records(ray: Any, cluster: Cluster, order: Order, groups: Sequence[Sequence[Work]]) -> Iterable[Sequence[Record]]:
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    there = {kind: sum(one.get(kind, 0.0) for one in machines) for kind in ("CPU", "GPU")}
    gpus = cluster.gpus if cluster.gpus is not None else float(order.device != "cpu" and there["GPU"] > 0)
    cpus = 1 if gpus else order.threads
    room = sum(room_on(machine, cpus, gpus) for machine in machines)
    if room < 1:
        raise OptionError(
            "ray",
            f"The cluster has no room for a worker with {cpus} CPUs and {gpus:g} GPUs.",
            got=f"{len(machines)} machines with {there['CPU']:g} CPUs and {there['GPU']:g} GPUs in all",
            fix="Choose fewer --threads or a smaller --gpus-per-worker.",
        )
    if not gpus and order.device == "auto":
        order = dataclasses.replace(order, device="cpu")  # a worker that was assigned no GPU must not use one
    workers = min(cluster.workers or room, room, len(groups))
    rows = [{"group": pickle.dumps([*group])} for group in groups]
    tries = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Tries).remote(RETRIES)
    made = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Actor,
        batch_size=1,
        # One at a time, so that no group spends its attempts on the death of another's worker.
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        num_cpus=cpus,
        num_gpus=gpus,
        max_restarts=-1,
        max_task_retries=1 + RETRIES * max(map(len, groups)),
        fn_constructor_args=(order, tries),
    )
    try:
        for row in made.iter_rows():
            yield json.loads(row["records"])
    except ray.exceptions.RayError as problem:
        cause = getattr(problem, "cause", None)
        if isinstance(cause, Depth2ImgError):
            raise cause from problem
        raise Depth2ImgError(
            "The run on Ray stopped.",
            got=str(problem).strip().splitlines()[-1][:200],
            fix="Run the same command again to continue; Ray's own logs say more.",
        ) from problem


def room_on(machine: Mapping[str, float], cpus: int, gpus: float) -> int:
    """Count the workers that fit on a machine; a fraction of a GPU is a fraction of one card.

    Args:
        machine: Ray's resources of it, by kind.
        cpus, gpus: of a worker.
    """
    room = int(machine.get("CPU", 0) / cpus)
    if gpus:
        cards = machine.get("GPU", 0)
        room = min(room, int(cards) * int(1 / gpus + SLACK) if gpus < 1 else int(cards / gpus))
    return room


class Tries:
    """Counter of attempts at each item in this run, shared by all actors of a pool.

    Args:
        retries: attempts at an item alone.
    """

    def __init__(self, retries: int) -> None:
        self._retries, self._count = retries, Counter[str]()

    def begin(self, names: Sequence[str]) -> bool:
        """Return whether these may be tried together: items that were never begun, or one that has attempts left."""
        most = self._retries if len(names) == 1 else 0
        if any(self._count[name] > most for name in names):
            return False
        self._count.update(names)
        return True


class Actor:
    """The actor that Ray Data starts in each process of its pool.

    Args:
        order: see `Order`.
        tries: handle of the `Tries` of this run.
    """

    def __init__(self, order: Order, tries: Any) -> None:
        self._order, self._worker, self._tries = order, Worker(order), tries

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make the items of a batch of groups, and return their records."""
        return {"records": [json.dumps(self._made(pickle.loads(group))) for group in batch["group"]]}

    def _made(self, works: Sequence[Work]) -> list[Record]:
        if self._begin(works):
            return self._worker.run(works)
        return [record for work in works for record in self._alone(work)]

    def _alone(self, work: Work) -> list[Record]:
        earlier = finished(work, self._order.out, self._order.suffix)  # before the group's next item killed its worker
        if earlier is not None:
            return [earlier]
        return self._worker.run([work]) if self._begin([work]) else [self._worker.failure(work, DEADLY)]

    def _begin(self, works: Sequence[Work]) -> bool:
        import ray

        return bool(ray.get(self._tries.begin.remote([work.item.name for work in works])))
