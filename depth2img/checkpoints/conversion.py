"""Conversion between a folder in the diffusers layout and one file in `ldm`'s, tensor by tensor, with a ledger.

Nothing is dropped and nothing invented: a tensor that only the single file has is kept in the folder's
`ldm_only.safetensors`; where there is no such file, the few that `ldm` expects and never runs are re-created, noted in
the single file, and, unless somebody has changed them, left out again on the way back. There and back gives every
tensor bit for bit.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import torch

from ..errors import CheckpointError
from ..io.atomic import NEW, WRITING, appearing, free_space, refusing, remove_stale, write_file
from ..text import size
from .layout import keys
from .layout.config import FOLDERS, ModelConfig
from .layout.key_map import Entry
from .layout.ldm_yaml import METADATA, to_yaml
from .layout.tokenizer import write_tokenizer
from .model import ASIDE, RECREATED, WEIGHTS, Model, ToLdm, open_model
from .parts import with_parts
from .storage.opening import SUFFIXES, CheckpointFile
from .storage.tensors import Lazy, Progress, Tensors, as_type, part_of, selected
from .storage.writing import write_safetensors

NETWORKS: Final = (keys.UNET, keys.VAE, "cond_stage_model.", keys.DEPTH, keys.EMA)
"""Prefixes of what is stored in half precision where that is asked for; rounding the noise schedule would change every
picture."""

Fate = Literal["same", "stacked", "pointwise", "ldm only", "re-created", "constant"]

FREE_SPACE: Final = 1.02
"""Room that is asked for, as a multiple of the bytes that will be written."""


@dataclass(frozen=True)
class LedgerEntry:
    """The fate of one tensor.

    Attributes:
        ldm: its name in the single file; empty for a constant.
        other: its name, or three, in the folder, behind the part's; empty for what only the single file has.
        what: the relation of the two: see `key_map.Entry.form`; `ldm only`: in the folder's `ldm_only.safetensors`;
            `re-created`: made by `ldm_only`, in the single file only; `constant`: equal in every model, in neither.
    """

    ldm: str
    other: tuple[str, ...]
    what: Fate


@dataclass(frozen=True)
class Ledger:
    """The fate of every tensor of a conversion.

    Attributes:
        tensors: one entry for each.
        bytes: of all tensors, as written.
        sha256: of each weights file that was written, by its name.
    """

    tensors: Sequence[LedgerEntry]
    bytes: int
    sha256: Mapping[str, str] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Count the tensors by their fate."""
        return dict(Counter(entry.what for entry in self.tensors))

    def to_json(self) -> dict[str, Any]:
        """Return the ledger as plain data."""
        tensors = [{"ldm": entry.ldm, "diffusers": list(entry.other), "what": entry.what} for entry in self.tensors]
        return {"tensors": tensors, "counts": self.counts(), "bytes": self.bytes, "sha256": dict(self.sha256)}


def convert(
    source: Path | CheckpointFile,
    target: Path,
    progress: Progress | None = None,
    *,
    half: bool = False,
    midas: Path | None = None,
    base: Path | None = None,
    ema: bool = False,
) -> Ledger:
    """Convert a single file to a folder, or a folder to a single file.

    Args:
        source: a folder in the diffusers layout, or a file, safetensors or pickle; with `base` see `with_parts`.
        target: a `.safetensors` file (its YAML is written beside it) or a folder that does not exist yet.
        progress: called with the bytes done and the bytes in all.
        half: store the networks in float16; the noise schedule keeps its precision.
        midas: take the depth network from here; see `open_midas`.
        base: the whole model into which the parts in `source` are put.
        ema: take the averaged weights; see `open_model`.

    Raises:
        CheckpointError: the source is not a depth model, or the target cannot be written.
    """
    if base is None:
        model = open_model(source, midas, ema=ema)
    else:
        model = with_parts(open_model(base, midas), source if isinstance(source, Path) else source.path, ema=ema)
    return convert_model(model, target, progress, half=half)


def convert_model(model: Model, target: Path, progress: Progress | None = None, *, half: bool = False) -> Ledger:
    """Write a model to a single file if the target's name ends in `.safetensors`, else to a folder.

    Raises:
        CheckpointError: the target cannot be written.
    """
    if is_single_file(target):
        return to_single_file(model, target, progress, half=half)
    return to_folder(model, target, progress, half=half)


END_THE_NAME: Final = "End the name in .safetensors."


def is_single_file(target: Path) -> bool:
    """Tell whether a target is a single file by its name, and not a folder.

    Raises:
        CheckpointError: it is a pickle, which is never written.
    """
    if target.suffix.lower() in SUFFIXES["pickle"]:
        raise CheckpointError("Checkpoints are written as safetensors only.", got=f"'{target.name}'", fix=END_THE_NAME)
    return target.suffix.lower() == ".safetensors"


def to_single_file(model: Model, path: Path, progress: Progress | None = None, *, half: bool = False) -> Ledger:
    """Write a model as one safetensors file in `ldm`'s layout, and its YAML beside it.

    Raises:
        CheckpointError: the folder cannot be written or the model does not fit the layout.
    """
    lazies = [*lazy_list(ToLdm(model.parts, model.key_map)), *lazy_list(model.aside)]
    there = {lazy.key for lazy in lazies}
    made = [lazy for lazy in model.recreated() if lazy.key not in there]
    lazies += made
    noted = [*model.noted, *(lazy.key for lazy in made)]
    fates = [_mapped(entry) for entry in model.key_map]
    fates += [LedgerEntry("", (name,), "constant") for name in model.constants]
    fates += [LedgerEntry(name, (), "ldm only") for name in model.aside.keys() if name not in model.noted]
    fates += [LedgerEntry(name, (), "re-created") for name in noted]
    metadata = {METADATA: model.config.to_json(), **({RECREATED: "\n".join(noted)} if noted else {})}
    total, digest = write_single_file(path, lazies, model.config, metadata, progress, half=half)
    return Ledger(fates, total, {path.name: digest})


