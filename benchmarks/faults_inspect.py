"""Break a full-size depth checkpoint in every known way, and count what `inspect` says about it.

Run: python -m benchmarks.faults_inspect [--times 100]. The files take no room: their tensors are holes.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from depth2img import CheckpointError
from depth2img.checkpoints import inspect
from depth2img.checkpoints.layout import keys
from depth2img.checkpoints.layout.ldm_yaml import SD2_YAML
from tests.library import sparse

NAMES = sparse.sd2()
FIRST = keys.UNET + "input_blocks.0.0.weight"
MiB = 1024 * 1024


def safetensors(folder: Path, tensors: dict[str, tuple[int, ...]] | None = None) -> Path:
    return sparse.write(folder / "depth.safetensors", NAMES if tensors is None else tensors)


def without(prefix: str) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in NAMES.items() if not name.startswith(prefix)}


def flipped(path: Path, chance: random.Random, end: int) -> Path:
    """Flip one bit of the first `end` bytes."""
    place = chance.randrange(end)
    with path.open("r+b") as file:
        file.seek(place)
        value = file.read(1)[0] ^ (1 << chance.randrange(8))
        file.seek(place)
        file.write(bytes([value]))
    return path


def header_end(path: Path) -> int:
    with path.open("rb") as file:
        return 8 + struct.unpack("<Q", file.read(8))[0]


def cut(folder: Path, chance: random.Random) -> Path:
    path = safetensors(folder)
    os.truncate(path, chance.randrange(path.stat().st_size))
    return path


def bit_in_header(folder: Path, chance: random.Random) -> Path:
    path = safetensors(folder)
    return flipped(path, chance, header_end(path))


def tensor_gone(folder: Path, chance: random.Random) -> Path:
    gone = chance.choice([name for name in NAMES if name.startswith((keys.UNET, keys.VAE, keys.MIDAS + "scratch"))])
    return safetensors(folder, {name: shape for name, shape in NAMES.items() if name != gone})


def tensor_misshaped(folder: Path, chance: random.Random) -> Path:
    name = chance.choice([name for name, shape in NAMES.items() if shape and name != FIRST])
    return safetensors(folder, {**NAMES, name: (*NAMES[name][:-1], NAMES[name][-1] + 1)})


def sd1_text(folder: Path, chance: random.Random) -> Path:
    old = {f"cond_stage_model.transformer.text_model.layer{n}.weight": (1024,) for n in range(chance.randrange(1, 50))}
    return safetensors(folder, {**without(keys.TEXT), **old})


def page(folder: Path, chance: random.Random) -> Path:
    path = folder / "depth.ckpt"
    path.write_bytes(chance.choice([b"<!DOCTYPE html>", b"<html>", b"version https://git-lfs.github.com/spec/v1", b""]))
    return path


def huge_header(folder: Path, chance: random.Random) -> Path:
    path = folder / "depth.safetensors"
    path.write_bytes(struct.pack("<Q", chance.randrange(17 * MiB, 2**63)) + b'{"a":' + bytes(64))
    return path


def wrong_yaml(folder: Path, chance: random.Random) -> Path:
    path, text = safetensors(folder), json.loads(json.dumps(SD2_YAML))
    text["model"]["params"]["unet_config"]["params"]["in_channels"] = chance.choice([4, 8, 9])
    path.with_suffix(".yaml").write_text(yaml.safe_dump(text))
    return path


def hostile_yaml(folder: Path, chance: random.Random) -> Path:
    path, text = safetensors(folder), json.loads(json.dumps(SD2_YAML))
    part = chance.choice(["unet_config", "first_stage_config", "cond_stage_config", "depth_stage_config"])
    text["model"]["params"][part]["target"] = chance.choice(["os.system", "subprocess.run", "builtins.eval"])
    path.with_suffix(".yaml").write_text(yaml.safe_dump(text))
    return path


def a_pickle(folder: Path, chance: random.Random, extra: Any = 0) -> Path:
    path = folder / "depth.ckpt"
    state = {name: torch.zeros(shape) for name, shape in list(NAMES.items())[:40] if len(shape) < 2}
    state[FIRST] = torch.zeros(320, 5, 3, 3)
    torch.save({"state_dict": state, "x": extra}, path, _use_new_zipfile_serialization=chance.random() < 0.5)
    return path


def bit_in_pickle(folder: Path, chance: random.Random) -> Path:
    return flipped(a_pickle(folder, chance), chance, 4000)


class Caller:
    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call, ("true",)


def hostile_pickle(folder: Path, chance: random.Random) -> Path:
    return a_pickle(folder, chance, Caller(chance.choice([os.system, eval, exec, __import__, os.remove])))


FAULTS: dict[str, Callable[[Path, random.Random], Path]] = {
    "nothing": lambda folder, _: safetensors(folder),
    "cut off at any byte": cut,
    "a bit of the header": bit_in_header,
    "a header that is too long": huge_header,
    "a web page, an LFS pointer, nothing": page,
    "a tensor missing": tensor_gone,
    "a tensor misshaped": tensor_misshaped,
    "without MiDaS": lambda folder, _: safetensors(folder, without(keys.DEPTH)),
    "text encoder of Stable Diffusion 1": sd1_text,
    "YAML of another model": wrong_yaml,
    "YAML that names foreign code": hostile_yaml,
    "a bit of a pickle's beginning": bit_in_pickle,
    "a pickle that calls something": hostile_pickle,
}


def outcome(path: Path) -> str:
    try:
        report = inspect(path)
    except CheckpointError as error:
        return "refused: runs code" if "run code" in str(error) else "refused"
    except Exception as error:
        return f"CRASHED: {type(error).__name__}"
    return "works" if report.usable else next(fault.code for fault in report.faults if fault.serious)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100)
    times = parser.parse_args().times
    print(f"{'what was done':38}{'longest':>9}  what inspect said, counted")
    for number, (name, make) in enumerate(FAULTS.items()):
        chance, counted, longest = random.Random(number), collections.Counter[str](), 0.0
        for _ in range(times):
            with tempfile.TemporaryDirectory() as folder:
                path = make(Path(folder), chance)
                begun = time.process_time()
                counted[outcome(path)] += 1
                longest = max(longest, time.process_time() - begun)
        said = ", ".join(f"{what} {count}" for what, count in counted.most_common())
        print(f"{name:38}{longest:7.2f} s  {said}", flush=True)


if __name__ == "__main__":
    main()
