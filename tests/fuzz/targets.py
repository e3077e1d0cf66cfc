"""Targets of the fuzzer: every reader of untrusted input takes any bytes and raises `Depth2ImgError` or nothing."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save

from depth2img import (
    OPTIONS,
    CheckpointError,
    Depth2ImgError,
    DepthOptions,
    adjust,
    conditioning,
    read_depth_map,
    read_picture,
)
from depth2img.checkpoints.layout.config import from_json, reading
from depth2img.checkpoints.layout.ldm_yaml import SD2_YAML, from_single_file
from depth2img.checkpoints.storage.opening import open_checkpoint
from depth2img.checkpoints.storage.tensors import InMemory
from depth2img.options import value_from_infotext
from tests.fuzz import served

FOLDER = Path(tempfile.gettempdir()) / f"depth2img-fuzz-{os.getpid()}"
"""Where readers of files get their bytes, and the WebUI's stand-in its folder; `close` removes it."""


def picture(content: bytes) -> None:
    array = read_picture(content)
    assert array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3


def depth_map(content: bytes) -> None:
    depth = read_depth_map(content)
    assert depth.values.dtype == np.float32 and np.isfinite(depth.values).all()
    if depth.values.size < 100_000:
        tensor = conditioning([adjust(depth, DepthOptions(near=0.9, gamma=2.0, blur=1.0))], height=8, width=8)
        assert bool(tensor.isfinite().all()) and float(tensor.abs().max()) <= 1


def exr(content: bytes) -> None:
    read_depth_map(b"\x76\x2f\x31\x01" + content)


def npy(content: bytes) -> None:
    read_depth_map(b"\x93NUMPY" + content)


def payload(content: bytes) -> None:
    text = content.decode("utf-8", "surrogateescape") if content[:1] == b"d" else content.decode("latin-1")
    with contextlib.suppress(Depth2ImgError):
        read_picture(text)
    read_depth_map(text)


def options(content: bytes) -> None:
    """The arguments of a generation request, by name or by position, there and back."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return
    made = DepthOptions.from_args(value if isinstance(value, list) else [value])
    again = {name: value_from_infotext(name, made.infotext()) for name, option in OPTIONS.items() if option.infotext}
    assert all(again[name] == getattr(made, name) for name in again)


def infotext(content: bytes) -> None:
    name, _, text = content.decode("utf-8", "replace").partition(":")
    if name in OPTIONS:
        value_from_infotext(name, {OPTIONS[name].infotext: text})


def description(content: bytes) -> None:
    """The YAML beside a checkpoint."""
    path = _file(content, ".yaml")
    from_single_file(path.with_suffix(".safetensors"), InMemory(TENSORS_OF_MIDAS))


def metadata(content: bytes) -> None:
    config = from_json(content.decode("utf-8", "surrogateescape"))
    count = 0
    with contextlib.suppress(CheckpointError), reading("description"):  # as `open_model` does
        count = len(config.key_map(["a"]))
    assert count < 100_000


def safetensors(content: bytes) -> None:
    """A file whose first eight bytes are right, so that its header is looked at."""
    tensors = open_checkpoint(_file(struct.pack("<Q", len(content)) + content + bytes(64), ".safetensors"))
    for key in tensors.keys():
        tensors.shape(key)
        tensors.get(key)


def pickled(content: bytes) -> None:
    tensors = open_checkpoint(_file(content, ".ckpt"))
    for key in tensors.keys():
        tensors.get(key)


def estimate(content: bytes) -> None:
    """The body of a request."""
    _site().ask("estimate", content)


def adjusted(content: bytes) -> None:
    _site().ask("adjust", content)


def script(content: bytes) -> None:
    """`args` under `alwayson_scripts`, behind the number of a kind of job: the whole job, on the stand-in."""
    with contextlib.suppress(ValueError):
        args = served.body(content[1:])
        if isinstance(args, list):
            _site().generate(served.KINDS[content[0] % len(served.KINDS)], args)


@functools.cache
def _site() -> served.Site:
    return served.Site(FOLDER / "site")


def prepare(name: str) -> None:
    """Start what a target needs; a fuzzer calls this while it watches what is imported."""
    if name in SERVED:
        _site()


def close() -> None:
    """Stop it again, and remove all files."""
    if _site.cache_info().currsize:
        _site().close()
        _site.cache_clear()
    shutil.rmtree(FOLDER, ignore_errors=True)


def _file(content: bytes, suffix: str) -> Path:
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"input{suffix}"
    path.write_bytes(content)
    return path


TENSORS = {
    **{f"cond_stage_model.model.transformer.resblocks.{n}.ln_1.weight": torch.ones(64) for n in range(3)},
    "depth_model.a": torch.ones(1),
}
"""As much of a checkpoint as its description is held against."""

TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        picture,
        depth_map,
        exr,
        npy,
        payload,
        options,
        infotext,
        description,
        metadata,
        safetensors,
        pickled,
        estimate,
        adjusted,
        script,
    )
}
SERVED = ("estimate", "adjusted", "script")


def run(name: str, content: bytes) -> None:
    """One input; the library's own errors are what is expected of it."""
    with contextlib.suppress(Depth2ImgError):
        TARGETS[name](content)


