"""Check that everything runs on the device, with the CPU's results."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, Final

import numpy as np
import torch

from depth2img import conditioning
from depth2img.cli.demo import load_sample
from depth2img.depth.depth_map import DepthMap
from depth2img.diffusion import Engine, Settings
from depth2img.diffusion.berth import visiting
from depth2img.estimators.midas import MidasEstimator, midas_input
from depth2img.io.images import Picture, to_float
from depth2img.options import DepthOptions

from . import measure
from .bench import Bench
from .report import Found

CLOSE: Final = 1e-3
"""Largest difference of the conditioning from the CPU's, relative to its range."""

LOW_MEMORY: Final = 4.0
"""GB that one picture of 512 x 512 may take with low memory."""


def generates(bench: Bench, dtype: torch.dtype) -> Found:
    """One picture in a type: finite (the engine refuses what is not), and no flat colour."""
    bench.build(dtype)
    call = bench.engine_call(1)
    taken = measure.seconds(call, bench.device, warm=1, times=1)
    spread = float(call()[0].picture.std())
    return Found(f"{taken:.2f} s, deviation {spread:.0f}", {"seconds": taken, "deviation": spread}, spread > 1)


def depth(bench: Bench) -> Found:
    """Compare the conditioning of one picture with the CPU's, also under autocast and with TF32."""
    picture, side = bench.pictures(1)[0], bench.side // 8
    own = bench.model.estimator
    on_cpu = MidasEstimator(copy.deepcopy(own.network).to("cpu"), key="cpu")

    def of(found: DepthMap) -> torch.Tensor:
        return conditioning([found], height=side, width=side)

    given = to_float(picture)
    expected = of(on_cpu.estimate(given))
    here = own.estimate(given)
    apart = float((of(here) - expected).abs().max()) / 2  # the range is -1..1
    half = torch.float16 if bench.device.type == "cuda" else torch.bfloat16
    with torch.autocast(bench.device.type, dtype=half):
        same = np.array_equal(own.estimate(given).values, here.values)
    batch = torch.from_numpy(midas_input(given))[None].to(bench.device)
    with torch.no_grad():
        coarse = own.network.forward(batch).reshape(here.values.shape).float().cpu().numpy()
    rough = float((of(dataclasses.replace(here, values=coarse)) - expected).abs().max()) / 2
    data = {"difference": apart, "as torch has it": rough, "same under autocast": same}
    text = f"{apart:.1e} of the range (as torch has it {rough:.1e}); under autocast {'the same' if same else 'ANOTHER'}"
    return Found(text, data, apart <= CLOSE and same)


def estimation(bench: Bench) -> Found:
    """Compare the seconds to estimate one picture with those of all its steps in the largest batch."""
    own, [picture] = bench.model.estimator, [to_float(one) for one in bench.pictures(1)]
    one = measure.seconds(lambda: own.estimate(picture), bench.device, warm=1, times=5)
    eight = measure.seconds(lambda: own.estimate_all([picture] * bench.most, bench.most), bench.device, times=3)
    steps = bench.found[f"step {bench.most}"] * bench.steps / bench.most
    data = {"seconds": one, "seconds in a batch": eight / bench.most, "steps": steps, "part": one / steps}
    text = f"{1000 * one:.1f} ms, {1000 * eight / bench.most:.1f} ms in a batch; {100 * one / steps:.0f} % of the steps"
    return Found(text, data)


