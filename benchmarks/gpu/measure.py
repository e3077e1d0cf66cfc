"""Measure seconds, bytes and operations, on a card or on the CPU."""

from __future__ import annotations

import gc
import platform
import resource
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch


def wait(device: torch.device) -> None:
    """Wait until a device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], Any], device: torch.device, *, warm: int = 1, times: int = 3) -> float:
    """Measure the median seconds of a call, the device's work included."""
    taken = []
    for index in range(warm + times):
        wait(device)
        begun = time.perf_counter()
        call()
        wait(device)
        if index >= warm:
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def clean(device: torch.device) -> None:
    """Release unused memory, and reset the peak."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> dict[str, float]:
    """Return the peak memory since `clean`, in GB: of tensors, and reserved by torch.

    On the CPU that of the process since it began.
    """
    if device.type == "cuda":
        taken = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        return {"allocated": round(taken[0] / 1e9, 3), "reserved": round(taken[1] / 1e9, 3)}
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"allocated": round(most / 1e9, 3), "reserved": round(most / 1e9, 3)}


def product_rate(side: int, dtype: torch.dtype, device: torch.device) -> float:
    """Measure the operations per second of a product of two random square matrices."""
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    count = 10 if device.type == "cuda" else 1

    def run() -> None:
        for _ in range(count):
            left @ right

    return 2 * side**3 * count / seconds(run, device, warm=2, times=5)


def operations(call: Callable[[], Any]) -> float:
    """Count the floating-point operations of products, convolutions and attention in a call."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def head(device: torch.device) -> dict[str, Any]:
    """Describe the machine."""
    import diffusers
    import transformers

    known: dict[str, Any] = {"device": device.type, "card": "no card", "driver": "none"}
    if device.type == "cuda":
        known["card"] = torch.cuda.get_device_name(device)
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        found = shutil.which(asked[0]) is not None
        answer = subprocess.run(asked, capture_output=True, text=True, check=False).stdout if found else ""
        known["driver"] = answer.strip() or "unknown"
        known["memory GB"] = round(torch.cuda.get_device_properties(device).total_memory / 1e9, 1)
        known["cudnn"] = torch.backends.cudnn.version()
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__}
    return known | versions | {"transformers": transformers.__version__, "python": platform.python_version()}