def write_single_file(
    path: Path,
    lazies: Sequence[Lazy],
    config: ModelConfig,
    metadata: Mapping[str, str],
    progress: Progress | None = None,
    *,
    half: bool = False,
) -> tuple[int, str]:
    """Write tensors under their names in `ldm`, and the YAML beside the file.

    Returns:
        Bytes of the tensors, and the file's SHA-256.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    lazies = [_halved(lazy) if half and lazy.key.startswith(NETWORKS) else lazy for lazy in lazies]
    total = room_for(lazies, path.parent)
    sidecar = path.with_suffix(".yaml")
    remove_stale(path)
    remove_stale(sidecar)
    text = to_yaml(config).encode()

    def describe() -> None:
        write_file(sidecar, text, CheckpointError, what="The YAML")

    # The YAML comes first: alone it does no harm, while a checkpoint that is not as wide as its kind needs it.
    digest = write_safetensors(path, lazies, {"format": "pt", **metadata}, progress, before=describe)
    return total, digest


def to_folder(model: Model, folder: Path, progress: Progress | None = None, *, half: bool = False) -> Ledger:
    """Write a model as a folder in the diffusers layout; the folder appears whole or not at all.

    Raises:
        CheckpointError: the folder exists already or cannot be written.
    """
    with refusing(f"{folder.name} cannot be written.", CheckpointError, fix=WRITING):
        exists = folder.exists()
    if exists:
        raise CheckpointError(
            f"{folder.name} exists already.", fix="Give the name of a folder that does not exist yet."
        )
    unchanged = model.still_as_recreated()
    kept = selected(model.aside, lambda name: name not in unchanged)
    files = {f"{name}/{stem}.safetensors": lazy_list(model.parts[name]) for name, stem in WEIGHTS.items()}
    fates = [_mapped(entry) for entry in model.key_map]
    fates += [LedgerEntry(name, (), "re-created") for name in unchanged]
    fates += [LedgerEntry(name, (), "ldm only") for name in kept.keys()]
    if half:
        files = {name: [_halved(lazy) for lazy in lazies] for name, lazies in files.items()}
    if kept.keys():
        files[ASIDE] = [_halved(z) if half and z.key.startswith(NETWORKS) else z for z in lazy_list(kept)]
    remove_stale(folder)
    total = room_for([lazy for lazies in files.values() for lazy in lazies], folder.parent)
    done, digests = 0, {}
    with appearing(folder, CheckpointError) as temporary:
        for name, lazies in files.items():
            file = temporary / f"{name}{NEW}"
            file.parent.mkdir(exist_ok=True)
            digests[name] = write_safetensors(file, lazies, {"format": "pt"}, part_of(progress, done, total))
            done += sum(lazy.size for lazy in lazies)
        _write_texts(temporary, model.config)
    return Ledger(fates, total, digests)


def _mapped(entry: Entry) -> LedgerEntry:
    return LedgerEntry(entry.ldm, tuple(f"{entry.component}/{name}" for name in entry.names), entry.form)


def lazy_list(tensors: Tensors) -> list[Lazy]:
    """List all tensors of a source, to be read when they are written."""
    return [Lazy(key, tensors.dtype(key), tensors.shape(key), partial(tensors.get, key)) for key in tensors.keys()]


def _halved(lazy: Lazy) -> Lazy:
    return as_type(lazy, torch.float16) if lazy.dtype.is_floating_point else lazy


def room_for(lazies: Sequence[Lazy], folder: Path) -> int:
    """Check that the folder's disk has room for tensors, and return their bytes.

    Raises:
        CheckpointError: there is not enough room.
    """
    total = sum(lazy.size for lazy in lazies)
    free = free_space(folder, CheckpointError)
    if total * FREE_SPACE > free:
        raise CheckpointError(
            "There is not enough room for the converted checkpoint.",
            got=f"{size(free)} free, {size(total)} needed",
            fix="Free some space or choose another disk.",
        )
    return total


def _write_texts(folder: Path, config: ModelConfig) -> None:
    texts: dict[str, Mapping[str, Any]] = {f"{name}/config.json": getattr(config, name) for name in FOLDERS}
    texts["scheduler/scheduler_config.json"] = config.scheduler
    texts["model_index.json"] = _index(config)
    texts["feature_extractor/preprocessor_config.json"] = FEATURE_EXTRACTOR
    for name, value in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    write_tokenizer(folder / "tokenizer")


def _index(config: ModelConfig) -> dict[str, Any]:
    depth = (
        ["transformers", "DPTForDepthEstimation"]
        if config.is_midas
        else config.depth_estimator["target"].rsplit(".", 1)
    )
    return {
        "_class_name": "StableDiffusionDepth2ImgPipeline",
        "depth_estimator": depth,
        "feature_extractor": ["transformers", "DPTImageProcessor"],
        "scheduler": ["diffusers", config.scheduler.get("_class_name", "DDIMScheduler")],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


FEATURE_EXTRACTOR: Final[Mapping[str, Any]] = {
    "image_processor_type": "DPTImageProcessor",
    "do_resize": True,
    "size": {"height": 384, "width": 384},
    "keep_aspect_ratio": False,
    "ensure_multiple_of": 1,
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
"""Preparation of a picture for MiDaS in diffusers' own pipeline; `estimators.midas_input` does the host's instead."""
