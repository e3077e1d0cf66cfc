"""Checkpoints of any size that take no room: a true header, and a hole in the file where the tensors would be."""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from depth2img.checkpoints.layout.key_map import DPT_HYBRID
from depth2img.checkpoints.layout.ldm_only import unused
from depth2img.checkpoints.layout.ldm_yaml import SD2

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8}
FULL = dataclasses.replace(SD2, depth_estimator=dict(DPT_HYBRID))


def sd2() -> dict[str, tuple[int, ...]]:
    """Names and shapes of 512-depth-ema: 1,608 tensors."""
    return {**FULL.required(), **unused(FULL)}


def header(
    tensors: Mapping[str, tuple[int, ...]], dtype: str | Mapping[str, str] = "F16", metadata: Any = None
) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and the bytes that follow it."""
    entries: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for name, shape in tensors.items():
        kind = dtype if isinstance(dtype, str) else dtype.get(name, "F16")
        start, end = end, end + math.prod(shape) * BYTES[kind]
        entries[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    return entries, end


def write(
    path: Path,
    tensors: Mapping[str, tuple[int, ...]],
    dtype: str | Mapping[str, str] = "F16",
    metadata: Any = None,
) -> Path:
    """A safetensors file whose tensors are zero."""
    entries, size = header(tensors, dtype, metadata)
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + size)
    return path
