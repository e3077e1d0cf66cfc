"""Folders of pictures: batch sizes against one by one, against diffusers' own pipeline, and against itself on Ray.

    python benchmarks/bench_batch.py [--items 16] [--steps 10] [--rounds 3] [--no-ray]

Everything in one run, in turns, on the bundled model: the least seconds of several rounds, since a run is only ever
delayed by what else the machine does. Prints items a second and ratios, and writes benchmarks/results/batch.json.

- "command per picture" is `depth2img generate` started for each, with its imports and its loading;
- "diffusers" is `StableDiffusionDepth2ImgPipeline` around the same networks, with the depth maps given to it, so that
  it estimates none, and without writing files: what is left is encoding, sampling and decoding;
- on Ray the rate is taken from the first finished group to the last, so that starting Ray and loading do not count.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from PIL import Image

from depth2img.batch import Order, Sources, find_items, make_plan
from depth2img.batch.worker import Worker
from depth2img.checkpoints.layout.tokenizer import token_ids
from depth2img.cli.demo import load_sample
from depth2img.diffusion import Engine, Settings
from depth2img.diffusion.sampling import make_scheduler
from depth2img.options import DepthOptions

ROOT = Path(__file__).resolve().parents[1]
BATCH_SIZES = (1, 2, 4, 8)
COMMANDS = 2
"""Pictures for the measurement of the command; more would only take longer."""

MAIN = "from depth2img.cli import main; main()"


class Bench:
    """One folder of pictures of one size, one model."""

    def __init__(self, folder: Path, *, items: int, steps: int) -> None:
        sample = load_sample()
        self.folder, self.items = folder, items
        self.settings = Settings(prompt=sample.prompts["other"], steps=steps, denoising_strength=1.0)
        self.pictures = folder / "in"
        self.pictures.mkdir()
        for index in range(items):
            turned = Image.fromarray(sample.picture).rotate(index, Image.Resampling.BICUBIC)
            turned.save(self.pictures / f"{index:03}.png")
        self.engine = Engine.open()
        self.outs = itertools.count()

    def one_by_one(self) -> int:
        """Run the engine, a picture at a time, and write the results."""
        out = self._out()
        for path in sorted(self.pictures.iterdir()):
            self.engine._cache.clear()
            [result] = self.engine.generate([path], self.settings)
            Image.fromarray(result.picture).save(out / path.name)
        return self.items

    def batched(self, size: int) -> int:
        """Run a worker after its model is loaded: read, estimate, sample, write pictures and records."""
        out = self._out()
        found = find_items(Sources(self.pictures), self.settings, DepthOptions())
        plan = make_plan(found.items, out, suffix=".png", batch_size=size, model="tiny", dtype="auto")
        order = Order(out, ".png", "tiny", "cpu", "auto", size, torch.get_num_threads())
        worker = Worker(order, self.engine)
        self.engine._cache.clear()
        for group in plan.groups:
            assert all(one["status"] == "done" for one in worker.run(group))
        return self.items

    def commands(self) -> int:
        """Start `depth2img generate` for each picture."""
        for path in sorted(self.pictures.iterdir())[:COMMANDS]:
            self._command("generate", path, "-o", self._out())
        return COMMANDS

    def diffusers(self, size: int) -> int:
        """Run diffusers' own pipeline on the same weights."""
        pipe, networks = self._pipeline, self.engine.networks
        paths = sorted(self.pictures.iterdir())
        with torch.no_grad():
            texts = (self.settings.prompt, "")
            states = [networks.text_encoder(token_ids([text])).last_hidden_state for text in texts]
            for begin in range(0, self.items, size):
                part = [Image.open(path) for path in paths[begin : begin + size]]
                pipe(
                    image=part,
                    prompt_embeds=states[0].repeat(len(part), 1, 1),
                    negative_prompt_embeds=states[1].repeat(len(part), 1, 1),
                    depth_map=self._maps[begin : begin + size],
                    strength=1.0,
                    num_inference_steps=self.settings.steps,
                    guidance_scale=networks.cfg_scale,
                    generator=[torch.Generator().manual_seed(seed) for seed in range(len(part))],
                    output_type="np",
                )
        return self.items

    def ray(self, workers: int) -> float:
        """Measure items per second of single-threaded workers, between the first finished group and the last."""
        out = self._out()
        self._command(
            *("batch", self.pictures, out, "--batch-size", 2, "--threads", 1, "--ray", "local", "--workers", workers)
        )
        times = sorted(path.stat().st_mtime for path in (out / ".depth2img").glob("*.json"))
        begun = times[2 * workers - 1]  # every worker has finished one group
        return sum(one > begun for one in times) / (times[-1] - begun)

    def prepare(self) -> None:
        """Make the input for diffusers, once."""
        from diffusers import StableDiffusionDepth2ImgPipeline
        from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

        networks = self.engine.networks
        small = DPTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=1, backbone_out_indices=[0, 0, 0, 0])
        self._pipeline: Any = StableDiffusionDepth2ImgPipeline(
            vae=networks.vae,
            text_encoder=networks.text_encoder,
            tokenizer=None,
            unet=networks.unet,
            scheduler=make_scheduler(networks, "ddim"),
            depth_estimator=DPTForDepthEstimation(small),  # never run: the maps are given
            feature_extractor=DPTImageProcessor(),
        )
        self._pipeline.set_progress_bar_config(disable=True)
        pictures = [np.asarray(Image.open(path)) for path in sorted(self.pictures.iterdir())]
        self._maps = torch.from_numpy(np.stack([self.engine.estimate(one).values for one in pictures]))

    def _out(self) -> Path:
        out = self.folder / f"out-{next(self.outs)}"
        out.mkdir()
        return out

    def _command(self, *arguments: object) -> None:
        given = ["-p", self.settings.prompt, "--steps", self.settings.steps, "-s", 1]
        command = [sys.executable, "-c", MAIN, *map(str, (*arguments, *given))]
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": path})