# --- the corpus to begin with -----------------------------------------------------------------------------------------


def seeds(name: str) -> list[bytes]:
    """A few whole inputs of a target, small."""
    made: dict[str, Callable[[], list[bytes]]] = {
        "picture": _pictures,
        "depth_map": _pictures,
        "exr": lambda: [b"\2\0\0\0dataWindow\0box2i\0\x10\0\0\0" + struct.pack("<4i", 0, 0, 6, 4) + b"\0" + bytes(99)],
        "npy": lambda: [one[6:] for one in _arrays()],
        "payload": _payloads,
        "options": _options,
        "infotext": lambda: [f"{name}:{option.default}".encode() for name, option in OPTIONS.items()],
        "description": lambda: [yaml.safe_dump(SD2_YAML).encode()],
        "metadata": _metadata,
        "safetensors": lambda: [save({"a": torch.ones(2, 4), "b": torch.ones(16).half()}, {"kind": "x"})[8:-64]],
        "pickled": _pickles,
        "estimate": served.requests,
        "adjusted": served.requests,
        "script": served.generations,
    }
    return made[name]()


def _encoded(image: Image.Image, kind: str, **settings: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def _pictures() -> list[bytes]:
    noise = np.random.default_rng(5).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    colour, grey = Image.fromarray(noise), Image.fromarray(noise[:, :, 0])
    sixteen, floating = Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257), Image.fromarray(noise[..., 0] / 255.0)
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        _encoded(colour, "PNG", exif=exif),
        _encoded(sixteen, "PNG"),
        _encoded(colour.quantize(7), "PNG", transparency=2),
        _encoded(colour, "PNG", save_all=True, append_images=[colour.rotate(180)]),
        _encoded(colour, "JPEG", exif=exif),
        _encoded(colour.convert("CMYK"), "JPEG"),
        _encoded(colour, "WEBP"),
        _encoded(colour, "BMP"),
        _encoded(colour.quantize(9), "GIF", save_all=True, append_images=[grey.quantize(9)]),
        _encoded(colour, "TIFF", compression="tiff_lzw"),
        _encoded(sixteen, "TIFF", compression="tiff_adobe_deflate"),
        _encoded(floating, "TIFF"),
        _encoded(colour, "TIFF", big_tiff=True),
        _encoded(colour, "PPM"),
    ]


def _arrays() -> list[bytes]:
    found = []
    for array in (np.arange(12, dtype=np.float32).reshape(3, 4), np.ones((2, 3, 3), np.uint8)):
        file = io.BytesIO()
        np.save(file, array)
        found.append(file.getvalue())
    return found


def _payloads() -> list[bytes]:
    import base64

    content = base64.b64encode(_pictures()[0])
    return [content, b"data:image/png;base64," + content, b"data:,", b" \n" + content[:40]]


def _options() -> list[bytes]:
    every = {name: option.default for name, option in OPTIONS.items()}
    return [json.dumps(value).encode() for value in (every, list(every.values()), {"near": 0.5}, {"depth_map": "AAAA"})]


def _metadata() -> list[bytes]:
    return [from_single_file(FOLDER / "none.safetensors", InMemory(TENSORS_OF_MIDAS)).to_json().encode()]


def _pickles() -> list[bytes]:
    found = []
    for new in (True, False):
        file = io.BytesIO()
        torch.save({"state_dict": {"a": torch.arange(6.0)}}, file, _use_new_zipfile_serialization=new)
        found.append(file.getvalue())
    return found


_MIDAS = "depth_model.model.pretrained.model."
TENSORS_OF_MIDAS = {
    **TENSORS,
    _MIDAS + "cls_token": torch.ones(1, 1, 64),
    _MIDAS + "pos_embed": torch.ones(1, 577, 64),
    _MIDAS + "blocks.0.mlp.fc1.weight": torch.ones(8, 64),
    _MIDAS + "patch_embed.backbone.stem.conv.weight": torch.ones(8, 3, 7, 7),
    _MIDAS + "patch_embed.backbone.stages.0.blocks.0.conv3.weight": torch.ones(8, 8, 1, 1),
    **{f"depth_model.model.scratch.layer{n}_rn.weight": torch.ones(8, 8, 3, 3) for n in (1, 2, 3, 4)},
}
