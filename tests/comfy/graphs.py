"""Workflows for the tests, put together from a few parts."""

from __future__ import annotations

from typing import Any

from depth2img import OPTIONS
from depth2img.options import MAP_OPTIONS
from depth2img_comfy.apply_node import CONTROLS
from depth2img_comfy.depth_nodes import READING
from tests.comfy.server import Graph
from tests.webui_real.judge import sample

ADJUST = {name: OPTIONS[name].default for name in MAP_OPTIONS if name not in READING}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def ours(kind: str, **inputs: Any) -> dict[str, Any]:
    return node(f"Depth2Img{kind}", **inputs)


def load_map(file: str, **more: Any) -> dict[str, Any]:
    return ours("LoadDepthMap", **{"file": file, "holds": "nearness", "map_channel": "", **more})


def apply(**more: Any) -> dict[str, Any]:
    defaults = {name: OPTIONS[name].default for name in CONTROLS}
    wired = {"model": ["load", 0], "positive": ["yes", 0], "negative": ["no", 0]}
    return ours("ApplyDepth", **{**wired, "depth": ["depth", 0], "latent": ["latent", 0], **defaults, **more})


def sampler(**more: Any) -> dict[str, Any]:
    wired = {"model": ["probe", 0], "positive": ["apply", 1], "negative": ["apply", 2], "latent_image": ["apply", 3]}
    settings = {"seed": 3, "steps": 12, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    return node("KSampler", **{**wired, **settings, **more})


def img2img(name: str, *, picture: str = "scene.png", controls: dict[str, Any] | None = None, **sampling: Any) -> Graph:
    """Make the plain workflow; tests change or add nodes by their ids. The probe writes under `name`."""
    return {
        "load": ours("LoadDepthCheckpoint", checkpoint="tiny"),
        "picture": node("LoadImage", image=picture),
        "yes": node("CLIPTextEncode", clip=["load", 1], text=sample().prompts["other"]),
        "no": node("CLIPTextEncode", clip=["load", 1], text=""),
        "latent": node("VAEEncode", vae=["load", 2], pixels=["picture", 0]),
        "depth": ours("EstimateDepth", estimator=["load", 3], image=["picture", 0]),
        "apply": apply(**(controls or {})),
        "probe": node("ProbeUNet", model=["apply", 0], name=name),
        "sample": sampler(**sampling),
        "decode": node("VAEDecode", vae=["load", 2], samples=["sample", 0]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix=name),
    }
