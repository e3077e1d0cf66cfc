"""Open a depth model by name: `tiny`, a folder, a single file or a repository on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch

from ..checkpoints.model import WEIGHTS, Model, open_model
from ..checkpoints.storage.opening import open_checkpoint
from ..embedded import is_embedded, open_embedded
from ..errors import CheckpointError, OptionError
from ..estimators.base import Estimator
from ..estimators.pool import EstimatorPool
from ..io import hub
from ..io.atomic import refusing
from ..options import CHECKPOINT
from . import levers
from .berth import visiting
from .networks import Networks, build, build_estimator
from .settings import DTYPES

TINY: Final = "tiny"
"""Name of the embedded model."""


def load(
    source: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    compiled: bool = False,
    low_memory: bool = False,
) -> Networks:
    """Load a depth model.

    Args:
        source: `tiny`, a folder in the diffusers layout, a `.safetensors` or `.ckpt` file, or `owner/name[@revision]`
            on the hub, of which only JSON and safetensors files are fetched.
        device: one of `settings.DEVICES`; auto takes CUDA, then MPS, then the CPU.
        dtype: one of `settings.DTYPES`; auto is float32 on the CPU and float16 elsewhere.
        compiled: compile the UNet at its first step for each size.
        low_memory: hold only the network that is computing on the card; see `berth.visiting`.

    Raises:
        CheckpointError: there is no such model, or it cannot be used.
        OptionError: the device or the type is unknown or unavailable, or `compiled` and `low_memory` are both given.
    """
    if compiled and low_memory:
        raise OptionError("low_memory", "A compiled model cannot leave the card.", fix="Choose compiled or low memory.")
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    if low_memory:
        return visiting(build(find(source), device=torch.device("cpu"), dtype=kind), where)
    networks = build(find(source), device=where, dtype=kind)
    return levers.tuned(levers.compiled(networks) if compiled else networks)


def load_estimator(source: str | Path, *, device: str = "auto", estimator: str = CHECKPOINT) -> Estimator:
    """Load an estimator alone: the depth network of a model, see `load`, or another one by its name.

    Raises:
        CheckpointError, OptionError: as in `load`.
        EstimatorError: an estimator by name cannot be used.
    """
    where = pick_device(device)
    if estimator != CHECKPOINT:
        return own_pool().on(lambda: where).get(estimator)
    return build_estimator(find(source), device=where)


def own_pool() -> EstimatorPool:
    """Make a pool for names from the user's own command line or program: folders by path and the hub are allowed."""
    return EstimatorPool(paths=True, downloads=True)


def find(source: str | Path, midas: Path | None = None, *, ema: bool = False) -> Model:
    """Open the model of that name; no weights are read yet.

    Args:
        source: see `load`.
        midas: another source of the depth network; see `checkpoints.open_midas`.
        ema: take the averaged weights of a folder or file; see `checkpoints.open_model`.

    Raises:
        CheckpointError: there is no such model, or it cannot be used.
    """
    if str(source) == TINY:
        return open_embedded()
    path = Path(source)
    with refusing(f"{path.name} cannot be read.", CheckpointError):
        exists, is_folder = path.exists(), path.is_dir()
    if is_folder:
        return open_model(path, midas, ema=ema)
    if exists:
        file = open_checkpoint(path, ema=ema)
        return open_embedded(file) if is_embedded(file) else open_model(file, midas)
    if hub.NAME.fullmatch(str(source)) and path.suffix.lower() not in (".safetensors", ".ckpt"):
        return open_model(_download(str(source)), midas)
    raise CheckpointError(
        f"There is no model '{source}'.",
        fix="Give 'tiny', a folder in the layout of diffusers, a .safetensors or .ckpt file, or owner/name on the hub.",
    )


def pick_device(name: str) -> torch.device:
    """Choose the device of that name.

    Raises:
        OptionError: it is unknown or unavailable.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]))
    if not there.get(name, False):
        found = ", ".join(kind for kind, is_there in there.items() if is_there)
        raise OptionError("device", f"There is no device '{name}' here.", fix=f"Use auto or one of: {found}.")
    return torch.device(name)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Choose the element type of that name for a device.

    Raises:
        OptionError: it is unknown, or the device cannot use it.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    if name not in DTYPES:
        raise OptionError("dtype", f"There is no type '{name}'.", fix=f"Use one of: {', '.join(DTYPES)}.")
    if name == "float16" and device.type == "cpu":
        raise OptionError("dtype", "float16 is too slow on a CPU to be of use.", fix="Use float32 or bfloat16.")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _download(name: str) -> Path:
    patterns = ["model_index.json", "scheduler/scheduler_config.json"]
    for folder, stem in WEIGHTS.items():
        patterns += [f"{folder}/config.json", f"{folder}/{stem}.safetensors", f"{folder}/{stem}.safetensors.index.json"]
        patterns += [f"{folder}/{stem}-*-of-*.safetensors"]
    return hub.fetch(name, patterns, CheckpointError, what="model")
