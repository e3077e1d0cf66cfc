"""`depth2img batch --ray` on a local Ray: the same files, one process killed in the middle of it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depth2img.batch import item_seed
from depth2img.batch.cluster import room_on
from depth2img.checkpoints import to_single_file
from tests.engine import small

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'sd-webui-depth2img[ray]'"
)

ITEMS = 10
QUICK = ("-p", "a red box", "--steps", "4", "-s", "1", "--threads", "1", "--batch-size", "2", "--json")
PATIENCE = 600
"""Seconds, on a machine that does much else; alone it takes less than thirty."""

MAIN = "from depth2img.cli import main; main()"
ROOT = Path(__file__).parents[2]


def start(
    folder: Path, *arguments: object, main: str = MAIN, path: tuple[Path, ...] = (ROOT,)
) -> subprocess.Popen[str]:
    """The command in a process of its own, so that whatever it starts can be found and counted."""
    there = os.pathsep.join(map(str, path))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": there, "RAY_TMPDIR": "/tmp"}
    return subprocess.Popen(
        [sys.executable, "-c", main, "batch", *map(str, arguments)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def children(pid: int) -> set[int]:
    """All processes below one, from /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while True:
        more = {one for one, parent in parents.items() if parent in found} - found
        if not more:
            return found - {pid}
        found |= more


def alive(pids: set[int]) -> set[int]:
    """Those that still run."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.add(pid)
    return found


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    to_single_file(small.model(midas=False), tmp_path / "small.safetensors")
    (tmp_path / "in").mkdir()
    for seed in range(ITEMS):
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
        Image.fromarray(coarse).resize((96, 64), Image.Resampling.BICUBIC).save(tmp_path / "in" / f"{seed}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("machine", "cpus", "gpus", "room"),
    [
        ({"CPU": 8.0}, 3, 0, 2),
        ({"CPU": 2.0}, 3, 0, 0),
        ({"CPU": 8.0}, 1, 1, 0),
        ({"CPU": 8.0, "GPU": 2.0}, 1, 1, 2),
        ({"CPU": 8.0, "GPU": 2.0}, 1, 0.4, 4),
        ({"CPU": 64.0, "GPU": 1.0}, 1, 0.1, 10),
        ({"CPU": 3.0, "GPU": 2.0}, 1, 0.5, 3),
        ({"CPU": 8.0, "GPU": 3.0}, 1, 2, 1),
    ],
)
def test_room_for_workers(machine: dict[str, float], cpus: int, gpus: float, room: int) -> None:
    assert room_on(machine, cpus, gpus) == room


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_the_same_files_although_a_worker_is_killed(workplace: Path) -> None:
    given = ("-m", "small.safetensors", *QUICK)
    local = start(workplace, "in", "here", *given)
    said = local.communicate(timeout=PATIENCE)[1]
    assert local.returncode == 0, said
    run = start(workplace, "in", "there", *given, "--ray", "local", "--workers", "2")
    killed: int | None = None
    started: set[int] = set()
    until = time.monotonic() + PATIENCE
    try:
        while run.poll() is None and time.monotonic() < until:
            started |= children(run.pid)
            records = [*(workplace / "there" / ".depth2img").glob("[0-9]*.json")]
            if records and killed is None:
                killed = int(json.loads(records[0].read_bytes())["worker"].rpartition("/")[2])
                assert killed in started, "a worker is a process of the run"
                os.kill(killed, signal.SIGKILL)
            time.sleep(0.1)
    finally:
        if run.poll() is None:
            run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=30)
    assert run.returncode == 0, err
    assert killed is not None
    assert json.loads(out)["made"] == ITEMS
    for seed in range(ITEMS):
        name = f"{seed}.png"
        assert (workplace / "here" / name).read_bytes() == (workplace / "there" / name).read_bytes()
    rows = [json.loads(line) for line in (workplace / "there" / "results.jsonl").read_text().splitlines()]
    assert [row["settings"]["seed"] for row in rows] == [item_seed(0, str(seed)) for seed in range(ITEMS)]
    assert len({row["worker"] for row in rows}) >= 2, "another process went on"
    until = time.monotonic() + 60
    while alive(started) and time.monotonic() < until:
        time.sleep(0.2)
    assert not alive(started), "Ray and its workers end with the run"


DEADLY = """
import os, signal, sys

def watch(event, arguments):
    if event == "open" and str(arguments[0]).endswith("3.png") and "default_worker.py" in sys.argv[0]:
        with open(os.environ["DEATHS"], "a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
"""
"""As `sitecustomize.py`: whatever process of Ray's reads that picture is killed by it, as by a fault in a decoder."""

IMPATIENT = "from depth2img.batch import cluster; cluster.RETRIES = 1; " + MAIN


@pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")
def test_an_item_that_kills_every_worker_is_left_out(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends, everything else is there, its neighbour in the group too, and the next run keeps that."""
    (workplace / "site").mkdir()
    (workplace / "site" / "sitecustomize.py").write_text(DEADLY)
    monkeypatch.setenv("DEATHS", str(workplace / "deaths"))
    given = ("in", "there", "-m", "small.safetensors", *QUICK, "--ray", "local", "--workers", "1")
    run = start(workplace, *given, main=IMPATIENT, path=(ROOT, workplace / "site"))
    try:
        out, err = run.communicate(timeout=PATIENCE)
    finally:
        run.kill()
    assert run.returncode == 1, err
    assert (workplace / "deaths").read_text() == "xx", "once with its neighbour, and once alone"
    summary = json.loads(out)
    assert summary["made"] == ITEMS - 1
    assert [(one["name"], one["status"]) for one in summary["failed"]] == [("3", "failed")]
    assert "died" in summary["failed"][0]["error"]
    assert sorted(path.stem for path in (workplace / "there").glob("*.png")) == [*"012456789"]
    rows = [json.loads(line) for line in (workplace / "there" / "results.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["failed" if seed == 3 else "done" for seed in range(ITEMS)]
    again = start(workplace, *given[:-4])
    out, err = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, err
    assert (json.loads(out)["made"], json.loads(out)["kept"]) == (1, ITEMS - 1)
