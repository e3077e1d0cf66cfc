"""Depth Anything and DPT on DINOv2, in the published sizes with random weights: transformers' values, and its time.

    python benchmarks/bench_estimators.py [small base large]
    PYTHONPATH=FOLDER python benchmarks/bench_estimators.py    # after pip install --no-deps --target FOLDER timm==0.9.2

Both see the same pixel values and take turns; the smallest of the times counts. One line a model: largest difference
between the two maps, range of the map, ratio of our time to transformers', ratio of the time until the first map (files
to map) to that of transformers. Writes benchmarks/results/estimators.json.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import record  # noqa: E402

from depth2img.estimators import files  # noqa: E402
from tests import depth_models as random_models  # noqa: E402

SIZES: dict[str, tuple[int, int, int, int, tuple[int, ...]]] = {
    # width, blocks, heads, fused, the head's channels
    "small": (384, 12, 6, 64, (48, 96, 192, 384)),
    "base": (768, 12, 12, 128, (96, 192, 384, 768)),
    "large": (1024, 24, 16, 256, (256, 512, 1024, 1024)),
}
KINDS = ("V1", "V2", "V2 metric", "DPT")
SIDE = 252
"""The processor's size: a quarter of the published 518's time; the grid of 37 x 37 positions is interpolated."""

ROUNDS = 2


def network(kind: str, size: str) -> Any:
    """Make transformers' network."""
    import transformers

    width, blocks, heads, fused, channels = SIZES[size]
    quarters = [blocks // 4 * step for step in (1, 2, 3, 4)]
    taken = {"V1": [blocks - 3, blocks - 2, blocks - 1, blocks], "DPT": quarters}.get(
        kind, [5, 12, 18, 24] if size == "large" else quarters
    )
    backbone = transformers.Dinov2Config(
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        image_size=518,
        out_indices=taken,
        apply_layernorm=kind != "DPT",
        reshape_hidden_states=False,
    )
    head = {"neck_hidden_sizes": list(channels), "backbone_config": backbone}
    if kind == "DPT":
        config = transformers.DPTConfig(**head, fusion_hidden_size=256, add_projection=True)
        made = transformers.DPTForDepthEstimation(config)
    else:
        sense = {"depth_estimation_type": "metric", "max_depth": 20} if kind == "V2 metric" else {}
        sizes = {"fusion_hidden_size": fused, "reassemble_hidden_size": width, "head_hidden_size": 32}
        made = transformers.DepthAnythingForDepthEstimation(transformers.DepthAnythingConfig(**head, **sizes, **sense))
    random_models.seed(made)
    (made.head.head[4] if kind == "DPT" else made.head.conv3).bias.data += 2  # else the last ReLU may leave nothing
    return made.eval().requires_grad_(False)


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """Run once; return the result and the seconds."""
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def measure(kind: str, size: str, folder: Path) -> dict[str, Any]:
    """Compare one model; return the cells of its line."""
    theirs = network(kind, size)
    theirs.save_pretrained(str(folder), safe_serialization=True)
    processor = {**random_models.PROCESSORS["depth_anything"], "size": {"height": SIDE, "width": SIDE}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf8")
    picture = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)
    ours, opening = timed(lambda: files.open_estimator(folder, device="cpu", name=kind))
    _, their_opening = timed(lambda: type(theirs).from_pretrained(str(folder)))
    pixels = ours._pixels(picture)
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    with torch.no_grad():
        for _ in range(ROUNDS):
            mine, seconds = timed(lambda: ours._map(pixels, (400, 600)))
            times["ours"].append(seconds)
            wanted, seconds = timed(lambda: theirs(pixels).predicted_depth[0])
            times["theirs"].append(seconds)
    return {
        "model": kind,
        "size": size,
        "timm": timm.__version__,
        "map": f"{mine.shape[0]} x {mine.shape[1]}",
        "largest difference": float((mine - wanted).abs().max()),
        "range": float(wanted.max() - wanted.min()),
        "time": min(times["ours"]) / min(times["theirs"]),
        "time to first map": (opening + min(times["ours"])) / (their_opening + min(times["theirs"])),
    }


def main() -> None:
    """Measure the sizes that are named, or small and base."""
    warnings.simplefilter("ignore")
    rows = []
    for size in sys.argv[1:] or ("small", "base"):
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure(kind, size, Path(folder)))
            if len(rows) == 1:
                print("|", *(f"{name} |" for name in rows[0]), "\n|", *(["--- |"] * len(rows[0])))
            print("|", *(f"{value:.2g} |" if isinstance(value, float) else f"{value} |" for value in rows[-1].values()))
    ratios = {f"{row['model']} {row['size']} / transformers": row["time"] for row in rows}
    record.write("estimators", {"rows": rows, "ratios": ratios})


if __name__ == "__main__":
    main()
