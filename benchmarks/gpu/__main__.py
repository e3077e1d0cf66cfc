"""Measure a card in a few minutes, or try the same small on the CPU.

    python -m benchmarks.gpu --out FILE.json [--seconds N] [--device cuda|cpu]

Prints a line after each check and the table at the end. What a check finds is in the JSON after it, so that nothing is
lost where the time ends. "missed" is a row that is not as promised, "failed" one that could not be made, "left out" one
for which there was no time.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from . import BEGUN, correct, measure, speed
from .bench import Bench
from .report import Report, Row


def run(bench: Bench, report: Report) -> None:
    """List all checks, the most important first."""
    half = bench.dtype if bench.device.type == "cuda" else torch.float32
    report.check("product of two matrices", 3, lambda: speed.product(bench))
    report.check(f"model, {name_of(half)}", 12, lambda: correct.generates(bench, half))
    report.check("operations of a step", 5, lambda: speed.operations(bench))
    speed.beside_diffusers(bench, report)
    speed.steps(bench, report)
    speed.tuned(bench, report)
    report.check("conditioning beside the CPU's", 6, lambda: correct.depth(bench))
    report.check("estimation of a picture", 3, lambda: correct.estimation(bench))
    report.check("autoencoder", 3, lambda: correct.autoencoder(bench))
    report.check("bundled model beside the CPU's", 6, lambda: correct.bundled(bench))
    report.check("inpainting", 3, lambda: correct.inpaint(bench))
    report.check("hires pass", 4, lambda: correct.hires(bench))
    report.check("schedules of depth", 6, lambda: correct.schedules(bench))
    if bench.device.type == "cuda":
        report.check("step: cuDNN's attention", 4, lambda: speed.other_kernels(bench, speed.cudnn_attention()))
        report.check("step: torch's flash attention", 4, lambda: speed.other_kernels(bench, speed.flash_attention()))
        report.check("step: cuDNN tries kernels", 8, lambda: speed.other_kernels(bench, speed.cudnn_tries()))
    report.check("model, bfloat16", 10, lambda: correct.generates(bench, torch.bfloat16))
    report.check("low memory", 10, lambda: correct.low_memory(bench))


def libraries() -> None:
    """Import what the checks need."""
    import diffusers
    import transformers

    for module, names in (
        (diffusers, "AutoencoderKL UNet2DConditionModel StableDiffusionDepth2ImgPipeline DDIMScheduler"),
        (transformers, "CLIPTextModel CLIPTokenizer DPTForDepthEstimation DPTImageProcessor BitBackbone"),
    ):
        for name in names.split():
            getattr(module, name)


def name_of(dtype: torch.dtype) -> str:
    """Return the name of a type."""
    return str(dtype).removeprefix("torch.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, print, write."""
    parser = argparse.ArgumentParser(description="Check and measure the engine on a graphics card.")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--seconds", type=float, default=200.0, help="until the process ends, whatever it is doing")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--without", choices=("compiled",), help="leave out what takes minutes on a CPU")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    device = torch.device(given.device)
    scale = 1.0 if given.device == "cuda" else 0.25  # there the model is small
    report = Report(given.out, {"device": given.device}, given.seconds, begun=BEGUN, scale=scale)
    # Not as a check, which may be cut off: half an import is none that could be tried again.
    libraries()
    report.head.update(measure.head(device))
    report.add(Row("libraries are loaded", "ok", str(report.head["card"]), round(time.monotonic() - BEGUN, 1)))
    bench = Bench.on(device)
    with torch.no_grad():
        run(bench, report)
        if given.without != "compiled":
            speed.compiled(bench, report)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
