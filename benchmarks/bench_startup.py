"""Measure the start of the real WebUI, page included, alternately with and without the extension.

    WEBUI_DIR=... WEBUI_PYTHON=... python benchmarks/bench_startup.py

Prints the seconds that the WebUI itself counts for loading scripts and making the page, the least of several starts
each (a start is only ever delayed by what else runs), and their difference. Writes benchmarks/results/startup.json.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "webui_real"))

import record  # noqa: E402
from host import running  # noqa: E402

STARTS = 5
STAGES = ("load scripts", "create ui", "gradio launch", "add APIs", "app_started_callback")


def stages(extension: bool) -> dict[str, float]:
    """Return the seconds of each stage of one start, as the WebUI reports them."""
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as checkpoints,  # of its own: the host walks through all that lies in it
        running(
            Path(folder) / "data",
            checkpoints=Path(checkpoints),
            checkpoint="none.safetensors",
            extension="depth2img" if extension else None,
            flags=("--skip-load-model-at-start",),
            interface=True,
            settled=False,
        ) as host,
    ):
        records: dict[str, float] = host.get("/internal/profile-startup")["records"]
        return {stage: records.get(stage, 0.0) for stage in STAGES}


def main() -> None:
    """Measure in turns, print, write."""
    if "WEBUI_DIR" not in os.environ:
        sys.exit("Set WEBUI_DIR and WEBUI_PYTHON to a WebUI 1.10.1 (see CONTRIBUTING.md).")
    totals: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(STARTS):
        for name, seconds in totals.items():
            seconds.append(sum(stages(name == "with").values()))
    gain = min(totals["with"]) - min(totals["without"])
    print(f"scripts and page: {min(totals['without']):.2f} s without, {min(totals['with']):.2f} s with the extension")
    print(f"the extension adds {gain:.2f} s  (wanted: at most 0.30)")
    ratios = {"with the extension / without": min(totals["with"]) / min(totals["without"])}
    record.write("startup", {"seconds": totals, "gain": gain, "ratios": ratios})


if __name__ == "__main__":
    main()
