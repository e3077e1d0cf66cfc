"""Measure memory and time of converting and merging, beside the largest tensor and a script that loads everything.

    python benchmarks/bench_convert.py [CHECKPOINT] [--folder FOLDER] [--only convert|merge] [--plain PLAIN]

CHECKPOINT is a depth checkpoint in one file, at full size for the figures that count (tools/random_checkpoint.py makes
one); without it a random one of about 1 GB is made. What it is merged with has 4 input channels: PLAIN (the same tool
with --plain), or CHECKPOINT's own tensors without those for depth. FOLDER, the system's temporary one by default, needs
room for five times its size; all that is written there is removed.

Every row is a process of its own. "Memory" is the growth of the peak resident size over what the process had after its
imports (VmHWM, reset by /proc/self/clear_refs), mapped pages of files included; "of it mapped" is how much of the
resident size was such pages at their most (RssFile, sampled every 5 ms): the converter maps nothing, loading with
safetensors does. The bound is 1.3 times the largest tensor group: a tensor in the result with what it is made of; of a
merge that is the tensor once for each model, since the result is computed in the place of A's. Linux only. Writes
benchmarks/results/convert.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import record
import torch
from safetensors.torch import load_file, save_file

from depth2img.checkpoints import convert, merge, open_model
from depth2img.checkpoints.conversion import lazy_list, write_single_file
from depth2img.checkpoints.layout import keys
from depth2img.checkpoints.layout.key_map import DPT_HYBRID
from depth2img.checkpoints.layout.keys import INPUT
from depth2img.checkpoints.layout.ldm_yaml import SD2, text_config
from depth2img.checkpoints.model import WEIGHTS, ToLdm
from depth2img.checkpoints.storage.opening import open_checkpoint
from depth2img.checkpoints.storage.tensors import Lazy, selected
from depth2img.checkpoints.storage.writing import write_safetensors

BOUND = 1.3


# --- what is measured, each in a process of its own -------------------------------------------------------------------


def in_memory(source: Path, target: Path) -> None:
    """Convert a folder to a file with everything in memory, as a short script does."""
    parts = {name: load_file(source / name / f"{stem}.safetensors") for name, stem in WEIGHTS.items()}
    table = open_model(source).key_map
    state = {pair.ldm: pair.to_ldm([parts[pair.component][name] for name in pair.names]) for pair in table}
    save_file({name: value.contiguous() for name, value in state.items()}, target)


TASKS: dict[str, Callable[[list[Path], Path], object]] = {
    "file -> folder": lambda given, target: convert(given[0], target),
    "folder -> file": lambda given, target: convert(given[0], target),
    "folder -> file, in memory": lambda given, target: in_memory(given[0], target),
    "sharded folder -> file": lambda given, target: convert(given[0], target),
    "pickle -> file, half": lambda given, target: convert(given[0], target, half=True),
    "file -> file, half": lambda given, target: convert(given[0], target, half=True),
    "merge: weighted sum": lambda given, target: merge(*given[:2], target, multiplier=0.5),
    "merge: add difference": lambda given, target: merge(*given[:2], target, tertiary=given[2], multiplier=0.5),
}


def status() -> dict[str, int]:
    """Read the kB lines of /proc/self/status."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {words[0][:-1]: int(words[1]) for words in lines if words[-1] == "kB"}


