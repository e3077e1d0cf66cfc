"""Measure conditioning at 512 x 512: the WebUI's code and ours, in one process of the real WebUI, same weights.

    WEBUI_DIR=... WEBUI_PYTHON=... python benchmarks/bench_conditioning.py [CHECKPOINT]

CHECKPOINT is a full-size depth checkpoint; without one a random one of that size is written first (2.9 GB). Prints
ratios: seconds depend on the machine, ratios hardly do. Writes benchmarks/results/conditioning.json.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "webui_real"))

import record  # noqa: E402
from host import running  # noqa: E402

RUNS = 3
TARGETS = {"cold, batch 1": 5, "cold, batch 4": 18, "warm, batch 1": 500}

MEASURE = """
import gc, resource, time
from modules.processing import StableDiffusionProcessingImg2Img as P
hook, maps = sys.modules["depth2img_webui.jobs.hook"], sys.modules["depth2img_webui.jobs.maps"]
midas = sys.modules["depth2img.estimators.midas"]
network = shared.sd_model.depth_model
generator = torch.Generator().manual_seed(7)

def source(batch):
    base = torch.rand(1, 3, 16, 16, generator=generator)
    picture = torch.nn.functional.interpolate(base, size=(512, 512), mode="bicubic").clamp(0, 1) * 2 - 1
    return picture.repeat(batch, 1, 1, 1)

def job(batch, ours):
    p = P(); p.batch_size = batch; p.width = p.height = 512; p.init_images = []
    if ours:
        hook.begin(p, ())
    return p

def seconds(call):
    gc.collect()
    started = time.perf_counter()
    with torch.no_grad():
        call()
    return time.perf_counter() - started

def conditioned(batch, ours, picture):
    p = job(batch, ours)
    latent = torch.zeros(batch, 4, 64, 64)
    return seconds(lambda: p.img2img_image_conditioning(picture, latent))

def bare(picture):
    array = maps.pictures_of(picture)[0]
    def call():
        network.forward(torch.from_numpy(midas.midas_input(array))[None])
    return seconds(call)

result = {}
conditioned(1, True, source(1))  # both paths have run once before anything is measured
conditioned(1, False, source(1))
for batch in (1, 4):
    native, cold, warm, forward = [], [], [], []
    for _ in range(RUNS if batch == 1 else 1):
        picture = source(batch)
        maps.CACHE.clear()
        cold.append(conditioned(batch, True, picture))
        warm += [conditioned(batch, True, picture) for _ in range(5)]
        forward.append(bare(picture))
        native.append(conditioned(batch, False, picture))
    result[batch] = {"native": native, "cold": cold, "warm": warm, "bare": forward}
"""

PEAK = """
import threading, time
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
def peak(call):
    seen, stop = [resident()], threading.Event()
    def watch():
        while not stop.wait(0.005):
            seen.append(resident())
    thread = threading.Thread(target=watch); thread.start()
    try:
        call()
    finally:
        stop.set(); thread.join()
    return max(seen) - seen[0]
maps.CACHE.clear()
result["peak"] = {
    "ours": peak(lambda: conditioned(4, True, source(4))), "native": peak(lambda: conditioned(4, False, source(4)))
}
"""


def measure(checkpoint: Path) -> dict[str, Any]:
    """Measure seconds and bytes in one WebUI process."""
    threads = {"OMP_NUM_THREADS": str(os.cpu_count())}
    with (
        tempfile.TemporaryDirectory() as folder,
        running(
            Path(folder) / "data", checkpoints=checkpoint.parent, checkpoint=checkpoint.name, environment=threads
        ) as host,
    ):
        return host.run(f"RUNS = {RUNS}\n{MEASURE}\n{PEAK}\nresult = {{str(k): v for k, v in result.items()}}")


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """List the printed ratios: the WebUI's time over ours, and ours over that of a bare forward pass."""
    middle = {batch: {name: statistics.median(runs) for name, runs in figures[batch].items()} for batch in ("1", "4")}
    return {
        "cold, batch 1": middle["1"]["native"] / middle["1"]["cold"],
        "cold, batch 4": middle["4"]["native"] / middle["4"]["cold"],
        "warm, batch 1": middle["1"]["native"] / middle["1"]["warm"],
        "cold over one bare forward": min(
            a / b for a, b in zip(figures["1"]["cold"], figures["1"]["bare"], strict=True)
        ),
        "peak memory over native": figures["peak"]["ours"] / max(figures["peak"]["native"], 1),
    }


def main() -> None:
    """Measure, print, write."""
    if "WEBUI_DIR" not in os.environ:
        sys.exit("Set WEBUI_DIR and WEBUI_PYTHON to a WebUI 1.10.1 (see CONTRIBUTING.md).")
    if len(sys.argv) > 1:
        checkpoint = Path(sys.argv[1]).resolve()
    else:
        checkpoint = ROOT / ".cache" / "full" / "random-full.safetensors"
        if not checkpoint.exists():
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            python = os.environ.get("WEBUI_PYTHON", sys.executable)
            tool = ROOT / "tools" / "random_checkpoint.py"
            subprocess.run([python, "-W", "ignore", str(tool), str(checkpoint), "--size", "full"], check=True)
    figures = measure(checkpoint)
    table = ratios(figures)
    for name, ratio in table.items():
        wanted = f"(wanted: at least {TARGETS[name]})" if name in TARGETS else "(wanted: at most 1.10)"
        print(f"{name:<28} {ratio:8.2f} x  {wanted}")
    record.write("conditioning", {"figures": figures, "ratios": table})


if __name__ == "__main__":
    main()
