"""Many different jobs on one WebUI, and what its process holds meanwhile: memory, objects, hooks, files.

Used by the tests and by benchmarks/endurance.py.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from host import Host, Refused, to_base64
from PIL import Image

CHECKPOINT = "tiny"

HELD = """
import ctypes, gc, os, pathlib, tempfile, threading
from modules import patches, script_callbacks
gc.collect()
try:
    ctypes.CDLL("libc.so.6").malloc_trim(0)
except OSError:
    pass
model, kept = shared.sd_model, sys.modules["depth2img_webui.page.preview"].JOBS
job = sys.modules["depth2img_webui.jobs.request"].Request
kinds = (processing.StableDiffusionProcessingImg2Img, processing.StableDiffusionProcessingTxt2Img)
folder = pathlib.Path(tempfile.gettempdir())
result = {
    "rss_mb": int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20,
    "objects": len(gc.get_objects()),
    "jobs": sum(type(one) is job for one in gc.get_objects()),
    "callbacks": sum(len(listed) for listed in script_callbacks.callback_map.values()),
    "patches": sum(len(fields) for fields in patches.originals.values()),
    "hooks": sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()),
    "attributes": sum(len(vars(kind)) for kind in (*kinds, type(model))) + len(vars(model)),
    "descriptors": len(os.listdir("/proc/self/fd")),
    "threads": threading.active_count(),
    "temporary": sum(1 for path in folder.rglob("*")),
    "files": sum(1 for path in pathlib.Path(DATA).rglob("*") if path.is_file()),
}
"""
"""Run in the host's process."""

EXACT = ("jobs", "callbacks", "patches", "hooks", "attributes", "temporary", "files")
"""Figures that must not change at all between two moments at which nothing runs."""


def install(folder: Path) -> Path:
    """A folder of checkpoints with the bundled model in it."""
    from depth2img import embedded

    folder.mkdir(parents=True, exist_ok=True)
    embedded.install(folder / f"{CHECKPOINT}.safetensors")
    return folder


@dataclasses.dataclass(frozen=True)
class Request:
    """One request: its route, and what it sends."""

    route: str
    body: dict[str, Any]

    def send(self, host: Host) -> Any:
        """Return the answer without its unique parts; for a refusal, its status and sentence."""
        try:
            answer = host.post(self.route, **self.body)
        except Refused as refused:
            return refused.status, refused.errors or refused.detail
        if "images" in answer:
            pictures = [np.asarray(Image.open(io.BytesIO(_decoded(image)))).tobytes() for image in answer["images"]]
            return pictures, answer["info"].partition('"infotexts": ')[2].partition("]")[0]
        return {name: value for name, value in answer.items() if name != "seconds"}


def _decoded(text: str) -> bytes:
    import base64

    return base64.b64decode(text)


def picture(seed: int, width: int = 64, height: int = 64) -> Image.Image:
    """Coloured blobs."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def depth_map(seed: int, width: int = 48, height: int = 40) -> Image.Image:
    """16 bits."""
    noise = np.random.default_rng(seed).integers(0, 65536, (5, 4)).astype(np.float32)
    return Image.fromarray(np.asarray(Image.fromarray(noise).resize((width, height))).clip(0, 65535).astype(np.uint16))


def requests(count: int, *, steps: int = 1, start: int = 0) -> Iterator[Request]:
    """A mixture: no two alike, all kinds in any 16 of them."""
    for number in range(start, start + count):
        yield _request(number, steps)


def _request(n: int, steps: int) -> Request:
    source, own = to_base64(picture(n)), to_base64(depth_map(n))
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 8 + n % 8, 48, 40))
    depth: dict[str, Any] = [
        {},
        {"near": 0.9 - n % 7 / 20, "far": 0.1, "gamma": 0.5 + n % 5, "invert": bool(n % 2)},
        {"depth_map": own},
        {"strength": 0.2 + n % 8 / 10, "start": 0.0, "end": 0.7, "neutral": -0.5},
        {"enabled": False},
        {"region": to_base64(mask), "guidance": 1.0 + n % 4},
        {"reference": to_base64(picture(n + 5000)), "append_map": True},
        {"blur": n % 10, "score": True},
    ][n % 8]
    common: dict[str, Any] = {"prompt": f"a red cube, {n}", "seed": n, "steps": steps, "width": 64, "height": 64}
    common |= {"sampler_name": ("Euler", "DDIM", "DPM++ 2M")[n % 3], "cfg_scale": 3, "denoising_strength": 1.0}
    common["alwayson_scripts"] = {"depth to image": {"args": [depth]}}
    kind = n % 16
    if kind == 8:
        return Request("/depth2img/v1/estimate", {"image": source, "options": {"gamma": 1.0 + n % 3}})
    if kind == 9:
        return Request("/depth2img/v1/adjust", {"depth_map": own, "options": {"near": 0.8, "blur": n % 9}})
    if kind == 10:
        return Request("/sdapi/v1/txt2img", common)
    if kind == 11:
        common["alwayson_scripts"]["depth to image"]["args"] = [{"gamma": -1 - n}]
        return Request("/sdapi/v1/img2img", {**common, "init_images": [source]})
    if kind == 12:
        fields = {"mask": to_base64(mask), "inpaint_full_res": bool(n % 32 == 12), "inpainting_fill": n % 4}
        common["alwayson_scripts"]["depth to image"]["args"] = [{"under_mask": "fill"}]
        return Request("/sdapi/v1/img2img", {**common, **fields, "init_images": [source], "mask_blur": 2})
    if kind == 13:
        both = [source, to_base64(picture(n + 9000))]
        common["alwayson_scripts"]["depth to image"]["args"] = [{"range": "shared"}]
        return Request("/sdapi/v1/img2img", {**common, "init_images": both, "batch_size": 2})
    return Request("/sdapi/v1/img2img", {**common, "init_images": [source]})


def held(host: Host) -> dict[str, float]:
    """Measure what the process holds now."""
    return host.run(f"DATA = {str(host.data)!r}\n{HELD}")


def prepare(host: Host) -> None:
    """One order of random numbers for each job, a small cache, and nothing recorded."""
    host.post("/sdapi/v1/options", depth2img_cache_mb=4)
    host.run("probe.clear(); probe.seeded = True; probe.quiet = True")


def run(host: Host, jobs: int, samples: int) -> list[dict[str, float]]:
    """Send that many requests one after another; what is held at so many moments, after a sixteenth of them first."""
    prepare(host)
    found = []
    for number, request in enumerate(requests(jobs)):
        request.send(host)
        if number + 1 == max(16, jobs // 16) or (number + 1) % max(1, jobs // samples) == 0:
            found.append({"done": number + 1, **held(host)})
    return found