def measured(task: str, given: list[Path], target: Path) -> None:
    """Run a task and print its time and memory, as JSON."""
    Path("/proc/self/clear_refs").write_text("5")
    before, mapped, stop = status(), 0, threading.Event()

    def watch() -> None:
        nonlocal mapped
        while not stop.wait(0.005):
            mapped = max(mapped, status()["RssFile"] - before["RssFile"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    TASKS[task](given, target)
    seconds = time.perf_counter() - start
    stop.set()
    watcher.join()
    peak = status()["VmHWM"] - before["VmRSS"]
    print(json.dumps({"peak": peak * 1024, "mapped": mapped * 1024, "seconds": seconds}))


def run(task: str, *given: Path, target: Path) -> dict[str, Any]:
    """`measured` in a new process."""
    command = [sys.executable, __file__, "--task", task, "--target", str(target), *map(str, given)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values


# --- what it is measured on -------------------------------------------------------------------------------------------


def random_checkpoint(path: Path) -> None:
    """Write a depth checkpoint in float32, narrower than Stable Diffusion 2, with random weights."""
    config = dataclasses.replace(
        SD2,
        unet={
            **SD2.unet,
            "block_out_channels": [128, 256, 512, 512],
            "attention_head_dim": [2, 4, 8, 8],
            "cross_attention_dim": 512,
        },
        vae={**SD2.vae, "block_out_channels": [64, 128, 256, 256]},
        text_encoder=text_config(width=512, heads=8, layers=23),
        depth_estimator=dict(DPT_HYBRID),
    )
    wanted = config.required()
    lazies = [Lazy(name, torch.float32, shape, partial(torch.rand, shape)) for name, shape in wanted.items()]
    write_single_file(path, lazies, config, {})


def shard(folder: Path) -> None:
    """Split the UNet of a folder into three files with an index, as diffusers does."""
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = open_checkpoint(whole)
    names, table = list(tensors.keys()), {}
    for number in range(3):
        name = f"diffusion_pytorch_model-0000{number + 1}-of-00003.safetensors"
        part = names[number::3]
        write_safetensors(whole.with_name(name), lazy_list(selected(tensors, part.__contains__)), {})
        table |= dict.fromkeys(part, name)
    whole.unlink()
    whole.with_name(f"{whole.name}.index.json").write_text(json.dumps({"weight_map": table}))


def pickled(source: Path, target: Path) -> None:
    """Rewrite the file as a PyTorch pickle; it is held in memory as a whole."""
    torch.save({"state_dict": load_file(source)}, target)
    if source.with_suffix(".yaml").exists():
        shutil.copy(source.with_suffix(".yaml"), target.with_suffix(".yaml"))


def largest(path: Path, halves: bool = False) -> tuple[int, int]:
    """Return the bytes of the largest tensor of a file's single-file view, without and with its inputs."""
    model = open_model(path)
    sizes = []
    for lazy in lazy_list(ToLdm(model.parts, model.key_map)):
        sizes.append((lazy.size // 2, lazy.size // 2 + lazy.size) if halves else (lazy.size, lazy.size))
    return max(size for size, _ in sizes), max(group for _, group in sizes)


def without_depth(source: Path, target: Path) -> None:
    """Write the weights as a checkpoint with 4 input channels."""
    tensors = open_checkpoint(source)
    cut = {z.key: z for z in lazy_list(tensors) if not z.key.startswith(keys.DEPTH)}
    convolution = cut[INPUT]
    shape = (convolution.shape[0], 4, *convolution.shape[2:])
    cut[INPUT] = dataclasses.replace(convolution, shape=shape, make=lambda: convolution.make()[:, :4])
    write_safetensors(target, list(cut.values()), {"format": "pt"})


def rows(source: Path, folder: Path, only: str | None, plain: Path | None) -> list[dict[str, Any]]:
    """Measure all rows; every result is removed as soon as nothing needs it."""
    found: list[dict[str, Any]] = []
    size = source.stat().st_size
    tensor, group = largest(source)

    def row(task: str, *given: Path, target: Path, bound: int) -> None:
        values = run(task, *given, target=target)
        found.append({"task": task, "tensor": tensor, "group": bound, "bytes": size, **values})
        one = found[-1]
        print(
            f"{task:27} {one['peak'] / 1e6:9,.0f} MB {one['mapped'] / 1e6:9,.0f} MB"
            f" {one['peak'] / (BOUND * bound):9.2f} {one['peak'] / size:10.3f} {one['seconds']:8.1f} s",
            flush=True,
        )

    print(f"{source.name}: {size / 1e9:.2f} GB, largest tensor {tensor / 1e6:.0f} MB")
    print(f"{'':27} {'memory':>12} {'of it mapped':>12} {'of bound':>9} {'of file':>10} {'time':>10}")
    if only != "merge":
        diffusers, again = folder / "folder", folder / "again.safetensors"
        row("file -> folder", source, target=diffusers, bound=group)
        row("folder -> file", diffusers, target=again, bound=group)
        again.unlink()
        row("folder -> file, in memory", diffusers, target=again, bound=group)
        again.unlink()
        shard(diffusers)
        row("sharded folder -> file", diffusers, target=again, bound=group)
        shutil.rmtree(diffusers)
        again.unlink()
        half = largest(source, halves=True)[1]
        row("file -> file, half", source, target=folder / "half.safetensors", bound=half)
        pickled(source, folder / "pickled.ckpt")
        row("pickle -> file, half", folder / "pickled.ckpt", target=folder / "half.safetensors", bound=half)
        (folder / "half.safetensors").unlink()
        (folder / "pickled.ckpt").unlink()
    if only != "convert":
        if plain is None:
            without_depth(source, folder / "plain.safetensors")
            plain = folder / "plain.safetensors"
        merged = folder / "merged.safetensors"
        row("merge: weighted sum", source, plain, target=merged, bound=2 * group)
        row("merge: add difference", source, plain, plain, target=merged, bound=3 * group)
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("given", nargs="*", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", choices=["convert", "merge"])
    parser.add_argument("--plain", type=Path)
    parser.add_argument("--task", choices=list(TASKS), help=argparse.SUPPRESS)
    parser.add_argument("--target", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not Path("/proc/self/clear_refs").exists():
        sys.exit("The peak of the resident size can be reset on Linux only.")
    if args.task:
        measured(args.task, args.given, args.target)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        if not args.given:
            random_checkpoint(folder / "random.safetensors")
        source = args.given[0] if args.given else folder / "random.safetensors"
        found = rows(source, folder, args.only, args.plain)
    peaks = {one["task"]: one["peak"] for one in found}
    ratios = {}
    if args.only != "merge":
        ratios["in memory / tensor by tensor"] = peaks[IN_MEMORY] / peaks[STREAMED]
        print(f"in memory / tensor by tensor: {peaks[IN_MEMORY] / peaks[STREAMED]:.1f} times the memory")
    print("wanted: no row but that in memory above 1.00 of its bound")
    record.write("convert" if args.only is None else f"convert-{args.only}", {"rows": found, "ratios": ratios})


IN_MEMORY, STREAMED = "folder -> file, in memory", "folder -> file"

if __name__ == "__main__":
    main()