def autoencoder(bench: Bench) -> Found:
    """Seconds to decode and to encode one picture, by itself and as one of four."""
    vae, side = bench.model.vae, bench.side
    data: dict[str, float] = {}
    for name, call, channels, length in (("decode", vae.decode, 4, side // 8), ("encode", vae.encode, 3, side)):
        for count in (1, 4):
            given = bench.random((count, channels, length, length))
            taken = measure.seconds(lambda call=call, given=given: call(given), bench.device, times=5)
            data[f"{name}, {count} at a time"] = taken / count
    return Found("; ".join(f"{name}: {1000 * taken:.1f} ms a picture" for name, taken in data.items()), data)


def bundled(bench: Bench) -> Found:
    """Compare the bundled model's picture with the CPU's, in float32 and in half precision."""
    sample = load_sample()
    settings = Settings(sample.prompts["other"], steps=20 if bench.side > 64 else 5, denoising_strength=1.0)
    half = "float16" if bench.device.type == "cuda" else "bfloat16"

    def made(device: str, dtype: str) -> Any:
        engine = Engine.open(device=device, dtype=dtype)
        return engine.generate([sample.picture], settings, DepthOptions(score=True))[0]

    expected = made("cpu", "float32")
    data: dict[str, Any] = {"cpu": {"structure": expected.fidelity}}
    for dtype in ("float32", half):
        one = made(bench.device.type, dtype)
        apart = np.abs(one.picture.astype(int) - expected.picture.astype(int))
        data[dtype] = {"structure": one.fidelity, "most": int(apart.max()), "mean": float(apart.mean())}
    texts = [f"{name}: structure {one['structure']:.3f}" for name, one in data.items()]
    texts += [f"at most {data[name]['most']}, mean {data[name]['mean']:.2f} of 255" for name in ("float32", half)]
    good = all(abs(one["structure"] - expected.fidelity) < 0.05 for one in data.values())
    return Found("; ".join(texts), data, good and data["float32"]["mean"] < 2)


def inpaint(bench: Bench) -> Found:
    """Check that a masked picture stays outside the mask and changes inside."""
    [picture], mask = bench.pictures(1), np.zeros((bench.side, bench.side), np.uint8)
    quarter = bench.side // 4
    mask[quarter : 3 * quarter, quarter : 3 * quarter] = 255
    [made] = Engine(bench.model).generate([picture], bench.settings(mask_blur=0), masks=[mask])
    outside = np.abs(made.picture.astype(int) - picture)[mask == 0].max()
    inside = np.abs(made.picture.astype(int) - picture)[mask > 0].mean()
    return Found(f"outside {outside}, inside {inside:.0f} of 255", {}, outside == 0 and inside > 1)


def hires(bench: Bench) -> Found:
    """Run a hires pass that estimates depth again."""
    settings = bench.settings(hr_scale=1.5, hr_second_pass_steps=4)
    [made] = Engine(bench.model).generate(bench.pictures(1), settings, DepthOptions(hires="estimate"))
    height, width = made.picture.shape[:2]
    return Found(f"{width} x {height}", {}, (height, width) == (bench.side * 3 // 2,) * 2)


def schedules(bench: Bench) -> Found:
    """Check that strength, start, end and depth guidance each change the picture."""
    changes: dict[str, dict[str, float]] = {
        "as it is": {},
        "strength": {"strength": 0.3},
        "start": {"start": 0.6},
        "end": {"end": 0.4},
        "guidance": {"guidance": 3.0},
    }
    engine, pictures = Engine(bench.model), bench.pictures(1)
    made: dict[str, Picture] = {
        name: engine.generate(pictures, bench.settings(), DepthOptions(**change))[0].picture  # type: ignore[arg-type]
        for name, change in changes.items()
    }
    apart = {name: float(np.abs(one.astype(int) - made["as it is"]).mean()) for name, one in made.items()}
    text = ", ".join(f"{name} {value:.1f}" for name, value in apart.items() if name != "as it is")
    return Found(f"mean change of 255: {text}", apart, all(v > 0 for name, v in apart.items() if name != "as it is"))


def low_memory(bench: Bench) -> Found:
    """Make one picture with the networks on the card only while they compute."""
    networks = bench.model
    for network in (networks.unet, networks.vae, networks.text_encoder):
        network.to("cpu", bench.dtype)
    networks.estimator.network.to("cpu")
    networks.texts.clear()
    bench.networks = visiting(dataclasses.replace(networks, dtype=bench.dtype), bench.device)
    del networks
    measure.clean(bench.device)
    call = bench.engine_call(1)
    taken = measure.seconds(call, bench.device, warm=1, times=1)
    peak = measure.peak(bench.device)
    text = f"{peak['allocated']:.2f} GB, {peak['reserved']:.2f} GB taken by torch; {taken:.2f} s a picture"
    good = bench.device.type != "cuda" or peak["reserved"] < LOW_MEMORY
    return Found(text, {"peak GB": peak, "seconds": taken}, good)
