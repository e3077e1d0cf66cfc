"""Measure speed and memory: the engine as built and tuned, and diffusers' own pipeline."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from depth2img.diffusion import levers

from . import measure
from .bench import Bench, Rival
from .report import Found, Report


def rate(bench: Bench, name: str, count: int, call: Callable[[], Any], rival: str = "diffusers") -> Found:
    """Measure pictures per second and peak memory of a call."""
    measure.clean(bench.device)
    taken = measure.seconds(call, bench.device, warm=1, times=2)
    peak = measure.peak(bench.device)
    bench.rates[name, count], bench.peaks[name, count] = count / taken, peak["reserved"]
    text = f"{count / taken:7.3f} pictures/s, {1000 * taken / bench.steps:7.1f} ms a step, {peak['reserved']:.2f} GB"
    data: dict[str, Any] = {"pictures/s": count / taken, "seconds": taken, "peak GB": peak, "steps": bench.steps}
    if name != rival and (rival, count) in bench.rates:
        data["over diffusers"] = bench.rates[name, count] / bench.rates[rival, count]
        data["memory over diffusers"] = bench.peaks[name, count] / bench.peaks[rival, count]
        text += f"; {data['over diffusers']:.2f} x diffusers, memory {data['memory over diffusers']:.2f} x"
    return Found(text, data)


def beside_diffusers(bench: Bench, report: Report) -> None:
    """Measure diffusers' pipeline, then the engine on the same networks without levers."""
    rivals: list[Rival] = []
    report.check("diffusers' pipeline is built", 5, lambda: rivals.append(Rival(bench)) or Found("shares the weights"))
    for count in (1, bench.most):
        report.check(
            f"diffusers, {count} at a time",
            3 + 0.8 * count,
            lambda count=count: rate(bench, "diffusers", count, rivals[0].call(count)),
        )
    for rival in rivals:
        rival.leave()
    rivals.clear()
    for count in (1, bench.most):
        report.check(
            f"engine as built, {count} at a time",
            3 + 0.8 * count,
            lambda count=count: rate(bench, "plain", count, bench.engine_call(count)),
        )


def steps(bench: Bench, report: Report) -> None:
    """Measure a step before and after the model is tuned as by the engine."""
    plain: dict[int, torch.Tensor] = {}

    def step(unet: Any) -> Found:
        texts, data = [], {}
        for count in (1, bench.most):
            call = bench.unet_call(unet, count)
            taken = measure.seconds(call, bench.device, warm=3, times=7)
            made = call().float()
            apart = float((made - plain.setdefault(count, made)).abs().max() / plain[count].abs().max())
            data[str(count)] = {"ms a step": 1000 * taken, "difference": apart}
            bench.found[f"step {count}"] = taken
            texts.append(f"{count}: {1000 * taken:7.2f} ms")
        texts.append(f"difference {max(one['difference'] for one in data.values()):.1e}")
        good = all(one["difference"] < 0.05 for one in data.values())  # of the largest value; halves are coarse
        return Found("; ".join(texts), data, good)

    report.check("step: as built", 4, lambda: step(bench.model.unet))
    if levers.is_cuda(bench.device):
        bench.networks = levers.tuned(bench.model)
        report.check("step: replayed", 4, lambda: step(bench.model.unet))


def tuned(bench: Bench, report: Report) -> None:
    """Measure the engine as it is opened, and its share of the card's peak."""
    for count in bench.batches:
        report.check(
            f"engine, {count} at a time",
            3 + 0.8 * count,
            lambda count=count: rate(bench, "engine", count, bench.engine_call(count)),
        )

    def share() -> Found:
        done = bench.found["operations"] * bench.most / bench.found[f"step {bench.most}"]
        part = done / bench.found["product"]
        return Found(f"{done / 1e12:.2f} TFLOP/s in a step, {100 * part:.0f} %", {"TFLOP/s": done / 1e12, "part": part})

    report.check("share of the product's rate", 0, share)


def product(bench: Bench) -> Found:
    """Measure the peak of the device."""
    side = 8192 if bench.device.type == "cuda" else 512
    reached = bench.found["product"] = measure.product_rate(side, bench.dtype, bench.device)
    return Found(f"{reached / 1e12:.2f} TFLOP/s", {"TFLOP/s": reached / 1e12, "side": side})


def operations(bench: Bench) -> Found:
    """Count the operations of one picture's step, both halves of the guidance."""
    count = bench.found["operations"] = measure.operations(bench.unet_call(bench.model.unet, 1))
    return Found(f"{count / 1e9:.1f} GFLOP", {"FLOP": count})


def compiled(bench: Bench, report: Report) -> None:
    """Measure `--compile`, at the largest batch."""

    def compile_and_step() -> Found:
        bench.build(bench.dtype)
        bench.networks = levers.tuned(levers.compiled(bench.model))
        call = bench.unet_call(bench.model.unet, bench.most)
        first = measure.seconds(call, bench.device, warm=0, times=1)
        taken = measure.seconds(call, bench.device, warm=2, times=7)
        text = f"{bench.most}: {1000 * taken:7.2f} ms; the first took {first:.0f} s"
        return Found(text, {"ms a step": 1000 * taken, "compiling seconds": first})

    def rated() -> Found:
        return rate(bench, "compiled", bench.most, bench.engine_call(bench.most))

    report.check("step: compiled and replayed", 60, compile_and_step)
    if report.rows[-1].state == "ok":
        report.check(f"engine, compiled, {bench.most} at a time", 10, rated)


def other_kernels(bench: Bench, settings: contextlib.AbstractContextManager[object]) -> Found:
    """Measure a step recorded in a context that chooses other kernels than torch's default."""
    levers.release(bench.model)
    with settings:
        call = bench.unet_call(bench.model.unet, bench.most)
        first = measure.seconds(call, bench.device, warm=0, times=1)
        taken = measure.seconds(call, bench.device, warm=2, times=7)
    levers.release(bench.model)
    text = f"{bench.most}: {1000 * taken:7.2f} ms; the first took {first:.1f} s"
    return Found(text, {"ms a step": 1000 * taken, "first seconds": first})


@contextlib.contextmanager
def cudnn_tries() -> Iterator[None]:
    """Let cuDNN try its kernels at the first call of each shape."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def cudnn_attention() -> contextlib.AbstractContextManager[object]:
    """Use cuDNN's attention where possible, else torch's default."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    wanted = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    return sdpa_kernel(wanted, set_priority=True)


def flash_attention() -> contextlib.AbstractContextManager[object]:
    """Use torch's own flash attention where possible."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH], set_priority=True)
