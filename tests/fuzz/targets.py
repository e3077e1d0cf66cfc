"""Targets of the fuzzer: every reader of untrusted input takes any bytes and raises `Depth2ImgError` or nothing."""

from __future__ import annotations

import base64
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

import cv2
import numpy as np
import OpenEXR
import pillow_heif
import tifffile
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
from depth2img.depth.readers.tiff import read as read_tiff
from depth2img.io import phone
from depth2img.options import value_from_infotext
from tests.fuzz import served

FOLDER = Path(tempfile.gettempdir()) / f"depth2img-fuzz-{os.getpid()}"
"""Folder from which readers get their bytes, and the WebUI's stand-in its files; `close` removes it."""


def picture(content: bytes) -> None:
    array = read_picture(content)
    assert array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3


def depth_map(content: bytes) -> None:
    depth = read_depth_map(content)
    assert depth.values.dtype == np.float32 and np.isfinite(depth.values).all()
    if depth.values.size < 100_000:
        tensor = conditioning([adjust(depth, DepthOptions(near=0.9, gamma=2.0, blur=1.0))], height=8, width=8)
        assert bool(tensor.isfinite().all()) and float(tensor.abs().max()) <= 1


def distances(content: bytes) -> None:
    """Any depth map, its numbers taken for distances."""
    depth = read_depth_map(content, "distance")
    assert depth.values.dtype == np.float32 and np.isfinite(depth.values).all() and depth.range[0] > 0


def exr(content: bytes) -> None:
    read_depth_map(b"\x76\x2f\x31\x01" + content)


def npy(content: bytes) -> None:
    read_depth_map(b"\x93NUMPY" + content)


def npz(content: bytes) -> None:
    read_depth_map(b"PK\x03\x04" + content)


def pfm(content: bytes) -> None:
    read_depth_map(b"P" + content)


def tiff(content: bytes) -> None:
    """The reader for what Pillow does not know."""
    read_tiff(content, "")


def colour_map(content: bytes) -> None:
    """Pixels of a small colour picture."""
    pixels = np.frombuffer(content[: len(content) // 3 * 3], np.uint8).reshape(-1, 3)
    with contextlib.suppress(Depth2ImgError):
        read_depth_map(np.resize(pixels, (16, 16, 3)) if len(pixels) else pixels[None])


def portrait(content: bytes) -> None:
    """XMP of a JPEG with depth inside, and what lies behind the picture."""
    read_depth_map(b"\xff\xd8\xff\xe1" + content)


def heic(content: bytes) -> None:
    read_depth_map(b"\0\0\0\x1cftypheic" + content)


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
        distances,
        exr,
        npy,
        npz,
        pfm,
        tiff,
        colour_map,
        portrait,
        heic,
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
        "distances": lambda: [*_pictures(), *_arrays()],
        "exr": lambda: [one[4:] for one in _exrs()],
        "npy": lambda: [one[6:] for one in _arrays()],
        "npz": lambda: [one[4:] for one in _archives()],
        "pfm": lambda: [b"f\n3 2\n-1.0\n" + np.arange(6, dtype="<f4").tobytes(), b"F\n1 1\n1\n" + bytes(12)],
        "tiff": _tiffs,
        "colour_map": lambda: [
            np.asarray(cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], 2))[..., ::-1].tobytes()
        ],
        "portrait": lambda: [one[4:] for one in _portraits()],
        "heic": lambda: [one[12:] for one in _heics()],
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


def _exrs() -> list[bytes]:
    values = np.random.default_rng(5).uniform(1, 9, (5, 7)).astype(np.float32)
    layers = {"Z": values, "R": values.astype(np.float16)}
    found = []
    for compression in (
        OpenEXR.NO_COMPRESSION,
        OpenEXR.RLE_COMPRESSION,
        OpenEXR.ZIP_COMPRESSION,
        OpenEXR.PIZ_COMPRESSION,
    ):
        for parts in ([layers], [layers, {"V": values}]):
            header = {"compression": compression, "type": OpenEXR.scanlineimage}
            file = io.BytesIO()
            OpenEXR.File([OpenEXR.Part(dict(header), dict(one), f"p{n}") for n, one in enumerate(parts)]).write(file)
            found.append(file.getvalue())
    return found


def _archives() -> list[bytes]:
    found = []
    for named in (
        {"depth": np.arange(6.0).reshape(2, 3)},
        {"a": np.ones((2, 3)), "depth": np.ones((1, 2, 3), np.uint8)},
    ):
        for write in (np.savez, np.savez_compressed):
            file = io.BytesIO()
            write(file, **named)
            found.append(file.getvalue())
    return found


def _tiffs() -> list[bytes]:
    values = np.random.default_rng(5).uniform(1, 9, (5, 7))
    found = []
    for dtype in (np.float16, np.float64):
        for more in ({}, {"compression": "zlib"}, {"tile": (16, 16)}, {"bigtiff": True}):
            file = io.BytesIO()
            tifffile.imwrite(file, values.astype(dtype), **more)
            found.append(file.getvalue())
    return found


def _portraits() -> list[bytes]:
    data = base64.b64encode(_pictures()[1])
    packet = b'<a GDepth:Format="RangeLinear" GDepth:Near="1" GDepth:Far="9" GDepth:Data="' + data + b'"/>'
    item = b'<C:Item Item:Semantic="Depth" Item:Length="%d"/>' % len(_pictures()[1])
    found = []
    for text, behind in ((packet, b""), (item, _pictures()[1])):
        body = phone.XMP + text
        found.append(b"\xff\xd8\xff\xe1" + struct.pack(">H", len(body) + 2) + body + b"\xff\xd9" + behind)
    return found


def _heics() -> list[bytes]:
    file = io.BytesIO()
    noise = np.random.default_rng(5).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    pillow_heif.from_pillow(Image.fromarray(noise)).save(file)
    return [file.getvalue().replace(b"auxid:1", b"auxid:2")]


def _payloads() -> list[bytes]:
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