def rate(call: Callable[[], int]) -> float:
    """Measure items per second of one call."""
    begun = time.perf_counter()
    count = call()
    return count / (time.perf_counter() - begun)


def peak_megabytes(size: int, folder: Path) -> float:
    """Measure the peak resident memory for one group of a size, in a process of its own since it never shrinks."""
    script = (
        "import resource, sys\nfrom pathlib import Path\n"
        "sys.path.insert(0, str(Path(sys.argv[2]) / 'benchmarks'))\n"
        "from bench_batch import Bench\n"
        "Bench(Path(sys.argv[1]), items=int(sys.argv[3]), steps=2).batched(int(sys.argv[3]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    folder.mkdir()
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(folder), str(ROOT), str(size)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    return int(done.stdout.split()[-1]) / 1024


def measure(bench: Bench, rounds: int) -> dict[str, float]:
    """Return items per second by name, the best of the rounds."""
    calls: dict[str, Callable[[], int]] = {
        "command per picture": bench.commands,
        "engine, one by one": bench.one_by_one,
        **{f"batch, {size} at a time": lambda size=size: bench.batched(size) for size in BATCH_SIZES},
        **{f"diffusers, {size} at a time": lambda size=size: bench.diffusers(size) for size in BATCH_SIZES},
    }
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name, call in calls.items():
            best[name] = max(best.get(name, 0.0), rate(call))
    return best


def ratios(rates: dict[str, float]) -> dict[str, float]:
    """List the ratios that are printed below the rates."""
    best = max(BATCH_SIZES, key=lambda size: rates[f"batch, {size} at a time"])
    table = {
        f"batch of {size} over batch of 1": rates[f"batch, {size} at a time"] / rates["batch, 1 at a time"]
        for size in BATCH_SIZES[1:]
    }
    table |= {
        f"batch over diffusers, {size} at a time": rates[f"batch, {size} at a time"]
        / rates[f"diffusers, {size} at a time"]
        for size in BATCH_SIZES
    }
    table["batch of 1 over engine, one by one"] = rates["batch, 1 at a time"] / rates["engine, one by one"]
    table[f"batch of {best} over command per picture"] = (
        rates[f"batch, {best} at a time"] / rates["command per picture"]
    )
    if "ray, 2 workers" in rates:
        table["2 workers over 1 on Ray"] = rates["ray, 2 workers"] / rates["ray, 1 worker"]
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Folders of pictures: items a second.")
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-ray", action="store_true")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), items=given.items, steps=given.steps)
        bench.prepare()
        bench.batched(2)  # everything has run once before anything is measured
        rates = measure(bench, given.rounds)
        if not given.no_ray:
            for workers in (1, 2):
                rates[f"ray, {workers} worker{'s' * (workers > 1)}"] = bench.ray(workers)
        memory = {str(size): peak_megabytes(size, Path(name) / f"memory-{size}") for size in (1, 8)}
    table = ratios(rates)
    print(f"{given.items} pictures of 128 x 128, {given.steps} steps, {torch.get_num_threads()} threads")
    for title, value in rates.items():
        print(f"  {title:<40} {value:8.3f} a second")
    for title, value in table.items():
        print(f"  {title:<40} {value:8.2f} x")
    for size, value in memory.items():
        print(f"  {f'peak memory, {size} at a time':<40} {value:8.0f} MB")
    setting = {"items": given.items, "steps": given.steps, "threads": torch.get_num_threads(), "cores": os.cpu_count()}
    record.write("batch", {"setting": setting, "rates": rates, "ratios": table, "peak megabytes": memory})


if __name__ == "__main__":
    main()
