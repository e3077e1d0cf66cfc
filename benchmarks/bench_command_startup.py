"""Measure how long commands take to start, as ratios to `import torch` on the same machine.

    python benchmarks/bench_command_startup.py

Processor seconds of one thread, the least of several runs each: other programs delay a start, but do not add to it.
Writes benchmarks/results/command-startup.json.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import record

RUNS = 3
ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "depth2img" / "embedded" / "sample" / "scene.png"
TINY = ROOT / "depth2img" / "embedded" / "depth2img-tiny.safetensors"


def seconds(arguments: list[str], folder: str) -> float:
    """Return the processor seconds of one run of Python."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, check=False, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure in turns, print, write."""
    command = ["-m", "depth2img"]
    cases = {
        "import torch": ["-c", "import torch"],
        "--help": [*command, "--help"],
        "checkpoint inspect": [*command, "checkpoint", "inspect", str(TINY)],
        "estimate": [*command, "estimate", str(SAMPLE)],
        "generate, 1 step": [*command, "generate", str(SAMPLE), "--steps", "1"],
    }
    found: dict[str, list[float]] = {name: [] for name in cases}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(RUNS):
            for name, arguments in cases.items():
                found[name].append(seconds(arguments, folder))
    least = {name: min(values) for name, values in found.items()}
    ratios = {name: value / least["import torch"] for name, value in least.items()}
    for name, value in least.items():
        print(f"{name:20} {value:6.2f} s  {ratios[name]:5.2f} x import torch")
    record.write("command-startup", {"seconds": found, "ratios": ratios})


if __name__ == "__main__":
    main()
